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

	req    notify.Request // what it asked for; the defaults before that
	asked  bool           // a request has come
	events int16          // to poll for

	out *packets // nil for one at a time

	traffic
	behind episode
	queue  queue

	// In version 2:
	filtered bool        // it does not want all records
	owed     notify.Lost // what it has lost and was not told of; Last is 0 for nothing
	sent     time.Time   // the last packet
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
		req: notify.Request{Version: notify.Version1, MaxRecords: 1}, events: unix.POLLIN | unix.POLLRDHUP,
	}
}

// speaks2 tells whether the client gets control records.
func (c *client) speaks2() bool { return c.req.Version == notify.Version2 }

// episode is a time in which a client loses records: from the first that does
// not fit in its queue until three quarters of the queue are free again. If the
// kernel is out of memory, the queue says nothing. Then an episode ends with the
// first packet that can be sent again, but lasts starvedTime at least.
type episode struct {
	on      bool
	starved bool // of memory
	start   time.Time
	lost    uint64
	logged  bool

	limit logLimiter
	quiet uint64 // episodes since the last that was logged
}

// starvedTime keeps a shortage of memory that comes and goes from being logged each
// time.
const starvedTime = time.Second

// send queues records for a client of version 1, and counts those that do not fit:
// nobody waits for a client that does not keep up. The error means that it has gone.
func (c *client) send(batch []byte) error {
	rest, err := c.sendPackets(batch)
	switch {
	case err == nil:
		if c.behind.starved && time.Since(c.behind.start) >= starvedTime {
			c.caughtUp()
		}
	case isFull(err):
		c.lose(uint64(len(rest)/notify.RecordSize), isStarved(err))
		return nil
	}
	return err
}

// sendPackets sends as much as the queue has room for and returns the rest. The error
// says why there is one.
func (c *client) sendPackets(batch []byte) (rest []byte, err error) {
	size := int(c.req.MaxRecords) * notify.RecordSize
	for len(batch) > 0 {
		n, one := 0, min(len(batch), size)
		if one < len(batch) && c.out != nil {
			n, err = c.out.send(c.fd, batch, size)
		} else if err = sendOne(c.fd, batch[:one]); err == nil {
			n = 1
		}
		sent := min(len(batch), n*size)
		c.packets += uint64(n)
		c.queue.add(n, sent)
		c.records += uint64(sent / notify.RecordSize)
		batch = batch[sent:]
		if err != nil {
			return batch, err
		}
	}
	return nil, nil
}

func (c *client) sendPacket(pkt []byte) error {
	err := sendOne(c.fd, pkt)
	if err == nil {
		c.packets++
		c.queue.add(1, len(pkt))
	}
	return err
}

// isFull tells whether a packet was not sent because there is no room for it.
func isFull(err error) bool { return err == unix.EAGAIN || isStarved(err) }

// isStarved tells whether that is because the kernel is out of memory.
func isStarved(err error) bool { return err == unix.ENOBUFS || err == unix.ENOMEM }

// lose counts records that did not fit.
func (c *client) lose(lost uint64, starved bool) {
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
	// A client that is slow in bursts would fill the log.
	if c.behind.logged = c.behind.limit.allow(); c.behind.logged {
		c.log.Warn("client is behind and loses records", "sent", c.records, "lost_before", c.lost-lost,
			"episodes_not_logged", c.behind.quiet)
		c.behind.quiet = 0
	} else {
		c.behind.quiet++
	}
}

// caughtUp ends an episode.
func (c *client) caughtUp() {
	c.events &^= unix.POLLOUT
	if !c.behind.on {
		return
	}
	if c.behind.logged {
		c.log.Warn("client has caught up", "lost", c.behind.lost,
			"behind_for", time.Since(c.behind.start).Round(time.Millisecond), "lost_in_all", c.lost)
	}
	c.behind = episode{limit: c.behind.limit, quiet: c.behind.quiet}
}

// errHalfClosed means that the client will send nothing more.
var errHalfClosed = errors.New("half-closed")

// receive takes one packet from the client, if there is one. The error says what
// is wrong with the packet, or is errHalfClosed.
func (c *client) receive() error {
	// There is no room for control data, so the kernel drops descriptors that come
	// with the packet, and reports that it did.
	var buf [notify.RequestSize2 + 1]byte
	n, _, flags, _, err := unix.RecvmsgBuffers(c.fd, [][]byte{buf[:]}, nil, unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil
	case err != nil:
		return err
	case flags&unix.MSG_CTRUNC != 0:
		return fmt.Errorf("%w: it carries file descriptors", notify.ErrRequest)
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("%w: more than %d bytes", notify.ErrRequest, notify.RequestSize2)
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
	c.req = req
	c.filtered = !req.Filter.All()
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
		ID: c.id, PID: c.pid, Since: c.since.Round(0), PerPacket: int(c.req.MaxRecords),
		Protocol: int(c.req.Version), Filtered: c.filtered,
		Records: c.records, Packets: c.packets, Lost: c.lost, Behind: c.behind.on,
	}
}
