// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"slices"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Node is what a node's stream has told of itself: from when to when it was observed, and
// what is missing. It follows from the events alone.
type Node struct {
	Host  string `json:"host"`
	Since Millis `json:"since"` // observation began; 0: not yet
	Told  Millis `json:"told"`  // all accesses up to here were told, but for the Gaps

	Start     Place `json:"start"` // the last number before it began
	At        Place `json:"at"`    // the last number that was told
	Connected bool  `json:"connected"`

	// From the start on; an access is in one of them.
	Records  uint64 `json:"records"`
	Excluded uint64 `json:"excluded"`
	Lost     uint64 `json:"lost"` // that were counted

	Gaps    []Gap    `json:"gaps"`    // in the order of the stream
	Steps   []Step   `json:"steps"`   // of the clock
	Samples []Sample `json:"samples"` // by time

	Clock Clock `json:"clock"`

	// The mount and the next number of a connection that At is not in yet, for nothing was
	// told after its hello. It has to survive a flush as all else does.
	Hello Place `json:"hello"`
}

// Place is a number in the stream of a mount.
type Place struct {
	RID notify.ID `json:"rid"`
	Seq uint64    `json:"seq"`
}

// Gap is a time in which accesses may have been missed.
type Gap struct {
	From Millis `json:"from"`
	To   Millis `json:"to"`

	// The last number before it and the first after it that was told. What has a number
	// between them was missed, and so was what was accessed between the mounts, if the
	// two differ, or while no daemon was there to number it.
	After  Place `json:"after"`
	Before Place `json:"before"`

	Count   uint64 `json:"count"`   // missed accesses
	Unknown bool   `json:"unknown"` // and maybe any number besides
	Cause   Cause  `json:"cause"`
}

// Cause is a set of the causes that the daemon tells and those of the index.
type Cause uint32

// LostIndex is the cause of a loss of the index's own: it could not write for so long
// that memory ran out.
const LostIndex Cause = 1 << 16

// String returns the names of the causes, as in "kernel+index".
func (c Cause) String() string {
	told := c &^ LostIndex
	switch {
	case c == LostIndex:
		return "index"
	case c != told:
		return notify.Cause(told).String() + "+index"
	}
	return notify.Cause(c).String()
}

// Step is a jump of the clock. It was found at a time that the clock shows as To before
// and as To+By after it.
type Step struct {
	From Millis        `json:"from"` // the last step before, or the start of the machine
	To   Millis        `json:"to"`
	By   time.Duration `json:"by_ns"`
}

// Sample says that what ScoutFS had committed up to a transaction was committed by then.
// So a file whose data_seq is not above Seq was last written before Time.
type Sample struct {
	Time Millis `json:"time"`
	Seq  uint64 `json:"seq"`
}

// Clock is how far CLOCK_REALTIME was ahead of CLOCK_BOOTTIME in a run of the machine.
type Clock struct {
	Boot   string        `json:"boot"`
	Offset time.Duration `json:"offset_ns"`
	Epoch  Millis        `json:"epoch"` // when it was last set, or the machine started

	// Ahead is how far it was then ahead of one that nobody sets, and that stands while
	// the machine is off: by as much it may be wrong.
	Ahead time.Duration `json:"ahead_ns,omitempty"`
}

// Settle is how long after it was set, or the machine started, a clock is taken to be right.
// To be set before a store is opened.
var Settle = 24 * time.Hour

// ahead returns how far a clock that shows now may be ahead. It is less than 0 if it may be
// behind.
func (c *Clock) ahead(now Millis) time.Duration {
	if now >= c.Epoch.plus(Settle) {
		return 0
	}
	return c.Ahead
}

// slack is how far times of accesses may be out of the order of the stream, because each
// is taken a moment before the access gets its number.
const slack = Millis(1000)

// event takes the next event of the stream.
func (n *Node) event(ev notify.Event) {
	switch ev := ev.(type) {
	case *notify.Hello:
		n.Connected = true
		n.Hello = Place{RID: ev.RID, Seq: ev.Next}
		if n.Since == 0 {
			// What is accessed from now on is told. Without a place no loss would be
			// told if nothing more came before the end of the process.
			n.Since = MillisOf(ev.Time) + 1
			n.Told = n.Since
			n.arrive()
			if ev.Next > 0 {
				n.At.Seq = ev.Next - 1
			}
			n.Start = n.At
		}
	case *notify.Record:
		n.arrive()
		n.At.Seq = ev.Seq
		n.Told = millisOf(ev.TimeNS)
	case *notify.Lost:
		n.lost(ev)
	case *notify.Idle:
		n.arrive()
		n.At.Seq = max(n.At.Seq, ev.Seq)
		n.Told = MillisOf(ev.Time)
	case *notify.End:
		if *ev == brokeOff {
			n.Connected = false
			break
		}
		// Its time is when the daemon said it: the kernel may have ended the numbering
		// long before.
		n.arrive()
		n.At.Seq = max(n.At.Seq, ev.Seq)
		n.Connected = false
	}
}

// brokeOff stands in a journal for the end of a stream that came to none.
var brokeOff = notify.End{Time: time.Unix(0, 0).UTC()}

// arrive makes the connection the one that At is a number of. Not at its hello: a loss
// may follow that, and would be forgotten if the process ended between the two.
func (n *Node) arrive() {
	if n.Hello.RID == 0 {
		return
	}
	if n.At.RID != n.Hello.RID {
		n.At = Place{RID: n.Hello.RID}
	}
	n.Hello = Place{}
}

func (n *Node) lost(l *notify.Lost) {
	g := Gap{
		From: n.Told - slack, To: MillisOf(l.Time) + slack, After: n.At,
		Count: l.Count, Unknown: l.Unknown, Cause: Cause(l.Cause),
	}
	g.Before = n.Hello
	n.arrive()
	if l.Last > 0 {
		n.At.Seq = l.Last
		g.Before = Place{RID: n.At.RID, Seq: l.Last + 1}
	} else if g.Before.Seq > 0 {
		n.At.Seq = g.Before.Seq - 1
	}
	if g.From > g.To { // the clock was set back
		g.From, g.To = g.To, g.From
	}
	n.Lost += l.Count
	n.Told = MillisOf(l.Time)
	n.addGap(g)
}

// addGap adds a gap. One that follows another with nothing told between them is the same.
func (n *Node) addGap(g Gap) {
	if i := len(n.Gaps) - 1; i >= 0 {
		last := &n.Gaps[i]
		if last.Before.RID == g.After.RID && last.Before.Seq == g.After.Seq+1 {
			last.join(&g)
			return
		}
	}
	n.Gaps = append(n.Gaps, g)
	for _, apart := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		if len(n.Gaps) <= maxGaps {
			break
		}
		n.joinGaps(apart)
	}
}

// maxGaps bounds the manifest. A node that is overloaded all the time has more.
const maxGaps = 4096

// joinGaps makes gaps that are less than some time apart one, with what is between them.
func (n *Node) joinGaps(apart time.Duration) {
	out := n.Gaps[:1]
	for _, g := range n.Gaps[1:] {
		last := &out[len(out)-1]
		if g.From > last.To.plus(apart) || last.From > g.To.plus(apart) {
			out = append(out, g)
			continue
		}
		last.join(&g)
	}
	n.Gaps = out
}

// join adds a gap that follows in the stream, and all between the two.
func (g *Gap) join(o *Gap) {
	g.From, g.To = min(g.From, o.From), max(g.To, o.To)
	g.Before = o.Before
	g.Count += o.Count
	g.Unknown = g.Unknown || o.Unknown
	g.Cause |= o.Cause
}

// stepMin is the least jump of the clock that counts as one.
const stepMin = time.Second

// tick compares the clock with what it was. boot names the run of the machine, offset is
// how far now is ahead of the time since its start.
func (n *Node) tick(boot string, offset time.Duration, now Millis) {
	c := &n.Clock
	by := offset - c.Offset
	switch {
	case c.Boot != boot:
		var ahead time.Duration
		if c.Boot != "" && n.Told > 0 {
			ahead = now.minus(n.Told.plus(-c.ahead(n.Told)))
		}
		*c = Clock{Boot: boot, Offset: offset, Epoch: now, Ahead: ahead}
	case by >= stepMin || by <= -stepMin:
		before := now.plus(-by)
		n.Steps = append(n.Steps, Step{From: c.Epoch, To: before, By: by})
		*c = Clock{Boot: boot, Offset: offset, Epoch: now, Ahead: c.ahead(before) + by}
	default:
		c.Offset = offset // it was slewed
	}
}

// behind returns how far the clock was behind before a step: by that, and by the steps that
// followed in the same run of the machine. Where it was set ahead and back that is nothing.
func (n *Node) behind(i int) time.Duration {
	by := n.Steps[i].By
	for i++; i < len(n.Steps) && n.Steps[i].From == n.Steps[i-1].To.plus(n.Steps[i-1].By); i++ {
		by += n.Steps[i].By
	}
	return by
}

// latest returns when an access can have been at the latest that was recorded at t: the
// clock may have been behind then.
func (n *Node) latest(t Millis) Millis {
	out := t
	for i, s := range n.Steps {
		if s.From-slack > t || t > s.To+slack {
			continue
		}
		if by := n.behind(i); by >= stepMin { // less may be of reading two clocks
			out = max(out, t.plus(by)+slack)
		}
	}
	return out
}

// end returns when an access of a gap can have been at the latest: the clock may have been
// behind in a part of it.
func (n *Node) end(g *Gap) Millis {
	out := g.To
	for i, s := range n.Steps {
		if s.From-slack > g.To || g.From > s.To+slack {
			continue
		}
		if by := n.behind(i); by >= stepMin { // less may be of reading two clocks
			out = max(out, min(g.To, s.To+slack).plus(by)+slack)
		}
	}
	return out
}

// sample adds a sample. Of old ones a few are enough. One of a clock that was ahead says
// little, and nothing wrong, so it stays, and those that come after it go before it.
func (n *Node) sample(s Sample) {
	const fresh, apart = 8 * 24 * time.Hour, 24 * time.Hour
	at, found := slices.BinarySearchFunc(n.Samples, s.Time, func(o Sample, t Millis) int { return cmp.Compare(o.Time, t) })
	if found {
		n.Samples[at].Seq = max(n.Samples[at].Seq, s.Seq)
		return
	}
	if at < len(n.Samples) && n.Clock.ahead(s.Time) <= -stepMin {
		return // it is this clock that is behind, and too much would be old
	}
	n.Samples = slices.Insert(n.Samples, at, s)
	thin := n.Samples[:0]
	for _, old := range n.Samples {
		if k := len(thin); k > 0 && old.Time < s.Time.plus(-fresh) && old.Time < thin[k-1].Time.plus(apart) {
			continue
		}
		thin = append(thin, old)
	}
	n.Samples = thin
}

// committed returns the newest transaction that is known to have been committed at t.
func (n *Node) committed(t Millis) (seq uint64, ok bool) {
	for _, s := range n.Samples {
		if n.latest(s.Time) <= t {
			seq, ok = max(seq, s.Seq), true
		}
	}
	return seq, ok
}

// forget drops what is about times before t.
func (n *Node) forget(t Millis) {
	if t <= n.Since {
		return
	}
	n.Since = t
	gaps := n.Gaps[:0:0]
	for _, g := range n.Gaps {
		if n.end(&g) >= t {
			gaps = append(gaps, g)
		}
	}
	n.Gaps = gaps
	// Only the first ones: later ones add up.
	for len(n.Steps) > 0 && n.Steps[0].To.plus(n.Steps[0].By) < t && n.Steps[0].To.plus(n.behind(0)) < t {
		n.Steps = n.Steps[1:]
	}
}

// since returns the gaps that may be later than t, and how many accesses were counted as
// missing in them.
func (n *Node) since(t Millis) (gaps []Gap, lost uint64) {
	for _, g := range n.Gaps {
		if n.end(&g) >= t {
			gaps = append(gaps, g)
			lost += g.Count
		}
	}
	return gaps, lost
}

// clone returns a copy that shares nothing.
func (n *Node) clone() Node {
	c := *n
	c.Gaps = append([]Gap(nil), n.Gaps...)
	c.Steps = append([]Step(nil), n.Steps...)
	c.Samples = append([]Sample(nil), n.Samples...)
	return c
}
