// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// Waiting says that nobody serves the mount just now, and that accesses go untold until
// the next *[Hello]. [Follow] yields it once for each such time.
type Waiting struct {
	Err error // why: what connecting failed with
}

// How long Follow waits between attempts to connect: a daemon that is restarted is back
// soon, one that was stopped may stay away.
const (
	followMin = 20 * time.Millisecond
	followMax = 500 * time.Millisecond
)

// Follow connects to the daemon that serves target, as [Dialer.DialContext] does, and
// yields all events: the *[Hello] of each connection, each access, each loss, each
// *[End]. After the end of a stream it connects again, for as long as it takes: over
// restarts of the daemon, unmounts and mounts. What was missed meanwhile is a *[Lost]
// right after the next *[Hello]. Whoever keeps the last [Hello.RID] and number can go on
// from there in another process: see Resume.
//
// It does not touch the file system while it waits, so that it never keeps it from
// being unmounted. opts may be nil.
//
// It ends when the context is done, with its error, or with one that waiting cannot
// cure: [os.ErrPermission], [ErrRequest], [ErrProtocol], [ErrTarget], [ErrOtherMount],
// [ErrRefused] because of who the caller is, or [os.ErrNotExist] if there is no such
// target at the start.
//
// What is yielded is valid until the next iteration: copy a *[Record] to keep it.
func Follow(ctx context.Context, target string, opts *Dialer) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f := follower{target: target, yield: yield}
		if opts != nil {
			f.d = *opts
		}
		if f.d.Version != 0 && f.d.Version < Version2 {
			yield(nil, fmt.Errorf("follow %s: %w: version %d does not say what was lost", target, ErrRequest, f.d.Version))
			return
		}
		if err := f.run(ctx); err != nil && !errors.Is(err, errBreak) {
			yield(nil, err)
		}
	}
}

// errBreak means that whoever takes the events has had enough.
var errBreak = errors.New("the loop over the events ended")

// follower is a call of Follow.
type follower struct {
	d       Dialer
	target  string
	yield   func(Event, error) bool
	met     bool // connected before
	looked  bool // at the file system, which is done once
	waiting bool // that was yielded
}

func (f *follower) run(ctx context.Context) (err error) {
	// Once: to follow symbolic links touches what is mounted.
	if f.target, err = resolve(f.target); err != nil {
		return err
	}
	for delay := followMin; ; delay = min(2*delay, followMax) {
		hello, err := f.stream(ctx)
		switch {
		case errors.Is(err, errBreak):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case f.lasts(err):
			return err
		}
		if hello {
			delay = followMin
		}
		if err != nil && !f.waiting {
			f.waiting = true
			if !f.yield(&Waiting{Err: err}, nil) {
				return errBreak
			}
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stream follows one connection to its end, which is no error if the daemon said it.
// hello is true if there was one.
func (f *follower) stream(ctx context.Context) (hello bool, err error) {
	c, err := f.connect(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	f.met, f.waiting = true, false
	if f.d.Resume.RID == 0 {
		f.d.Resume = Resume{RID: c.hello.RID, Seq: c.seq}
	}
	for ev, err := range c.Events(ctx) {
		if err != nil {
			return true, err
		}
		if !f.yield(ev, nil) {
			return true, errBreak
		}
		// Not before the loss that may follow the hello: it would be forgotten if the
		// stream broke off between them.
		if ev != c.hello {
			f.d.Resume = Resume{RID: c.hello.RID, Seq: c.seq}
		}
	}
	return true, nil
}

// connect connects. Only the first time it looks up the file system if no daemon says
// that it serves it, to tell a wrong target from one that is not served yet.
func (f *follower) connect(ctx context.Context) (*Client, error) {
	if m, err := MountOf(f.target); !f.looked || filepath.Base(f.target) == SocketName || err != nil {
		f.looked = true
		return f.d.DialContext(ctx, f.target)
	} else if m.Type != FSType {
		return nil, ErrNotScoutFS
	}
	s, ok := f.d.Served(f.target)
	if !ok {
		return nil, ErrNotRunning
	}
	req, err := f.d.request(false)
	if err != nil {
		return nil, err
	}
	return f.d.connect(ctx, s, req)
}

// lasts tells whether an error is one that waiting cannot cure.
func (f *follower) lasts(err error) bool {
	switch {
	case err == nil, errors.Is(err, ErrNotRunning), errors.Is(err, ErrNotScoutFS), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return false
	case errors.Is(err, ErrRefused):
		var r *refusedError
		return errors.As(err, &r) && (r.reason == EndCredentials || r.reason == EndProtocol)
	case errors.Is(err, os.ErrNotExist):
		return !f.met
	}
	return true
}
