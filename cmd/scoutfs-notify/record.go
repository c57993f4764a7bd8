// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const recordAbout = `Keeps a mount's accesses in a file, with the names of users, groups and processes and
with -paths those of files, until it is interrupted: over restarts of the daemon, unmounts
and mounts. What is missed meanwhile is in the file as a loss, and so is what is missed
between two runs: a file that exists is gone on with. tail, top and the pictures take the
file instead of a mount.
`

// runRecord is the command record.
func runRecord(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("record", flag.ContinueOnError)
	r := &recorder{env: env}
	var count uint64
	var duration time.Duration
	paths := flags.Bool("paths", false, "keep the files' paths, too")
	flags.Var(cli.Count(&count), "count", "end after `count` accesses; 0 for never (the default)")
	flags.Var(cli.Duration(&duration, 0, math.MaxInt64), "for", "end after `duration`; 0 for never (the default)")
	flags.Var(cli.Size(&r.rotateSize), "rotate-size", "start another file when this one has `bytes`, such as 500M or 10G; 0 for never (the default)")
	flags.Var(cli.Duration(&r.rotateAge, 0, math.MaxInt64), "rotate-age", "start another file after `duration`, such as 24h; 0 for never (the default)")
	flags.Var(cli.Int(&r.keep, 0, math.MaxInt), "keep", "delete the oldest of more than `count` files that were rotated; 0 for none (the default)")
	var ff filterFlags
	ff.define(flags)
	rest, err := env.program.Parse(flags, "FILE [MOUNT]", recordAbout, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 || rest[0] == "" {
		return usagef("record", "a file to record to is missing")
	}
	r.path = rest[0]
	mount, err := theMount(env, "record", rest[1:])
	if err != nil {
		return err
	}
	if isRecording(env, mount) {
		return usagef("record", "%s is a file, not a mount", mount)
	}
	f, err := ff.filter("record")
	if err != nil {
		return err
	}
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	pick := ff.picker()
	// The next run is not to take it for missed.
	pick.skipped = func(seq uint64) { r.w.Skip(seq) }
	err = r.run(ctx, mount, options{dialer: dialer(env, f), follow: true, paths: *paths, pick: pick}, count)
	pick.tell(env.stderr, "record")
	return err
}

const (
	// recordIdle is after how long without accesses there is a sign of life: in the
	// file, and for whoever waits to rotate it.
	recordIdle = 10 * time.Second

	// rotatedTime is what is added to the name of a file that is rotated, with a dot.
	rotatedTime = "20060102T150405.000000000Z"
)

// recorder records to a file.
type recorder struct {
	env        *environment
	path       string
	rotateSize int64
	rotateAge  time.Duration
	keep       int

	w        *recording.Writer // never nil once run has it
	empty    bool              // it has no events
	accesses uint64
	lost     notify.Lost
	files    int // that were rotated
	told     time.Time
}

func (r *recorder) run(ctx context.Context, mount string, o options, count uint64) (err error) {
	if r.w, err = recording.Append(r.path); err != nil {
		return moveAway(err)
	}
	// What else failed is the cause, if that fails, too.
	defer func() { err = cmp.Or(err, r.w.Close()) }()
	r.empty = r.w.Place() == notify.Resume{}
	o.dialer.Idle = recordIdle
	if o.dialer.Resume, err = r.place(); err != nil {
		return err
	}
	src, err := openSource(ctx, r.env, "record", mount, o)
	if err != nil {
		return err
	}
	defer src.close()
	for ev, err := range src.events {
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return r.sum()
		case err != nil:
			return explain(r.env, fmt.Errorf("record %s: %w", mount, err), mount)
		}
		if err := r.keepEvent(ctx, src.names, ev, o.paths); err != nil {
			return err
		}
		if count > 0 && r.accesses == count {
			return r.sum()
		}
	}
	return r.sum()
}

// moveAway says what to do about a file that cannot be gone on with.
func moveAway(err error) error {
	if errors.Is(err, recording.ErrDamaged) {
		return fmt.Errorf("%w: move it away; what it has up to there can be read", err)
	}
	return err
}

// place returns where the recording has come to, which may be in a file that was rotated.
func (r *recorder) place() (notify.Resume, error) {
	if at := r.w.Place(); at != (notify.Resume{}) {
		return at, nil
	}
	old, err := r.rotated()
	if err != nil {
		return notify.Resume{}, err
	}
	for _, path := range slices.Backward(old) {
		// One that has no events does not say.
		if at, err := recording.PlaceOf(path); err != nil || at != (notify.Resume{}) {
			return at, moveAway(err)
		}
	}
	return notify.Resume{}, nil
}

// rotated returns the files that were rotated, in the order in which they were.
func (r *recorder) rotated() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(r.path))
	if err != nil {
		return nil, fmt.Errorf("look for files that were rotated: %w", err)
	}
	var old []string
	for _, e := range entries {
		if _, ok := r.rotatedAt(e.Name()); ok {
			old = append(old, filepath.Join(filepath.Dir(r.path), e.Name()))
		}
	}
	slices.Sort(old)
	return old, nil
}

// rotatedAt returns the time in the name of a file that was rotated. ok is false if it is
// another file's.
func (r *recorder) rotatedAt(name string) (at time.Time, ok bool) {
	rest, ok := cutName(name, filepath.Base(r.path))
	if !ok {
		return at, false
	}
	at, err := time.Parse(rotatedTime, rest)
	return at, err == nil && at.Format(rotatedTime) == rest
}

// nextName returns the name for a file to be rotated. It comes after those of all others,
// whatever the clock says: it may have been ahead when they got theirs.
func (r *recorder) nextName() (string, error) {
	old, err := r.rotated()
	if err != nil {
		return "", err
	}
	at := r.env.now().UTC()
	if len(old) > 0 {
		if newest, _ := r.rotatedAt(filepath.Base(old[len(old)-1])); !at.After(newest) {
			at = newest.Add(1)
		}
	}
	return r.path + "." + at.Format(rotatedTime), nil
}

// cutName returns what follows a name and a dot.
func cutName(s, name string) (string, bool) {
	if len(s) <= len(name)+1 || s[:len(name)] != name || s[len(name)] != '.' {
		return "", false
	}
	return s[len(name)+1:], true
}

// keepEvent records an event.
func (r *recorder) keepEvent(ctx context.Context, n namer, ev notify.Event, paths bool) error {
	switch ev := ev.(type) {
	case *notify.Waiting:
		fmt.Fprintf(r.env.stderr, "scoutfs-notify: record: waiting: %s\n", printable(ev.Err.Error()))
		return r.w.Flush()
	case *notify.Lost:
		addLoss(&r.lost, ev)
	}
	if r.due(ev) {
		if err := r.rotate(ev); err != nil {
			return fmt.Errorf("rotate recording %s: %w", r.path, err)
		}
	}
	if rec, ok := ev.(*notify.Record); ok {
		r.accesses++
		r.keepNames(ctx, n, rec, paths)
	}
	r.empty = false
	if err := r.w.Write(ev); err != nil {
		return err
	}
	r.tell()
	return nil
}

func (r *recorder) keepNames(ctx context.Context, n namer, rec *notify.Record, paths bool) {
	r.w.Name(recording.Command, uint64(rec.PID), n.command(rec))
	r.w.Name(recording.User, uint64(rec.UID), n.user(rec.UID))
	r.w.Name(recording.Group, uint64(rec.GID), n.group(rec.GID))
	if !paths {
		return
	}
	p := n.path(ctx, rec.Ino)
	unlinked := ""
	if errors.Is(p.Err, notify.ErrUnlinked) {
		unlinked = "unlinked"
	}
	r.w.Name(recording.Path, rec.Ino, p.Text)
	r.w.Name(recording.Unlinked, rec.Ino, unlinked)
}

// due tells whether an event belongs into another file. The end of a stream belongs to the
// stream.
func (r *recorder) due(ev notify.Event) bool {
	if _, end := ev.(*notify.End); end || r.empty {
		return false
	}
	return r.rotateSize > 0 && r.w.Size() >= r.rotateSize || r.rotateAge > 0 && r.w.Age() >= r.rotateAge
}

// rotate ends the file under another name and starts a new one for an event.
func (r *recorder) rotate(ev notify.Event) error {
	name, err := r.nextName()
	if err != nil {
		return err
	}
	// The file is this recorder's until there is another: whatever fails, there is one to
	// be closed, and nobody else takes it for theirs meanwhile.
	if err := os.Rename(r.path, name); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: it was moved or deleted; start the recorder again", err)
		}
		return err
	}
	r.files++
	w, err := recording.Append(r.path)
	if err != nil {
		return err
	}
	if err := r.w.Close(); err != nil {
		// The new file does not say that it goes on after what may not be in the old one.
		return errors.Join(err, w.Close())
	}
	hello := w.Follow(r.w)
	r.w, r.empty = w, true
	if _, starts := ev.(*notify.Hello); !starts && hello != nil {
		if err := r.w.Write(hello); err != nil {
			return err
		}
	}
	return r.clean()
}

// clean deletes the oldest files.
func (r *recorder) clean() error {
	if r.keep == 0 {
		return nil
	}
	old, err := r.rotated()
	if err != nil {
		return err
	}
	for len(old) > r.keep {
		// Somebody else may have deleted it.
		if err := os.Remove(old[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		old = old[1:]
	}
	return nil
}

// tell says on a terminal how it goes, once a second.
func (r *recorder) tell() {
	now := r.env.now()
	if !r.env.progress || now.Sub(r.told) < time.Second {
		return
	}
	r.told = now
	fmt.Fprintf(r.env.stderr, "\r%s\x1b[K", r.state())
}

// sum says what was recorded.
func (r *recorder) sum() error {
	if err := r.w.Flush(); err != nil {
		return err
	}
	start := ""
	if r.env.progress {
		start = "\r\x1b[K"
	}
	_, err := io.WriteString(r.env.stderr, start+"scoutfs-notify: record: "+r.state()+"\n")
	return err
}

func (r *recorder) state() string {
	where := printable(r.path)
	if r.files > 0 {
		where = fmt.Sprintf("%s and %d before it", where, r.files)
	}
	return fmt.Sprintf("%d accesses, %s, in %s (%d bytes)", r.accesses, losses(&r.lost), where, r.w.Size())
}

// addLoss adds up losses.
func addLoss(sum, l *notify.Lost) {
	sum.Count += l.Count
	sum.Cause |= l.Cause
	sum.AtMost = sum.AtMost || l.AtMost
	sum.Unknown = sum.Unknown || l.Unknown
}

// losses says what was lost in all.
func losses(l *notify.Lost) string {
	if l.Count == 0 && !l.Unknown {
		return "lost nothing"
	}
	return l.String()
}
