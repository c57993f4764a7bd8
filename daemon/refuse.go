// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
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

// turnAway ends a connection, and tells it why if its request says that it understands.
func (cs *clients) turnAway(fd int, pid int32, reason notify.Reason) {
	now := time.Now()
	t := turned{fd: fd, pid: pid, reason: reason, until: now.Add(turnedTime)}
	if !cs.answer(&t, now) && len(cs.turned) < maxTurned {
		cs.turned = append(cs.turned, t)
		return
	}
	cs.giveUp(&t)
}

// giveUp closes a connection that is turned away, and counts it.
func (cs *clients) giveUp(t *turned) {
	cs.changed = true
	unix.Close(t.fd)
	switch t.reason {
	case notify.EndMaxClients:
		cs.refused.MaxClients++
		if cs.tooMany.allow() {
			cs.log.Warn("turning clients away: there are as many as -max-clients allows", "max_clients", cs.max)
		}
	case notify.EndCredentials:
		cs.refused.Credentials++
	case notify.EndResources:
		cs.refused.Resources++
	}
}

// serveTurned deals with what poll(2) reports on those turned away, and with those that
// have waited long enough.
func (cs *clients) serveTurned(fds []unix.PollFd, now time.Time) {
	i := -1
	cs.turned = slices.DeleteFunc(cs.turned, func(t turned) bool {
		i++
		if !(i < len(fds) && fds[i].Revents != 0 && cs.answer(&t, now)) && now.Before(t.until) {
			return false
		}
		cs.giveUp(&t)
		return true
	})
}

// answer looks at the request of a connection that is turned away, and tells it why if it
// is of version 2. done is false if there is no request yet.
func (cs *clients) answer(t *turned, now time.Time) (done bool) {
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
	c := newClient(t.fd, 0, t.pid, cs.log)
	c.req = req
	// A question who it is needs no place among the clients.
	if req.Probe && t.reason == notify.EndMaxClients && c.greet(cs.stream, now) == nil {
		t.reason = notify.EndProbe
	}
	c.end(t.reason, 0, now)
	return true
}

// sayExhausted tells a connection for which there is no descriptor, if its request has
// come with it.
func (cs *clients) sayExhausted(fd int) {
	cs.answer(&turned{fd: fd, reason: notify.EndResources}, time.Now())
}
