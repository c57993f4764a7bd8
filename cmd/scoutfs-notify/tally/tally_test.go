// SPDX-License-Identifier: GPL-2.0-only

package tally

import (
	"fmt"
	"math"
	"reflect"
	"runtime"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var start = time.Unix(1700000000, 0)

func open(ino uint64, pid, uid uint32) *notify.Record {
	return &notify.Record{Type: notify.TypeOpen, Ino: ino, PID: pid, UID: uid}
}

func read(ino uint64, pid, uid uint32, length uint64) *notify.Record {
	return &notify.Record{Type: notify.TypeRead, Ino: ino, PID: pid, UID: uid, Length: length}
}

// someNames know some.
var someNames = Names{
	Path:    func(ino uint64) string { return map[uint64]string{1: "a/one", 2: "a/Two", 3: "b/three"}[ino] },
	User:    func(uid uint32) string { return map[uint32]string{0: "root"}[uid] },
	Command: func(r *notify.Record) string { return map[uint32]string{10: "cat", 11: "cat", 12: "rsync"}[r.PID] },
}

func filled() *Tally {
	t := New(start, someNames)
	for _, r := range []*notify.Record{
		open(1, 10, 0), read(1, 10, 0, 100), read(2, 11, 1000, 300), read(3, 12, 0, 200), read(4, 13, 1000, 50),
		open(4, 13, 1000), open(4, 13, 1000), {Type: 77, Ino: 5, PID: 10},
	} {
		t.Add(r)
	}
	return t
}

// show writes rows in short.
func show(rows []Row) []string {
	var s []string
	for _, r := range rows {
		s = append(s, fmt.Sprintf("%d %q %d/%d/%d", r.ID, r.Name, r.Opens, r.Reads, r.Bytes))
	}
	return s
}

func TestLook(t *testing.T) {
	tally := filled()
	tally.Next(start.Add(2 * time.Second))
	for _, tt := range []struct {
		name string
		q    Query
		want []string
	}{
		{"files", Query{Rows: 10}, []string{`2 "a/Two" 0/1/300`, `3 "b/three" 0/1/200`, `1 "a/one" 1/1/100`, `4 "" 2/1/50`}},
		{"by opens", Query{Order: Opens, Rows: 2}, []string{`4 "" 2/1/50`, `1 "a/one" 1/1/100`}},
		{"by reads, the next", Query{Order: Reads, Rows: 1, Skip: 1}, []string{`3 "b/three" 0/1/200`}},
		{"beyond the end", Query{Rows: 5, Skip: 9}, nil},
		{"before the start", Query{Rows: 1, Skip: -3}, []string{`2 "a/Two" 0/1/300`}},
		{"events", Query{Order: Events, Rows: 1}, []string{`4 "" 2/1/50`}},
		{"filter by name", Query{Filter: "TWO", Rows: 9}, []string{`2 "a/Two" 0/1/300`}},
		{"filter by number", Query{Filter: "4", Rows: 9}, []string{`4 "" 2/1/50`}},
		{"directories", Query{By: ByDirectory, Rows: 9}, []string{`0 "a" 1/2/400`, `0 "b" 0/1/200`, `0 "" 2/1/50`}},
		{"users", Query{By: ByUser, Rows: 9}, []string{`1000 "" 2/2/350`, `0 "root" 1/2/300`}},
		{"processes", Query{By: ByProcess, Rows: 2}, []string{`11 "cat" 0/1/300`, `12 "rsync" 0/1/200`}},
		{"processes of a user", Query{By: ByProcess, Filter: "root", Rows: 9}, []string{`12 "rsync" 0/1/200`, `10 "cat" 1/1/100`}},
		{"commands", Query{By: ByCommand, Rows: 9}, []string{`0 "cat" 1/2/400`, `0 "rsync" 0/1/200`, `0 "" 2/1/50`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(tally.Look(tt.q, start).Rows); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The first interval is there while it goes on; then the last that is over; or all.
func TestIntervals(t *testing.T) {
	tally := filled()
	files := Query{Rows: 1}
	v := tally.Look(files, start.Add(time.Second))
	if !v.First || v.Seconds != 1 || v.All != (Count{3, 4, 650}) || v.Keys != 4 {
		t.Errorf("in the first interval: %+v", v)
	}
	tally.Next(start.Add(2 * time.Second))
	tally.Add(read(3, 12, 0, 1000))
	v = tally.Look(files, start.Add(3*time.Second))
	if v.First || v.Seconds != 2 || v.All != (Count{3, 4, 650}) || !reflect.DeepEqual(v.Rows[0].History, []float64{150}) {
		t.Errorf("in the second: %+v", v)
	}
	tally.Next(start.Add(4 * time.Second))
	v = tally.Look(files, start.Add(4*time.Second))
	if v.All != (Count{0, 1, 1000}) || v.Keys != 1 || !reflect.DeepEqual(v.Rows[0].History, []float64{100, 500}) ||
		!reflect.DeepEqual(v.Moments, []Moment{{Events: 3.5, Bytes: 325}, {Events: 0.5, Bytes: 500}}) {
		t.Errorf("after it: %+v", v)
	}
	v = tally.Look(Query{Rows: 1, Total: true}, start.Add(5*time.Second))
	if v.Seconds != 5 || v.All != (Count{3, 5, 1650}) || v.Keys != 4 || v.Rows[0].Bytes != 1200 {
		t.Errorf("in all: %+v", v)
	}
	tally.Reset(start.Add(6 * time.Second))
	if v = tally.Look(Query{Rows: 1, Total: true}, start.Add(7*time.Second)); v.Keys != 0 || v.All != (Count{}) || v.Start != start.Add(6*time.Second) || v.Moments != nil {
		t.Errorf("after a reset: %+v", v)
	}
}

// A clock that is set back does not make rates negative, or infinite.
func TestClockBack(t *testing.T) {
	tally := filled()
	tally.Next(start.Add(-time.Hour))
	if v := tally.Look(Query{}, start); v.Seconds <= 0 || math.IsInf(v.Moments[0].Bytes, 0) {
		t.Errorf("got %+v", v)
	}
}

func TestLosses(t *testing.T) {
	tally := New(start, Names{})
	tally.Add(&notify.Lost{Count: 7, Cause: notify.LostQueue})
	tally.Add(&notify.Lost{Count: 3, Cause: notify.LostKernel, AtMost: true})
	tally.Next(start.Add(time.Second))
	tally.Add(&notify.Lost{Unknown: true, Cause: notify.LostAway})
	if v := tally.Look(Query{}, start); v.Loss.String() != "lost at most 10 records (kernel+queue)" || !v.Moments[0].Lost {
		t.Errorf("got %v, %+v", v.Loss, v.Moments)
	}
	tally.Next(start.Add(2 * time.Second))
	if v := tally.Look(Query{}, start); v.Loss.String() != "may have lost any number of records (away)" ||
		v.TotalLoss.String() != "lost 10 records, and maybe any number besides (kernel+queue+away)" {
		t.Errorf("got %v, in all %v", v.Loss, v.TotalLoss)
	}
	tally.Next(start.Add(3 * time.Second))
	if v := tally.Look(Query{}, start); v.Loss.String() != "lost nothing" {
		t.Errorf("got %v", v.Loss)
	}
}

// With more files than there is room for, none is forgotten in the sums, and those that
// count are still told apart.
func TestRest(t *testing.T) {
	const room, each = 100, 1000
	tally := newTally(start, Names{}, room)
	now := start
	var want Count
	for round := range 20 {
		for i := range uint64(each) {
			tally.Add(read(1000+uint64(round)*each+i, 1, 1, 10))
			want.plus(Count{0, 1, 10})
			if i%100 == 0 {
				tally.Add(read(1, 1, 1, 1000))
				want.plus(Count{0, 1, 1000})
			}
		}
		now = now.Add(time.Second)
		tally.Next(now)
		for _, total := range []bool{false, true} {
			v := tally.Look(Query{Rows: 2 * room, Total: total}, now)
			sum := v.Rest
			for _, r := range v.Rows {
				sum.plus(r.Count)
			}
			if sum != v.All || total && sum != want {
				t.Fatalf("round %d, total %v: rows and rest have %+v, all have %+v, want %+v", round, total, sum, v.All, want)
			}
			if v.Rows[0].ID != 1 || v.Keys > room {
				t.Fatalf("round %d, total %v: the first of %d is %+v", round, total, v.Keys, v.Rows[0])
			}
		}
	}
}

// However many files and processes there are and however long it runs, the memory does
// not grow beyond that of a full tally.
func TestMemory(t *testing.T) {
	tally := newTally(start, Names{
		Path: func(ino uint64) string { return fmt.Sprintf("some/folder/of/the/archive/%d.dat", ino) },
	}, MaxRows/8)
	now := start
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round := func(n int) {
		for i := range 20_000 {
			ino := uint64(n*10_000 + i) // half of them are those of the round before
			tally.Add(read(ino, uint32(ino), 1, 1))
		}
		now = now.Add(time.Second)
		tally.Next(now)
	}
	for n := range 3 {
		round(n)
	}
	full := used()
	for n := range 10 {
		round(3 + n)
	}
	if got := used(); got > full+full/5 {
		t.Errorf("%d bytes, after three rounds it had %d", got, full)
	}
	runtime.KeepAlive(tally)
}

// A path that is not known for a while is still shown; another process's name is not.
func TestNamesAway(t *testing.T) {
	now := time.Unix(1700000000, 0)
	path, command := "a/b", "cat"
	sum := New(now, Names{Path: func(uint64) string { return path }, Command: func(*notify.Record) string { return command }})
	for _, want := range []struct{ ask, path, command string }{{"a/b", "a/b", "cat"}, {"", "a/b", ""}, {"c", "c", "c"}} {
		if want.ask != path {
			path, command = want.ask, want.ask
		}
		sum.Add(&notify.Record{Type: notify.TypeOpen, Ino: 7, PID: 8})
		now = now.Add(time.Second)
		sum.Next(now)
		for by, name := range map[By]string{ByFile: want.path, ByProcess: want.command} {
			if rows := sum.Look(Query{By: by, Rows: 1}, now).Rows; len(rows) != 1 || rows[0].Name != name {
				t.Errorf("by %v: %+v, want %q", by, rows, name)
			}
		}
	}
}
