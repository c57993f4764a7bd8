// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"iter"
	"os"
	"path/filepath"

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
	follow bool // over restarts of the daemon, unmounts and mounts
	paths  bool // names has paths
}

// openSource opens the source that a command's argument names.
func openSource(ctx context.Context, env *environment, arg string, o options) (*source, error) {
	if isRecording(env, arg) {
		return openRecording(ctx, arg, o)
	}
	s := &source{}
	if o.follow {
		s.events, s.close = notify.Follow(ctx, arg, o.dialer), func() {}
	} else {
		c, err := connect(ctx, env, o.dialer, arg)
		if err != nil {
			return nil, err
		}
		s.events, s.close = c.Events(ctx), func() { c.Close() }
	}
	live := newLiveNames(env, o.paths)
	disconnect := s.close
	s.names, s.events, s.close = live, live.follow(s.events), func() {
		disconnect()
		live.close()
	}
	return s, nil
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
func openRecording(ctx context.Context, path string, o options) (*source, error) {
	if o.follow {
		return nil, usagef("tail", "%s is a recording: -f is for mounts", path)
	}
	r, err := recording.Open(path)
	if err != nil {
		return nil, err
	}
	f := o.dialer.Filter
	return &source{
		events: filtered(r.Events(ctx), &f), names: recordedNames{r}, close: func() { r.Close() }, recorded: true,
	}, nil
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

func (n recordedNames) command(rec *notify.Record) string {
	return n.text(recording.Command, uint64(rec.PID))
}

func (n recordedNames) user(uid uint32) string  { return n.text(recording.User, uint64(uid)) }
func (n recordedNames) group(gid uint32) string { return n.text(recording.Group, uint64(gid)) }

func (n recordedNames) text(kind recording.Kind, id uint64) string {
	text, _ := n.r.Name(kind, id)
	return text
}
