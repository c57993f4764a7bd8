// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// source is where a command's events come from: a mount, or a recording of one.
type source struct {
	events iter.Seq2[notify.Event, error]
	names  namer // of what is in the event that was yielded last
	close  func()

	// recorded: the events happened before, and time is what is in them.
	recorded bool
}

// namer tells what the numbers in records stand for. It answers soon, and says so if it
// does not know.
type namer interface {
	path(ctx context.Context, ino uint64) names.Path
	command(rec *notify.Record) string // "" if it is not known for sure
	user(uid uint32) string            // "" if it is not known
	group(gid uint32) string           // the same
}

// options say what a command wants of its source.
type options struct {
	dialer *notify.Dialer
	follow bool    // over restarts of the daemon, unmounts and mounts
	paths  bool    // names has paths
	pick   *picker // of what the dialer's filter lets through
	since  uint64  // number of the first access that is wanted; 0 for what comes
}

// openSource opens the source that a command's argument names. A folder of a mount is that
// mount and what is below the folder.
func openSource(ctx context.Context, env *environment, command, arg string, o options) (*source, error) {
	if isRecording(env, arg) {
		return openRecording(ctx, command, arg, o)
	}
	if folder := folderOf(env, arg); folder != "" {
		if len(o.pick.under) > 0 {
			return nil, usagef(command, "%s is a folder of the file system: with -under, name its mount point", arg)
		}
		o.pick.under = []string{folder}
	}
	live := newLiveNames(env, o.paths || len(o.pick.under) > 0)
	s := &source{names: live}
	if err := live.below(env, o.pick); err != nil {
		return nil, err
	}
	disconnect := func() {}
	if o.since > 0 {
		h, err := o.dialer.Probe(ctx, arg)
		if err != nil {
			return nil, explain(env, err, arg)
		}
		o.dialer.Resume = notify.Resume{RID: h.RID, Seq: o.since - 1}
	}
	if o.follow {
		s.events = notify.Follow(ctx, arg, o.dialer)
	} else {
		c, err := connect(ctx, env, o.dialer, arg)
		if err != nil {
			return nil, err
		}
		s.events, disconnect = c.Events(ctx), func() { c.Close() }
	}
	s.events = live.follow(s.events)
	s.events = o.pick.pick(ctx, s.events, live)
	s.close = func() {
		disconnect()
		live.close()
	}
	return s, nil
}

// folderOf returns a command's argument as a folder below a mount point of ScoutFS, "" if
// it is none.
func folderOf(env *environment, arg string) string {
	path, err := filepath.Abs(arg)
	if err != nil {
		return ""
	}
	m, err := env.mountOf(path)
	if err != nil || m.Type != notify.FSType {
		// To look for symbolic links touches what they lead to.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			m, err = env.mountOf(path)
		}
	}
	if err != nil || m.Type != notify.FSType || m.Path == path {
		return ""
	}
	return path
}

// isRecording tells whether a command's argument is a regular file. A mount point is not
// looked at: that would keep it from being unmounted.
func isRecording(env *environment, arg string) bool {
	path, err := filepath.Abs(arg)
	if err != nil {
		return false
	}
	if m, err := env.mountOf(path); err == nil && m.Type == notify.FSType && m.Path == path {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// openRecording opens a recording. What the options' filter leaves out is not yielded.
func openRecording(ctx context.Context, command, path string, o options) (*source, error) {
	if o.follow {
		return nil, usagef(command, "%s is a recording: -f is for mounts", path)
	}
	r, err := recording.Open(path)
	if err != nil {
		return nil, err
	}
	n := recordedNames{r}
	events := filtered(since(r.Events(ctx), o.since), &o.dialer.Filter)
	if len(o.pick.under) > 0 {
		o.pick.below = n.below(o.pick.under)
	}
	events = o.pick.pick(ctx, events, n)
	return &source{events: events, names: n, recorded: true, close: func() { r.Close() }}, nil
}

// since leaves out accesses, and losses, of numbers below one.
func since(events iter.Seq2[notify.Event, error], first uint64) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			switch ev := ev.(type) {
			case *notify.Record:
				if ev.Seq < first {
					continue
				}
			case *notify.Lost:
				if ev.Last != 0 && ev.Last < first {
					continue
				}
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// filtered leaves out the records that a filter does not let through. Of what is lost
// nobody knows whether it would.
func filtered(events iter.Seq2[notify.Event, error], f *notify.Filter) iter.Seq2[notify.Event, error] {
	if f.All() {
		return events
	}
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			switch rec := ev.(type) {
			case *notify.Record:
				if !f.Match(rec, 0) {
					continue
				}
			case *notify.Lost:
				rec.AtMost = rec.AtMost || rec.Count > 0
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// recordedNames are those that a recording has.
type recordedNames struct{ r *recording.Reader }

func (n recordedNames) path(_ context.Context, ino uint64) names.Path {
	if text, ok := n.r.Name(recording.Path, ino); ok {
		return names.Path{Text: text}
	}
	if _, ok := n.r.Name(recording.Unlinked, ino); ok {
		return names.Path{Err: notify.ErrUnlinked}
	}
	return names.Path{Err: errNotRecorded}
}

// below returns what tells whether a file was in one of some folders, which are paths from
// the root of the file system.
func (n recordedNames) below(folders []string) func(context.Context, uint64) (bool, error) {
	clean := make([]string, len(folders))
	for i, f := range folders {
		clean[i] = strings.TrimPrefix(filepath.Clean("/"+f), "/")
	}
	return func(ctx context.Context, ino uint64) (bool, error) {
		p := n.path(ctx, ino)
		return p.Err == nil && slices.ContainsFunc(clean, func(f string) bool {
			return f == "" || strings.HasPrefix(p.Text, f+"/")
		}), p.Err
	}
}

func (n recordedNames) command(rec *notify.Record) string {
	return n.text(recording.Command, uint64(rec.PID))
}

func (n recordedNames) user(uid uint32) string  { return n.text(recording.User, uint64(uid)) }
func (n recordedNames) group(gid uint32) string { return n.text(recording.Group, uint64(gid)) }

func (n recordedNames) text(kind recording.Kind, id uint64) string {
	text, _ := n.r.Name(kind, id)
	return text
}
