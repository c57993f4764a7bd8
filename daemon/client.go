// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// client is one connection.
type client struct {
	id    uint64 // in order of connection, from 1
	fd    int
	pid   int32
	since time.Time
	log   *slog.Logger

	perPacket int   // records
	asked     bool  // a request has come
	events    int16 // to poll for
	gone      bool  // to be reaped

	records uint64
	packets uint64
	lost    uint64

	behind episode
}

// episode is a time in which a client loses records: from the first that does
// not fit in its queue until three quarters of the queue are free again. If it was
// memory that the kernel lacked, the queue says nothing: then it ends with the
// first packet that goes out again, and takes starvedTime at least.
type episode struct {
	on      bool
	starved bool // of memory
	start   time.Time
	lost    uint64
}

// starvedTime keeps memory that comes and goes from being logged each time.
const starvedTime = time.Second

// send queues records for the client, and counts those that do not fit: a
// client that does not keep up loses what comes next, and nobody waits for it.
// The error says that it is gone.
func (c *client) send(batch []byte) error {
	for len(batch) > 0 {
		n := min(len(batch), c.perPacket*notify.RecordSize)
		switch err := unix.Send(c.fd, batch[:n], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err {
		case nil:
			c.records += uint64(n / notify.RecordSize)
			c.packets++
			batch = batch[n:]
			if c.behind.starved && time.Since(c.behind.start) >= starvedTime {
				c.caughtUp()
			}
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
			c.lose(batch, err != unix.EAGAIN)
			return nil
		default:
			return err
		}
	}
	return nil
}

func (c *client) lose(batch []byte, starved bool) {
	lost := uint64(len(batch) / notify.RecordSize)
	c.lost += lost
	c.behind.lost += lost
	c.behind.starved = starved
	// Writable, for a unix socket, is a queue of which three quarters are free.
	if starved {
		c.events &^= unix.POLLOUT
	} else {
		c.events |= unix.POLLOUT
	}
	if c.behind.on {
		return
	}
	c.behind.on = true
	c.behind.start = time.Now()
	c.log.Warn("client is behind and loses records", "sent", c.records, "lost_before", c.lost-lost)
}

// caughtUp ends an episode.
func (c *client) caughtUp() {
	c.events &^= unix.POLLOUT
	if !c.behind.on {
		return
	}
	c.log.Warn("client has caught up", "lost", c.behind.lost,
		"behind_for", time.Since(c.behind.start).Round(time.Millisecond), "lost_in_all", c.lost)
	c.behind = episode{}
}

// errHalfClosed: the client says that it will send nothing more.
var errHalfClosed = errors.New("half-closed")

// receive takes one packet from the client, if there is one. The error says
// what is wrong with it, or is errHalfClosed.
func (c *client) receive() error {
	// Without room for control data the kernel drops file descriptors that come
	// with the packet, and says so.
	var buf [notify.RequestSize + 1]byte
	n, _, flags, _, err := unix.RecvmsgBuffers(c.fd, [][]byte{buf[:]}, nil, unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case flags&unix.MSG_CTRUNC != 0:
		return fmt.Errorf("%w: it carries file descriptors", notify.ErrRequest)
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("%w: more than %d bytes", notify.ErrRequest, notify.RequestSize)
	case n == 0 && c.halfClosed() && c.unread() == 0:
		// Could be an empty packet right before that; nothing hangs on it.
		return errHalfClosed
	}
	var req notify.Request
	if err := req.UnmarshalBinary(buf[:n]); err != nil {
		return err
	}
	if c.asked {
		return fmt.Errorf("%w: there was one before", notify.ErrRequest)
	}
	c.asked = true
	c.perPacket = int(req.MaxRecords)
	return nil
}

func (c *client) halfClosed() bool {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// unread returns how many bytes the client has sent that were not received.
func (c *client) unread() int {
	n, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// close ends the connection. The client can still read what is queued.
func (c *client) close() {
	// A packet of the client's that nobody has read would make the kernel tell it
	// of a reset ahead of what is queued.
	unix.Shutdown(c.fd, unix.SHUT_RD)
	var buf [1]byte
	for {
		n, _, _, _, err := unix.RecvmsgBuffers(c.fd, [][]byte{buf[:]}, nil, unix.MSG_DONTWAIT)
		if err != nil && err != unix.EINTR || err == nil && n == 0 {
			break
		}
	}
	unix.Close(c.fd)
	c.fd = -1
}
