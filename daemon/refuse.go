// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// maxTurned is how many connections may wait for being told that they are turned
	// away. Others are closed without a word.
	maxTurned = 32

	// turnedTime is how long they wait for a request, which says whether they would
	// understand.
	turnedTime = time.Second
)

// turned is a connection that is turned away.
type turned struct {
	fd     int
	pid    int32
	reason notify.Reason
	until  time.Time
}

// doorman tells connections that are turned away why, if their requests say that they
// understand.
type doorman struct {
	log     *slog.Logger
	stream  *stream
	refuse  func(reason notify.Reason) // counts one that was closed
	waiting []turned
}

// turnAway ends a connection, or lets it wait for its request.
func (d *doorman) turnAway(fd int, pid int32, reason notify.Reason) {
	now := time.Now()
	t := turned{fd: fd, pid: pid, reason: reason, until: now.Add(turnedTime)}
	if !d.answer(&t, now) && len(d.waiting) < maxTurned {
		d.waiting = append(d.waiting, t)
		return
	}
	d.end(&t)
}

func (d *doorman) end(t *turned) {
	unix.Close(t.fd)
	d.refuse(t.reason)
}

// poll appends what poll(2) is to wait for. until is when to call serve even if nothing
// is ready, zero for never.
func (d *doorman) poll(fds []unix.PollFd) (_ []unix.PollFd, until time.Time) {
	for _, t := range d.waiting {
		fds = append(fds, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
		until = earlier(until, t.until)
	}
	return fds, until
}

// serve deals with what poll(2) reports on the descriptors that poll appended, and with
// those that have waited long enough.
func (d *doorman) serve(fds []unix.PollFd) {
	if len(d.waiting) == 0 {
		return
	}
	i, now := -1, time.Now()
	d.waiting = slices.DeleteFunc(d.waiting, func(t turned) bool {
		i++
		done := fds[i].Revents != 0 && d.answer(&t, now)
		if !done && now.Before(t.until) {
			return false
		}
		d.end(&t)
		return true
	})
}

// close ends all that still wait.
func (d *doorman) close() {
	for i := range d.waiting {
		d.answer(&d.waiting[i], time.Now())
		d.end(&d.waiting[i])
	}
	d.waiting = nil
}

// answer looks at the request of a connection that is turned away, and tells it why if it
// is of version 2. done is false if there is no request yet.
func (d *doorman) answer(t *turned, now time.Time) (done bool) {
	// The request stays where it is: a client of version 1 sees a reset then, which tells
	// it that it was refused.
	var buf [notify.RequestSize2 + 1]byte
	n, _, _, _, err := unix.RecvmsgBuffers(t.fd, [][]byte{buf[:]}, nil, unix.MSG_DONTWAIT|unix.MSG_PEEK)
	if err == unix.EAGAIN || err == unix.EINTR {
		return false
	}
	var req notify.Request
	if err != nil || req.UnmarshalBinary(buf[:n]) != nil || req.Version != notify.Version2 {
		return true
	}
	c := newClient(t.fd, 0, t.pid, d.log)
	c.req = req
	// A question who it is needs no place among the clients.
	if req.Probe && t.reason == notify.EndMaxClients && c.greet(d.stream, now) == nil {
		t.reason = notify.EndProbe
	}
	c.end(t.reason, 0, now)
	return true
}
