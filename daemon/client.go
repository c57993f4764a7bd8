// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
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
	fd    int    // -1 once closed
	pid   int32
	since time.Time
	log   *slog.Logger

	perPacket int   // records, at most
	asked     bool  // a request has come
	events    int16 // to poll for

	traffic
	behind episode
}

// traffic counts what was sent to a client and what it lost.
type traffic struct {
	records  uint64
	packets  uint64
	lost     uint64 // records
	episodes uint64 // times that it began to lose records
}

func (t *traffic) add(u traffic) {
	t.records += u.records
	t.packets += u.packets
	t.lost += u.lost
	t.episodes += u.episodes
}

func newClient(fd int, id uint64, pid int32, log *slog.Logger) *client {
	return &client{
		id: id, fd: fd, pid: pid, since: time.Now(), log: log.With("client", id, "pid", pid),
		perPacket: 1, events: unix.POLLIN | unix.POLLRDHUP,
	}
}

// episode is a time in which a client loses records: from the first that does
// not fit in its queue until three quarters of the queue are free again. If the
// kernel is out of memory, the queue says nothing. Then an episode ends with the
// first packet that can be sent again, but lasts starvedTime at least.
type episode struct {
	on      bool
	starved bool // of memory
	start   time.Time
	lost    uint64
}

// starvedTime keeps a shortage of memory that comes and goes from being logged each
// time.
const starvedTime = time.Second

// send queues records for the client, and counts those that do not fit: nobody
// waits for a client that does not keep up. The error means that it has gone.
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
	// A unix socket is writable when three quarters of its queue are free.
	if starved {
		c.events &^= unix.POLLOUT
	} else {
		c.events |= unix.POLLOUT
	}
	if c.behind.on {
		return
	}
	c.episodes++
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

// errHalfClosed means that the client will send nothing more.
var errHalfClosed = errors.New("half-closed")

// receive takes one packet from the client, if there is one. The error says what
// is wrong with the packet, or is errHalfClosed.
func (c *client) receive() error {
	// There is no room for control data, so the kernel drops descriptors that come
	// with the packet, and reports that it did.
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
		// It may have been an empty packet right before that, which is as harmless.
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

// unread returns how many bytes of the client's have not been received.
func (c *client) unread() int {
	n, err := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// close ends the connection. The client can still read what is queued.
func (c *client) close(why string) {
	level := slog.LevelDebug
	if c.lost > 0 {
		level = slog.LevelInfo
	}
	c.log.Log(context.Background(), level, "client leaves", "why", why, "sent", c.records, "lost", c.lost,
		"behind", c.behind.on, "connected_for", time.Since(c.since).Round(time.Millisecond))

	// If a packet of the client's were left unread, the kernel would report a reset
	// to it, ahead of what is queued.
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

func (c *client) closed() bool { return c.fd < 0 }

// state returns the client's part of a snapshot.
func (c *client) state() notify.ClientState {
	return notify.ClientState{
		ID: c.id, PID: c.pid, Since: c.since.Round(0), PerPacket: c.perPacket,
		Records: c.records, Packets: c.packets, Lost: c.lost, Behind: c.behind.on,
	}
}
