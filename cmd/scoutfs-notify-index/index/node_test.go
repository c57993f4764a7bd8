// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	minute = Millis(60_000)
	hour   = 60 * minute
	day    = 24 * hour
)

// A clock that was behind makes an access look old: until it is set, nobody knows, and
// from then on it counts as new as it may be. One that was ahead makes it look new, which
// is no danger.
func TestClockSteps(t *testing.T) {
	dir := memoryDir(t)
	s, _ := testStore(t, dir, Limits{})
	look := func(boot string, offset time.Duration, now Millis) {
		t.Helper()
		if err := s.Look(Notice{Boot: boot, Offset: offset, Now: now}); err != nil {
			t.Fatal(err)
		}
	}
	const base = time.Duration(testStart) * time.Millisecond
	look("first", base, testStart)
	mustWrite(t, s, hello(testStart), opened(1, 1, testStart+hour))
	// The machine starts again with its clock at 1970, reads, and is told the time.
	look("second", 0, 1000)
	mustWrite(t, s, opened(2, 2, 5000))
	look("second", 400*time.Millisecond, 6000) // slewed: no step
	look("second", base+time.Duration(9*day)*time.Millisecond, testStart+9*day+10_000)
	mustWrite(t, s, opened(3, 3, testStart+9*day+20_000))
	// Set back by two days: it was ahead.
	look("second", base+time.Duration(7*day)*time.Millisecond, testStart+7*day+30_000)
	mustWrite(t, s, opened(4, 4, testStart+7*day+40_000))

	n := s.Node()
	if len(n.Steps) != 2 || n.Steps[0].By <= 0 || n.Steps[1].By != -48*time.Hour {
		t.Fatalf("steps %+v", n.Steps)
	}
	for _, tt := range []struct {
		recorded, atLeast, atMost Millis
	}{
		{testStart + hour, testStart + hour, testStart + hour},
		{5000, testStart + 9*day, testStart + 9*day + minute},
		{testStart + 9*day + 20_000, testStart + 9*day + 20_000, testStart + 9*day + 20_000},
		{testStart + 7*day + 40_000, testStart + 7*day + 40_000, testStart + 7*day + 40_000},
	} {
		if got := n.latest(tt.recorded); got < tt.atLeast || got > tt.atMost {
			t.Errorf("what is recorded at %v was at %v at the latest, not %v to %v", tt.recorded, got, tt.atLeast, tt.atMost)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Inode 2 is not cold, although its time is of 1970.
	cold := coldOf(t, []*View{view(t, dir)}, testStart+8*day, 1, 2, 3, 4, 5)
	if want := []uint64{1, 4, 5}; !slices.Equal(cold, want) {
		t.Errorf("cold: %v, not %v", cold, want)
	}
}

// What a clock told that was ahead, and was set back since, says nothing about the time
// that follows; what was lost while it was behind may have been as late as it was behind.
func TestClockDoubts(t *testing.T) {
	var n Node
	n.tick("first", 0, testStart)
	n.event(hello(testStart))
	n.event(opened(1, 1, testStart+day)) // by a clock that is ahead
	if d := DoubtOf(&n, testStart+hour, testStart+hour+minute); d.Certain() {
		t.Errorf("told up to %v, and certain at %v", n.Told, testStart+hour+minute)
	}
	n = Node{}
	n.tick("first", time.Duration(testStart)*time.Millisecond, testStart)
	n.event(hello(testStart))
	n.event(opened(1, 1, testStart+hour))
	n.tick("second", 0, 1000) // in 1970
	n.event(&notify.Hello{Next: 1, Time: Millis(2000).Time(), RID: 2})
	n.event(&notify.Lost{Cause: notify.LostAway, Unknown: true, Time: Millis(2000).Time()})
	n.tick("second", time.Duration(testStart+day)*time.Millisecond, testStart+day+3000)
	n.event(&notify.Idle{Time: (testStart + 2*day).Time()})
	for cutoff, want := range map[Millis]bool{testStart + 2*hour: false, testStart + day: false, testStart + day + minute: true} {
		if d := DoubtOf(&n, cutoff, testStart+2*day); d.Certain() != want {
			t.Errorf("since %v: certain %v; gaps %+v, steps %+v", cutoff, d.Certain(), n.Gaps, n.Steps)
		}
	}
}

// coldOf returns which of some inodes are cold, all of which are old enough.
func coldOf(t *testing.T, views []*View, cutoff Millis, inos ...uint64) []uint64 {
	t.Helper()
	for _, v := range views {
		for i := range v.Nodes {
			v.Nodes[i].Samples = append(v.Nodes[i].Samples, Sample{Time: testStart - day, Seq: 10})
		}
	}
	var cold []uint64
	files, err := Cold(views, cutoff, func(seq uint64, f func(uint64)) error {
		for _, ino := range inos {
			f(ino)
		}
		return nil
	}, func(e *Entry, seen bool) error {
		cold = append(cold, e.Ino)
		if seen != (e.Last != 0) {
			t.Errorf("%+v, seen %v", *e, seen)
		}
		return nil
	})
	if err != nil || files != len(inos) {
		t.Errorf("Cold: %d files, %v", files, err)
	}
	return cold
}

// cold lists what was last written before the cutoff, for which a sample from before it is
// needed, and no file if observation began later.
func TestColdBounds(t *testing.T) {
	dir := memoryDir(t)
	s, _ := testStore(t, dir, Limits{})
	mustWrite(t, s, hello(testStart))
	for i, seq := range []uint64{100, 200, 300} {
		if err := s.Look(Notice{Sample: &Sample{Time: testStart + Millis(i+1)*day, Seq: seq}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	v := view(t, dir)
	for _, tt := range []struct {
		cutoff Millis
		seq    uint64
		err    error
	}{
		{testStart - 1, 0, ErrShort},
		{testStart + hour, 0, ErrNoSample},
		{testStart + day, 100, nil},
		{testStart + 3*day - 1, 200, nil},
		{testStart + 9*day, 300, nil},
	} {
		asked := uint64(0)
		_, err := Cold([]*View{v}, tt.cutoff, func(seq uint64, _ func(uint64)) error { asked = seq; return nil }, nil)
		if asked != tt.seq || !errors.Is(err, tt.err) {
			t.Errorf("at %v: up to transaction %d, %v; want %d, %v", tt.cutoff, asked, err, tt.seq, tt.err)
		}
	}
}

// Several nodes: the newest access counts, and what one does not know nobody knows; merged
// they say the same.
func TestMerge(t *testing.T) {
	var dirs []string
	for i, last := range []Millis{testStart + 2*day, testStart + day} {
		dir := memoryDir(t)
		s, _ := testStore(t, dir, Limits{})
		if err := s.Look(Notice{Host: []string{"a", "b"}[i]}); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, s, hello(testStart), opened(1, 1, testStart+hour), opened(2, 2, last), opened(3, uint64(3+i), last))
		if i == 1 {
			mustWrite(t, s, &notify.Lost{First: 4, Last: 8, Count: 5, Cause: notify.LostQueue, Time: (last + hour).Time()})
		}
		mustWrite(t, s, &notify.Idle{Seq: 8, Time: (testStart + 3*day).Time()})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	parts := []*View{view(t, dirs[0]), view(t, dirs[1])}
	out := memoryDir(t)
	if _, err := Merge(out, parts); err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(out, parts); err == nil {
		t.Error("merging into a store again does not fail")
	}
	now := testStart + 3*day
	for name, views := range map[string][]*View{"several": parts, "merged": {view(t, out)}} {
		if cold := coldOf(t, views, testStart+36*hour, 1, 2, 3, 4, 5); !slices.Equal(cold, []uint64{1, 4, 5}) {
			t.Errorf("%s: cold: %v", name, cold)
		}
		e, ok, err := Find(views, 2)
		if err != nil || !ok || e.Opens != 2 || e.Last != testStart+2*day {
			t.Errorf("%s: %+v, %v, %v", name, e, ok, err)
		}
		d := Doubts(views, testStart+day, now)
		if len(d) != 2 || !d[0].Certain() || d[1].Certain() || d[1].Lost != 5 || d[1].Host != "b" {
			t.Errorf("%s: %+v", name, d)
		}
		if d := Doubts(views, testStart+30*hour, now); !d[0].Certain() || !d[1].Certain() {
			t.Errorf("%s: after the gap: %+v", name, d)
		}
		hot, _, err := Hot(views, testStart+36*hour, func(e *Entry) uint64 { return e.Opens })
		if err != nil || len(hot) == 0 || hot[0].Ino != 1 && hot[0].Ino != 2 {
			t.Errorf("%s: hot: %+v, %v", name, hot, err)
		}
	}
}

// What is forgotten was before what is called the start of observation then.
func TestKeep(t *testing.T) {
	dir := memoryDir(t)
	s, now := testStore(t, dir, Limits{Keep: 20 * 24 * time.Hour, Hours: time.Hour, Days: time.Hour})
	mustWrite(t, s, hello(testStart), opened(1, 1, testStart+hour),
		&notify.Lost{First: 2, Last: 2, Count: 1, Time: (testStart + 2*hour).Time()})
	flush := func() {
		t.Helper()
		mustFlush(t, s)
	}
	flush()
	*now = now.Add(30 * 24 * time.Hour)
	mustWrite(t, s, opened(3, 2, MillisOf(*now)))
	flush()
	v := view(t, dir)
	if _, ok, err := Find([]*View{v}, 1); ok || err != nil {
		t.Errorf("inode 1 is remembered: %v", err)
	}
	if _, ok, err := Find([]*View{v}, 2); !ok || err != nil {
		t.Errorf("inode 2 is not remembered: %v", err)
	}
	if n := &v.Nodes[0]; n.Since != MillisOf(now.Add(-20*24*time.Hour)) || len(n.Gaps) != 0 {
		t.Errorf("observed since %v, gaps %+v", n.Since, n.Gaps)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A node that loses records all the time keeps few gaps, which cover all of them.
func TestManyGaps(t *testing.T) {
	n := Node{}
	n.event(hello(testStart))
	rnd := rand.New(rand.NewPCG(3, 4))
	seq, at := uint64(0), testStart
	type span struct{ from, to Millis }
	var all []span
	for range 10 * maxGaps {
		at += Millis(1 + rnd.IntN(3_600_000))
		n.event(opened(seq+1, 1, at))
		n.event(&notify.Lost{First: seq + 2, Last: seq + 3, Count: 2, Time: (at + 10).Time()})
		all = append(all, span{at, at + 10})
		seq += 3
	}
	if len(n.Gaps) > maxGaps || n.Lost != 2*uint64(len(all)) {
		t.Errorf("%d gaps, %d lost", len(n.Gaps), n.Lost)
	}
	for _, s := range all {
		if !slices.ContainsFunc(n.Gaps, func(g Gap) bool { return g.From <= s.from && s.to <= g.To }) {
			t.Fatalf("no gap covers %v to %v", s.from, s.to)
		}
	}
}

// Samples of the last days are by the hour, older ones by the day.
func TestSamples(t *testing.T) {
	var n Node
	for i := range 24 * 100 {
		n.sample(Sample{Time: testStart + Millis(i)*hour, Seq: uint64(i)})
	}
	if len(n.Samples) > 24*8+100 {
		t.Errorf("%d samples", len(n.Samples))
	}
	for d := Millis(1); d < 100; d++ {
		seq, ok := n.committed(testStart + d*day)
		if want := uint64(d * 24); !ok || seq > want || seq+25 < want {
			t.Errorf("day %d: %d, %v, not %d", d, seq, ok, want)
		}
	}
}
