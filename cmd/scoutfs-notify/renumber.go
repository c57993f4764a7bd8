// SPDX-License-Identifier: GPL-2.0-only

package main

import "git.anomalous.dev/alphacentri/scoutfs-notify/notify"

// numbering numbers the events of a recording so that they are a stream of all there is:
// what a filter has left out, of the recording or of the recorder, is not lost, but left
// gaps in the numbers, and a consumer that asks for all takes a gap for a broken protocol.
// Without gaps the numbers stay as they are. What was lost stays as much, and so does what
// is missing from one stream of a mount to the next.
type numbering struct {
	rid   notify.ID
	in    uint64 // the last number of the recording that is accounted for
	out   uint64 // what is sent for it
	known bool   // both are

	open     bool // the stream does not say which number is its first
	filtered bool // something was left out, or is
}

// hello returns the start of a stream as it is sent.
func (n *numbering) hello(h notify.Hello) notify.Hello {
	if h.RID != n.rid {
		n.rid, n.known = h.RID, false
	}
	if n.open = h.Next == 0; !n.open {
		n.begin(h.Next)
		h.Next = n.out + 1
	}
	return h
}

// begin has a stream go on with a number. What is between it and those before is missing.
func (n *numbering) begin(next uint64) {
	last := max(next, 1) - 1
	if n.known && last >= n.in {
		n.out += last - n.in
	} else {
		n.out = last
	}
	n.in, n.known, n.open = last, true, false
}

// reach accounts for the numbers up to one. Those that were not are of what was left out.
func (n *numbering) reach(seq uint64) {
	n.filtered = n.filtered || seq > n.in
	n.in = max(n.in, seq)
}

// event returns an event of a stream as it is sent. It is a copy.
func (n *numbering) event(ev notify.Event) notify.Event {
	switch ev := ev.(type) {
	case *notify.Record:
		n.first(ev.Seq)
		n.reach(max(ev.Seq, 1) - 1)
		n.in = max(n.in, ev.Seq)
		n.out++
		c := *ev
		c.Seq = n.out
		return &c
	case *notify.Lost:
		if ev.Cause&notify.LostAway != 0 {
			return ev // it is of numbers before the stream
		}
		c := *ev
		if ev.First > 0 {
			n.first(ev.First)
			n.reach(ev.First - 1)
			n.in = max(n.in, ev.Last)
		}
		c.First, c.Last = 0, 0
		if c.Count > 0 {
			c.First, c.Last = n.out+1, n.out+c.Count
			n.out = c.Last
		}
		return &c
	case *notify.Idle:
		c := *ev
		c.Seq = n.at(ev.Seq)
		return &c
	case *notify.End:
		c := *ev
		c.Seq = n.at(ev.Seq)
		return &c
	}
	return ev
}

// first notes which number is the first, if that was not known.
func (n *numbering) first(seq uint64) {
	if n.open {
		n.begin(seq)
	}
}

// at returns what is sent as the number up to which all was told, 0 if none is known.
func (n *numbering) at(seq uint64) uint64 {
	if seq == 0 {
		return 0
	}
	n.first(seq + 1)
	n.reach(seq)
	return n.out
}
