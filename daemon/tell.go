// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// This file is what a client of version 2 is told: records that it wants, each loss
// before the record that follows it, signs of life, and the end.

// greet sends a client its first packets: the hello, and what it has missed. The queue
// may be full of records that were sent before the request came.
func (c *client) greet(s *stream, now time.Time) error {
	pkt, _ := s.hello(now).AppendBinary(make([]byte, 0, 2*notify.RecordSize))
	if missed := s.missed(c.req.Resume, c.filtered, now); missed != nil {
		pkt, _ = missed.AppendBinary(pkt)
	}
	return c.control(pkt, now, true)
}

// control sends control records, in one packet if the client takes that many. If it
// must, the queue is made larger when it is full.
func (c *client) control(pkt []byte, now time.Time, must bool) error {
	for len(pkt) > 0 {
		n := min(len(pkt), int(c.req.MaxRecords)*notify.RecordSize)
		err := c.sendPacket(pkt[:n])
		if err == unix.EAGAIN && must {
			c.queue.extend(c.fd)
			err = c.sendPacket(pkt[:n])
		}
		if err != nil {
			return err
		}
		c.sent = now
		pkt = pkt[n:]
	}
	return nil
}

// tell queues events: records, and losses between them. plain says that there are no
// losses. While the client is behind, all is lost until its queue has room again, so
// that it hears of one loss and not of many. scratch is for a selection of the events.
// The error means that the client has gone.
func (c *client) tell(events []byte, plain bool, scratch *[]byte, now time.Time) error {
	if c.filtered {
		*scratch = c.choose(events, (*scratch)[:0])
		events, plain = *scratch, false
	}
	if len(events) == 0 {
		return nil
	}
	if c.behind.on {
		if err := c.tellOwed(now); err != nil || c.behind.on {
			c.owe(events, now)
			return err
		}
	}
	before := c.records
	rest, err := c.sendPackets(events)
	if len(rest) < len(events) {
		c.sent = now
	}
	if !plain {
		c.records = before + accesses(events[:len(events)-len(rest)])
	}
	if err != nil && isFull(err) {
		c.lose(0, isStarved(err))
		c.owe(rest, now)
		return nil
	}
	return err
}

// choose appends the events that the client wants.
func (c *client) choose(events, out []byte) []byte {
	var rec notify.Record
	for i := 0; i < len(events); i += notify.RecordSize {
		rec.UnmarshalBinary(events[i : i+notify.RecordSize])
		if lost, ok := rec.Control().(*notify.Lost); ok {
			// Nobody knows what the filter would have said.
			lost.AtMost = true
			out, _ = lost.AppendBinary(out)
		} else if c.req.Filter.Match(&rec, uint32(c.pid)) {
			out = append(out, events[i:i+notify.RecordSize]...)
		}
	}
	return out
}

// accesses counts the events that are records of accesses.
func accesses(events []byte) (n uint64) {
	for i := 0; i < len(events); i += notify.RecordSize {
		if !typeOf(events, i).IsControl() {
			n++
		}
	}
	return n
}

// owe adds events that did not fit to the loss that the client is to be told of.
func (c *client) owe(events []byte, now time.Time) {
	lost := uint64(0)
	for i := 0; i < len(events); i += notify.RecordSize {
		seq := seqOf(events[i:], 0)
		l := notify.Lost{First: seq, Last: seq, Count: 1, Cause: notify.LostQueue}
		if typeOf(events, i).IsControl() {
			var rec notify.Record
			rec.UnmarshalBinary(events[i : i+notify.RecordSize])
			l = *rec.Control().(*notify.Lost)
		} else {
			lost++
		}
		c.addOwed(l)
	}
	c.owed.Time = now
	c.lose(lost, c.behind.starved)
}

func (c *client) addOwed(l notify.Lost) {
	o := &c.owed
	if o.Last == 0 {
		o.First = l.First
	}
	o.Last = l.Last
	o.Count += l.Count
	o.Cause |= l.Cause
	o.AtMost = o.AtMost || l.AtMost
	o.Unknown = o.Unknown || l.Unknown
}

// typeOf returns the type of the encoded record that starts at byte i.
func typeOf(records []byte, i int) notify.Type {
	const offset = notify.RecordSize - 4
	return notify.Type(binary.NativeEndian.Uint16(records[i+offset:]))
}

// tellOwed tells a client that is behind of its loss, if there is room, and ends the
// episode. If the kernel is out of memory, the queue does not say when there is: then it
// tries now and then.
func (c *client) tellOwed(now time.Time) error {
	if !c.behind.starved || now.Sub(c.behind.start) < starvedTime {
		return nil
	}
	return c.settle(now)
}

// settle tells the client what it is owed and ends the episode, or leaves both as they
// are if there is no room.
func (c *client) settle(now time.Time) error {
	if c.owed.Last != 0 {
		c.owed.Time = now
		pkt, _ := c.owed.AppendBinary(make([]byte, 0, notify.RecordSize))
		err := c.control(pkt, now, false)
		switch {
		case err == nil:
		case isFull(err):
			c.behind.start, c.behind.starved = now, true
			c.events &^= unix.POLLOUT
			return nil
		default:
			return err
		}
		c.owed = notify.Lost{}
	}
	c.caughtUp()
	return nil
}

// idleAt returns when the client is to be told something, zero for never.
func (c *client) idleAt() time.Time {
	switch {
	case c.behind.on && c.behind.starved && c.speaks2():
		return c.behind.start.Add(starvedTime)
	case c.req.Idle == 0 || c.behind.on:
		return time.Time{}
	}
	return c.sent.Add(c.req.Idle)
}

// idle tells the client that it has everything up to a number and a time. If there is no
// room, the client has enough to read.
func (c *client) idle(seq uint64, upTo, now time.Time) error {
	if c.behind.on {
		return c.tellOwed(now)
	}
	c.sent = now
	ev := notify.Idle{Seq: seq, Time: upTo}
	pkt, _ := ev.AppendBinary(make([]byte, 0, notify.RecordSize))
	if err := c.control(pkt, now, false); err != nil && !isFull(err) {
		return err
	}
	return nil
}

// end tells the client what it is owed and why the stream ends, however full its queue
// is.
func (c *client) end(reason notify.Reason, seq uint64, now time.Time) {
	pkt := make([]byte, 0, 2*notify.RecordSize)
	if c.owed.Last != 0 {
		c.owed.Time = now
		pkt, _ = c.owed.AppendBinary(pkt)
	}
	ev := notify.End{Seq: seq, Reason: reason, Time: now}
	pkt, _ = ev.AppendBinary(pkt)
	// A client that has gone needs no end.
	_ = c.control(pkt, now, true)
}
