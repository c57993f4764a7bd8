// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// readiness is what poll found, apart from what it dealt with itself.
type readiness struct {
	stop   bool
	source bool // has records, or one of:
	hangup bool
	broken bool
}

// Places in pollfds; clients come behind.
const (
	pollStop = iota
	pollSource
	pollDoor
	pollClients
)

// poll waits until the time of the next drain, or if the source sleeps until it
// wakes; or until anything else is to be done, and serves listener and clients.
func (r *relay) poll(next time.Time, sleep bool) (readiness, error) {
	fds := append(r.pollfds[:0],
		unix.PollFd{Fd: int32(r.stop), Events: unix.POLLIN},
		unix.PollFd{Fd: -1, Events: unix.POLLIN},
		unix.PollFd{Fd: -1, Events: unix.POLLIN})
	until := r.pub.next()
	if sleep {
		fds[pollSource].Fd = int32(r.src.Fd())
	} else {
		until = earlier(until, next)
	}
	if reopen := r.door.shutUntil; reopen.IsZero() {
		fds[pollDoor].Fd = int32(r.ln.fd)
	} else {
		until = earlier(until, reopen)
	}
	for _, c := range r.clients {
		fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: c.events})
	}
	r.pollfds = fds

	n, err := r.ppoll(fds, until)
	if err != nil {
		return readiness{}, fmt.Errorf("poll: %w", err)
	}
	if n > 0 {
		// Before new clients, which have no place in fds.
		r.serveClients(fds[pollClients:])
	}
	r.accept(fds[pollDoor].Revents != 0)
	source := fds[pollSource].Revents
	return readiness{
		stop:   fds[pollStop].Revents != 0,
		source: source != 0,
		hangup: source&unix.POLLHUP != 0,
		broken: source&(unix.POLLERR|unix.POLLNVAL) != 0,
	}, nil
}

// ppoll waits until a time, for ever if that is zero, or an event.
func (r *relay) ppoll(fds []unix.PollFd, until time.Time) (int, error) {
	var timeout *unix.Timespec
	if !until.IsZero() {
		r.timeout = unix.NsecToTimespec(int64(max(0, time.Until(until))))
		timeout = &r.timeout
	}
	n, err := unix.Ppoll(fds, timeout, nil)
	if err == unix.EINTR {
		// Nothing is ready, and revents say nothing.
		for i := range fds {
			fds[i].Revents = 0
		}
		return 0, nil
	}
	return n, err
}

// earlier returns the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
