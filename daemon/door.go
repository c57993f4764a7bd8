// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// acceptBurst bounds what a storm of connections takes from the relaying. It
	// is all that can wait at once, so that accepting finds all that came before.
	acceptBurst = backlog + 1

	// shutTime is how long connections wait when not even turning them away
	// works, and polling for them would go in circles.
	shutTime = time.Second
)

// door accepts connections.
type door struct {
	spare     int       // a descriptor to give up for one that is turned away
	shutUntil time.Time // zero while open
	full      seldom    // says that there are too many clients
	out       seldom    // says that descriptors or memory ran out
	stranger  seldom    // says that somebody may not be a client
	rude      seldom    // says that somebody breaks the protocol
}

func (d *door) init() error {
	d.spare = -1
	if !d.keepSpare() {
		return fmt.Errorf("reserve a descriptor: %w", unix.EMFILE)
	}
	return nil
}

func (d *door) close() {
	if d.spare >= 0 {
		unix.Close(d.spare)
	}
}

func (d *door) keepSpare() bool {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return false
	}
	d.spare = fd
	return true
}

// reopen follows a client's leaving, which frees what may have been short.
func (d *door) reopen() {
	d.shutUntil = time.Time{}
}

// serve accepts who waits.
func (d *door) serve(r *relay, ready bool) {
	if !d.shutUntil.IsZero() {
		if time.Now().Before(d.shutUntil) {
			return
		}
		d.shutUntil = time.Time{}
		ready = true
	}
	if !ready {
		return
	}
	for range acceptBurst {
		fd, err := accept(r.ln.fd)
		switch err {
		case nil:
			d.admit(r, fd)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EMFILE, unix.ENFILE:
			if !d.turnAway(r, err) {
				d.shut(r, err)
				return
			}
		default:
			d.shut(r, err)
			return
		}
	}
}

// turnAway accepts and closes a connection when there is no descriptor to keep
// it with: whoever connects shall not wait for a daemon that cannot serve it.
func (d *door) turnAway(r *relay, err error) bool {
	if d.spare < 0 && !d.keepSpare() {
		return false
	}
	unix.Close(d.spare)
	d.spare = -1
	fd, aerr := accept(r.ln.fd)
	if aerr == nil {
		unix.Close(fd)
		r.count.refused.Resources++
		d.complain(r, err)
	}
	d.keepSpare()
	return aerr == nil || aerr == unix.EAGAIN
}

// shut leaves connections waiting for a while.
func (d *door) shut(r *relay, err error) {
	d.shutUntil = time.Now().Add(shutTime)
	d.complain(r, err)
}

// complain says that something ran out.
func (d *door) complain(r *relay, err error) {
	if d.out.now() {
		r.log.Error("cannot accept clients", "error", err, "clients", len(r.clients))
	}
}

// admit makes a client of a connection, or closes it.
func (d *door) admit(r *relay, fd int) {
	r.pub.dirty = true
	if len(r.clients) >= r.cfg.MaxClients {
		unix.Close(fd)
		r.count.refused.MaxClients++
		if d.full.now() {
			r.log.Warn("turning clients away: there are as many as -max-clients allows", "max_clients", r.cfg.MaxClients)
		}
		return
	}
	pid, err := r.peers.check(fd)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		unix.Close(fd)
		r.count.refused.Resources++
		d.complain(r, err)
		return
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			r.log.Debug("a client is gone before it was let in", "pid", pid)
			return
		}
		r.count.refused.Credentials++
		if d.stranger.now() {
			r.log.Warn("turning a client away", "pid", pid, "error", err)
		}
		return
	}
	if err := setSendBuffer(fd, r.cfg.SendBuffer); err != nil {
		unix.Close(fd)
		r.count.refused.Resources++
		r.log.Error("turning a client away", "pid", pid, "error", err)
		return
	}

	r.lastID++
	c := &client{
		id:        r.lastID,
		fd:        fd,
		pid:       pid,
		since:     time.Now(),
		log:       r.log.With("client", r.lastID, "pid", pid),
		perPacket: 1,
		events:    unix.POLLIN | unix.POLLRDHUP,
	}
	r.clients = append(r.clients, c)
	r.count.accepted++
	c.log.Debug("client connects")
	// Its request has come with it, as a rule.
	r.receive(c)
}

// seldom is for what could be logged once a connection: it says when to.
type seldom struct{ next time.Time }

func (s *seldom) now() bool {
	const interval = 10 * time.Second
	now := time.Now()
	if now.Before(s.next) {
		return false
	}
	s.next = now.Add(interval)
	return true
}

// accept is accept4(2) without the address, which unix.Accept4 allocates.
func accept(fd int) (int, error) {
	nfd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(nfd), nil
}

// setSendBuffer makes a client's queue as long as configured, which the
// system's limit would not let it be.
func setSendBuffer(fd, size int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
	if err == unix.EPERM {
		return fmt.Errorf("set the size of its queue: %w: CAP_NET_ADMIN is missing", os.ErrPermission)
	}
	if err != nil {
		return fmt.Errorf("set the size of its queue: %w", err)
	}
	return nil
}
