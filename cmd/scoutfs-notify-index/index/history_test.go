// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// choices are those of one history: in turn all that there are, or random ones.
type choices struct {
	rnd   *rand.Rand // nil for all
	taken []choice
	next  int      // of taken
	spare [][]byte // memory of one history for the next
}

type choice struct{ of, is int }

// of returns a number from 0 to n-1.
func (c *choices) of(n int) int {
	if c.next == len(c.taken) {
		is := 0
		if c.rnd != nil {
			is = c.rnd.IntN(n)
		}
		c.taken = append(c.taken, choice{n, is})
	}
	c.next++
	return c.taken[c.next-1].is
}

// turn goes on to the next history, and returns false after the last.
func (c *choices) turn() bool {
	for i := len(c.taken) - 1; i >= 0; i-- {
		if c.taken[i].is++; c.taken[i].is < c.taken[i].of {
			c.taken = c.taken[:i+1]
			return true
		}
	}
	return false
}

// history is a node in which one thing happens after the other: accesses, what the daemon
// does and tells, and after each event that the index takes, whether it writes what it
// has, flushes, or is killed. Each access is of another inode. The index's disk is in
// memory: TestCrashPoints shows that a real one has the same after a kill at any point.
type history struct {
	c     *choices
	print func(string, ...any) // what happens; nil not to
	wrong string               // the first thing that is

	// The machine and its daemon.
	now   Millis // truly
	skew  Millis // how far the clock is ahead
	boot  int
	mount int    // from 0; the RID is one more
	seq   uint64 // the last number of the mount
	base  uint64 // the first number of the reader
	told  uint64 // the last number that was drained, or is lost
	ring  []notify.Record
	all   []happened
	at    []Millis // of these, truly

	// The index: up to where notify.Follow has yielded, what waits for the store, and the
	// store in memory and on disk.
	up     bool
	resume notify.Resume
	feed   *Feed
	log    log
	disk   struct {
		node    Node
		table   table
		journal []frame
	}
	kills int  // that are left
	skews bool // the clock is wrong at times, so that none of it tells what is covered
}

type frame struct {
	kind    byte
	payload []byte
}

// historyStep is how much later everything happens than what was before, so that slack hides
// nothing.
const historyStep = 5 * slack

func newHistory(c *choices, kills int, print func(string, ...any)) *history {
	c.next = 0
	h := &history{c: c, print: print, now: testStart, kills: kills}
	h.base = 1
	h.begin()
	return h
}

func (h *history) note(format string, args ...any) {
	if h.print != nil {
		h.print(format, args...)
	}
}

func (h *history) fail(format string, args ...any) {
	if h.wrong == "" {
		h.wrong = fmt.Sprintf(format, args...)
		h.note("%s", h.wrong)
	}
}

// tick returns what the clock shows next.
func (h *history) tick() Millis {
	h.now += historyStep
	return h.clock()
}

func (h *history) clock() Millis { return h.now + h.skew }

// access makes an access, which is numbered if a daemon is attached.
func (h *history) access(attached bool, uid uint32) {
	rec := notify.Record{TimeNS: uint64(h.tick()) * 1e6, Ino: uint64(len(h.all)) + 1, UID: uid, Type: notify.TypeOpen}
	if attached {
		h.seq++
		rec.Seq = h.seq
		h.ring = append(h.ring, rec)
	}
	h.note("%v access %d, number %d", h.clock(), rec.Ino, rec.Seq)
	h.all = append(h.all, happened{Record: rec, mount: h.mount})
	h.at = append(h.at, h.now)
}

// drain returns what is in the ring, as events.
func (h *history) drain() (events []notify.Event) {
	for i := range h.ring {
		events = append(events, &h.ring[i])
	}
	h.ring = nil
	h.told = h.seq
	return events
}

// attach starts a daemon, and connects the index to it.
func (h *history) attach() {
	if h.base > 0 {
		h.seq++ // as the kernel does
	}
	h.base, h.told, h.ring = h.seq+1, h.seq, nil
	h.tick()
	h.greet()
}

// greet connects the index and tells it what it has missed.
func (h *history) greet() {
	if !h.up {
		return
	}
	rid := notify.ID(h.mount + 1)
	events := []notify.Event{&notify.Hello{Next: h.told + 1, Time: h.clock().Time(), FSID: testFSID, RID: rid, Version: notify.Version2}}
	w := world{mount: h.mount, base: h.base, told: h.told, now: h.clock().Time()}
	if h.resume.RID == rid && h.resume.Seq > h.told {
		h.fail("the index goes on at %d of %d", h.resume.Seq, h.told)
	}
	if l := w.missed(h.resume); l != nil {
		events = append(events, l)
	}
	h.send(events...)
}

// hangUp ends a connection without a word.
func (h *history) hangUp() {
	if h.up {
		h.feed.add(&notify.Waiting{})
		h.note("the stream broke off")
	}
}

// send tells the index events. After each it may do something.
func (h *history) send(events ...notify.Event) {
	for _, ev := range events {
		if !h.up {
			return
		}
		h.note("%v the index takes %T %+v", h.clock(), ev, ev)
		h.feed.add(ev)
		switch ev := ev.(type) {
		case *notify.Hello:
			if h.resume.RID == 0 {
				h.resume = notify.Resume{RID: ev.RID, Seq: ev.Next - 1}
			}
			h.act()
			continue
		case *notify.Record:
			h.resume.Seq = ev.Seq
		case *notify.Lost:
			h.resume.Seq = max(h.told, ev.Last)
			if ev.Cause&(notify.LostAway|notify.LostUnattended) == 0 {
				h.resume.Seq = ev.Last
			}
		case *notify.Idle:
			h.resume.Seq = ev.Seq
		case *notify.End:
			h.resume.Seq = ev.Seq
		}
		h.resume.RID = notify.ID(h.mount + 1)
		h.act()
	}
}

// act is what the index does after an event.
func (h *history) act() {
	n := 3
	if h.kills > 0 {
		n++
	}
	switch h.c.of(n) {
	case 1:
		h.write()
	case 2:
		h.write()
		h.flush()
	case 3:
		h.kill()
	}
}

// write is a round of the feed.
func (h *history) write() {
	h.feed.settle()
	for _, chunk := range h.feed.pending {
		h.journal(frameEvents, bytes.Clone(chunk))
		h.feed.written(chunk)
	}
	h.feed.pending = nil
	h.note("the index writes")
	h.check()
}

func (h *history) journal(kind byte, payload []byte) {
	h.disk.journal = append(h.disk.journal, frame{kind, payload})
	if err := h.log.take(kind, payload); err != nil {
		h.fail("%v", err)
	}
}

// look tells the index how the clock goes, as each round does.
func (h *history) look() {
	if !h.skews {
		return
	}
	b, _ := json.Marshal(Notice{Boot: fmt.Sprint("boot ", h.boot), Offset: time.Duration(h.skew) * time.Millisecond, Now: h.clock()})
	h.journal(frameNote, b)
}

func (h *history) flush() {
	b, err := json.Marshal(h.log.node) // as in the manifest
	h.disk.node = Node{}
	if err = errors.Join(err, json.Unmarshal(b, &h.disk.node)); err != nil {
		h.fail("%v", err)
	}
	h.disk.table = cloneTable(&h.log.table)
	h.disk.journal = nil
	h.note("the index flushes")
}

func cloneTable(t *table) (out table) {
	for i := range t.entries {
		out.addEntry(&t.entries[i])
	}
	return out
}

// kill ends the index. What it has not written is gone.
func (h *history) kill() {
	h.note("the index is killed")
	h.kills--
	h.up = false
	before, was := h.log.node, h.log.table
	h.begin()
	h.up = false
	if !reflect.DeepEqual(before, h.log.node) {
		h.fail("killed with\n%+v\nand started with\n%+v", before, h.log.node)
	}
	if len(was.entries) != len(h.log.table.entries) {
		h.fail("%d inodes before the kill and %d after it", len(was.entries), len(h.log.table.entries))
	}
}

// begin starts the index.
func (h *history) begin() {
	x := Exclude{UIDs: []uint32{7}}
	if h.feed != nil { // what was not written is gone
		h.c.spare = append(h.feed.spare, h.feed.pending...)
	}
	for i := range h.c.spare {
		h.c.spare[i] = h.c.spare[i][:0]
	}
	h.feed = &Feed{Skip: x.Match, spare: h.c.spare}
	h.log = log{node: h.disk.node.clone(), table: cloneTable(&h.disk.table)}
	for _, f := range h.disk.journal {
		if err := h.log.take(f.kind, f.payload); err != nil {
			h.fail("%v", err)
		}
	}
	h.resume = notify.Resume{RID: h.log.node.At.RID, Seq: h.log.node.At.Seq}
	h.up = true
	h.check()
}

// check compares what the store has and says with what has happened.
func (h *history) check() {
	n := &h.log.node
	records := uint64(0)
	for i := range h.all {
		a := &h.all[i]
		if a.UID == 7 {
			continue
		}
		at, stored := millisOf(a.TimeNS), uint64(0)
		if k, ok := h.log.table.at[a.Ino]; ok {
			stored = h.log.table.entries[k].Opens
		}
		records += stored
		covered := at > n.Told || at < n.Since || h.skews
		for _, g := range n.Gaps {
			covered = covered || g.From <= at && at <= g.To
		}
		switch has := n.has(Place{notify.ID(a.mount + 1), a.Seq}); {
		case stored > 1:
			h.fail("access %d was taken %d times", a.Ino, stored)
		case stored == 0 && !covered:
			h.fail("access %d at %v was missed, and no gap says so: %+v", a.Ino, at, *n)
		case has != (stored == 1):
			h.fail("access %d: taken %v, and by the gaps %v: %+v", a.Ino, stored == 1, has, *n)
		}
	}
	if records != n.Records {
		h.fail("%d accesses in the store, which says %d", records, n.Records)
	}
}

// happen is one of the things that happen to a node.
func (h *history) happen() {
	n := 7
	if h.skews {
		n += 2
	}
	switch h.c.of(n) {
	case 0:
		h.access(true, 1)
		h.send(h.drain()...)
	case 1:
		h.access(true, 7)
		h.send(h.drain()...)
	case 2:
		// One is lost, and told when another has happened that was not drained yet.
		h.access(true, 1)
		h.ring, h.told = nil, h.seq
		l := &notify.Lost{First: h.seq, Last: h.seq, Count: 1, Cause: notify.LostQueue}
		h.access(true, 1)
		l.Time = h.tick().Time()
		h.send(l)
		if h.c.of(2) == 0 {
			h.send(h.drain()...)
		}
	case 3:
		h.access(true, 1)
		upTo := h.tick()
		events := h.drain()
		h.access(true, 1)
		h.tick()
		h.send(append(events, &notify.Idle{Seq: h.told, Time: upTo.Time()})...)
	case 4:
		h.note("the daemon is killed")
		h.hangUp()
		if h.c.of(2) == 0 {
			h.access(false, 1)
		}
		h.attach()
	case 5:
		h.note("the daemon stops")
		events := h.drain()
		h.access(false, 1)
		h.send(append(events, &notify.End{Seq: h.told, Reason: notify.EndRestarting, Time: h.tick().Time()})...)
		h.access(false, 1)
		h.attach()
	case 6:
		h.note("unmount and mount")
		events := h.drain()
		end := h.told
		h.mount++
		h.access(false, 1)
		h.tick()
		h.mount--
		h.send(append(events, &notify.End{Seq: end, Reason: notify.EndUnmounted, Time: h.clock().Time()})...)
		h.mount++
		h.seq, h.base = 0, 0
		h.attach()
	case 7:
		h.setClock(skews[h.c.of(len(skews))])
	case 8:
		h.note("the machine starts again")
		h.kill()
		h.boot++
		h.mount++
		h.seq, h.base = 0, 0
		h.skew = skews[h.c.of(len(skews))]
		h.access(false, 1)
		h.attach()
	}
	if !h.up {
		if h.c.of(2) == 0 { // nobody tells the index of these
			h.access(true, 1)
			h.drain()
		}
		h.begin()
		h.look()
		h.tick()
		h.greet()
	}
}

// skews are how far a clock can be wrong.
var skews = []Millis{0, -10 * day, 10 * day, -5 * day}

func (h *history) setClock(skew Millis) {
	h.note("%v the clock is set to %v", h.clock(), h.now+skew)
	h.skew = skew
	if h.up {
		h.look()
	}
}

// end sets the clock right, and then asks which files are certainly cold, since any time.
func (h *history) end() {
	h.setClock(0)
	h.access(true, 1)
	h.send(h.drain()...)
	h.now += minute
	heard := h.up && h.c.of(2) == 0
	if heard {
		h.feed.add(&notify.Idle{Seq: h.told, Time: h.now.Time()})
		h.write()
	}
	n := &h.log.node
	for i, at := range h.at {
		d := DoubtOf(n, at, h.now)
		if !d.Certain() || h.all[i].UID == 7 {
			continue
		}
		k, stored := h.log.table.at[h.all[i].Ino]
		switch {
		case !heard:
			h.fail("all is certain since %v, and told up to %v only", at, n.Told)
		case !stored, n.latest(h.log.table.entries[k].Last) < at:
			h.fail("inode %d is certainly cold since %v, when it was accessed: %+v", h.all[i].Ino, at, *n)
		}
	}
}

// runHistory returns the first thing that is wrong in a history of some steps.
func runHistory(c *choices, steps, kills int, skews bool, print func(string, ...any)) string {
	h := newHistory(c, kills, print)
	h.skews = skews
	h.look()
	h.greet()
	for range steps {
		h.happen()
	}
	h.end()
	c.spare = h.feed.spare
	return h.wrong
}

// goesRight runs a history, and prints it if anything is wrong.
func goesRight(t *testing.T, c *choices, steps, kills int, skews bool) bool {
	wrong := runHistory(c, steps, kills, skews, nil)
	if wrong != "" {
		t.Errorf("%s\nwhich is what comes of:", wrong)
		runHistory(c, steps, kills, skews, t.Logf)
	}
	return wrong == ""
}

// Whatever happens to a node, and wherever the index is killed, each access is in the
// store or in a gap that it tells, and nothing is called cold with certainty that was
// accessed: in all short histories, and in many long ones, in which the clock is set
// besides. INDEX_DEPTH makes the short ones longer, INDEX_ROUNDS the long ones more.
func TestHistories(t *testing.T) {
	t.Parallel()
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	t.Run("short", func(t *testing.T) {
		t.Parallel()
		depth, all := number("INDEX_DEPTH", 1), 0
		for c, more := new(choices), true; more; more = c.turn() {
			all++
			if !goesRight(t, c, depth, depth, false) {
				return
			}
		}
		t.Logf("%d histories of %d steps", all, depth)
	})
	for _, skews := range []bool{false, true} {
		t.Run(map[bool]string{false: "long", true: "clock"}[skews], func(t *testing.T) {
			t.Parallel()
			seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
			if err != nil {
				seed = rand.Uint64()
			}
			t.Logf("SEED=%d", seed)
			c := &choices{rnd: rand.New(rand.NewPCG(seed, 2))}
			for i := range number("INDEX_ROUNDS", 150) {
				c.taken = c.taken[:0]
				if !goesRight(t, c, 2+i%30, 1000, skews) {
					return
				}
			}
		})
	}
}
