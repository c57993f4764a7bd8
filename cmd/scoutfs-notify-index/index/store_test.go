// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const testStart = Millis(1_700_000_000_000)

// testStore opens a store whose clock the test sets.
func testStore(t *testing.T, dir string, l Limits) (*Store, *time.Time) {
	t.Helper()
	s, err := Open(dir, testFSID, l)
	if err != nil {
		t.Fatal(err)
	}
	now := testStart.Time()
	s.now = func() time.Time { return now }
	s.started = now
	return s, &now
}

// memoryDir returns a folder for a store, in memory if there is one: nothing here ends the
// machine.
func memoryDir(t testing.TB) string {
	t.Helper()
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	dir, err := os.MkdirTemp(memory, "index")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "store")
}

func encode(t testing.TB, events ...notify.Event) []byte {
	t.Helper()
	var b []byte
	for _, ev := range events {
		var err error
		if b, err = ev.(interface {
			AppendBinary([]byte) ([]byte, error)
		}).AppendBinary(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func hello(at Millis) *notify.Hello {
	return &notify.Hello{Next: 1, Time: at.Time(), FSID: testFSID, RID: 1, Version: notify.Version2}
}

func opened(seq, ino uint64, at Millis) *notify.Record {
	return &notify.Record{Seq: seq, Ino: ino, TimeNS: uint64(at) * 1e6, UID: 1000, Type: notify.TypeOpen}
}

func mustWrite(t testing.TB, s *Store, events ...notify.Event) {
	t.Helper()
	if err := s.Write(encode(t, events...)); err != nil {
		t.Fatal(err)
	}
}

// mustFlush flushes, and merges what is due.
func mustFlush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.endFlush(<-s.flushed); err != nil {
		t.Fatal(err)
	}
	s.mergers.Wait()
}

func view(t testing.TB, dir string) *View {
	t.Helper()
	v, err := OpenView(dir, testFSID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// A store that is not what it should be is refused, and not touched.
func TestRefused(t *testing.T) {
	fill := func(t *testing.T) string {
		dir := memoryDir(t)
		s, _ := testStore(t, dir, Limits{})
		mustWrite(t, s, hello(testStart), opened(1, 7, testStart+5))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	segment := func(t *testing.T, dir string) string {
		names, err := filepath.Glob(filepath.Join(dir, "seg-*"))
		if err != nil || len(names) != 1 {
			t.Fatalf("segments %v, %v", names, err)
		}
		return names[0]
	}
	edit := func(t *testing.T, path string, f func([]byte) []byte) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(i int) func([]byte) []byte {
		return func(b []byte) []byte {
			if i < 0 {
				i += len(b)
			}
			b[i] ^= 1
			return b
		}
	}
	manifestOf := func(change func(m *manifest)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			m, err := readManifest(dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			change(m)
			if err := m.write(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   error
		read   bool // looking at it is refused, too
	}{
		{"manifest", func(t *testing.T, dir string) { edit(t, filepath.Join(dir, manifestName), flip(-5)) }, ErrDamaged, true},
		{"empty manifest", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestName), func([]byte) []byte { return nil })
		}, ErrDamaged, true},
		{"no manifest", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, manifestName)) }, ErrDamaged, true},
		{"no segment", func(t *testing.T, dir string) { os.Remove(segment(t, dir)) }, ErrDamaged, true},
		{"segment cut off", func(t *testing.T, dir string) {
			edit(t, segment(t, dir), func(b []byte) []byte { return b[:len(b)-1] })
		}, ErrDamaged, true},
		{"segment's head", func(t *testing.T, dir string) { edit(t, segment(t, dir), flip(9)) }, ErrDamaged, true},
		{"foreign", manifestOf(func(m *manifest) { m.FSID = 5 }), ErrForeign, true},
		{"newer", manifestOf(func(m *manifest) { m.Version = Version + 1 }), ErrNewer, true},
		{"merged", manifestOf(func(m *manifest) { m.Merged = true }), ErrMerged, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := fill(t)
			tt.damage(t, dir)
			before := snapshot(t, dir)
			if s, err := Open(dir, testFSID, Limits{}); !errors.Is(err, tt.want) {
				t.Errorf("Open: %v, %v", s, err)
			} else if !strings.Contains(err.Error(), dir) {
				t.Errorf("the error does not name the store: %v", err)
			}
			if v, err := OpenView(dir, testFSID); (err != nil) != tt.read {
				t.Errorf("OpenView: %v, %v", v, err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("the store was changed from\n%s\nto\n%s", before, after)
			}
		})
	}
	t.Run("block", func(t *testing.T) {
		dir := fill(t)
		edit(t, segment(t, dir), flip(segmentHead+blockHead+1))
		v := view(t, dir) // of its blocks each is checked when it is read
		if err := All([]*View{v}, func(*Entry) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("All: %v", err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		dir := fill(t)
		s, _ := testStore(t, dir, Limits{})
		if _, err := Open(dir, testFSID, Limits{}); !errors.Is(err, ErrBusy) {
			t.Errorf("Open: %v", err)
		}
		s.Close()
	})
}

// snapshot describes the files of a folder.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %x\n", name, b)
	}
	return out.String()
}

// A journal that ends in anything but a whole frame ends before it: what was there is told
// as lost, because the place to go on from is before it, too.
func TestTornJournal(t *testing.T) {
	dir := memoryDir(t)
	s, _ := testStore(t, dir, Limits{})
	mustWrite(t, s, hello(testStart), opened(1, 7, testStart+5))
	whole := s.size
	mustWrite(t, s, opened(2, 8, testStart+6))
	path := journalPath(dir, s.number)
	s.release() // as if it was killed
	full, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut <= int64(len(full)); cut++ {
		for _, tail := range [][]byte{nil, bytes.Repeat([]byte{0xff}, 40), make([]byte, 40)} {
			torn := append(slices.Clone(full[:cut]), tail...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			s, _ := testStore(t, dir, Limits{})
			want := uint64(1)
			if bytes.HasPrefix(torn, full) {
				want = 2
			}
			if got := s.Resume(); got.Seq != want || got.RID != 1 {
				t.Errorf("cut at %d of %d: goes on from %+v, not %d", cut, len(full), got, want)
			}
			s.release()
		}
	}
}

// When the disk is full, nothing is lost as long as memory lasts; then that is told.
func TestDiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s, _ := testStore(t, filepath.Join(dir, "store"), Limits{})
	var logged bytes.Buffer
	f := testFeed(s, &logged)
	f.add(hello(testStart))
	seq := uint64(0)
	work := func(n int) {
		for range n {
			seq++
			f.add(opened(seq, seq%100, testStart+Millis(seq)))
		}
	}
	work(100)
	f.round()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	work(2000)
	f.failing = time.Now().Add(-time.Minute) // for a while already
	f.round()
	if !strings.Contains(logged.String(), "no space left") {
		t.Errorf("logged: %s", logged.String())
	}
	f.max = 1 << 20
	work(f.max/notify.RecordSize + 1000) // more than memory holds
	f.round()
	os.Remove(filler)
	// Room for some of it at a time: the store must not take a part of a write.
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	f.round()
	work(10)
	f.round()
	n := s.Node()
	if n.Records+n.Lost != seq || n.Lost == 0 || len(n.Gaps) != 1 || n.Gaps[0].Cause != LostIndex {
		t.Errorf("%d taken and %d lost of %d, gaps %+v", n.Records, n.Lost, seq, n.Gaps)
	}
	if n.At.Seq != seq || !strings.Contains(logged.String(), "can be written again") {
		t.Errorf("at %d of %d; logged: %s", n.At.Seq, seq, logged.String())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v := view(t, s.dir); v.Nodes[0].Records != n.Records {
		t.Errorf("the store has %d of %d", v.Nodes[0].Records, n.Records)
	}
}

// testFeed returns a feed of the store whose clock stands still.
func testFeed(s *Store, log io.Writer) *Feed {
	f := &Feed{Store: s, Log: slog.New(slog.NewTextHandler(log, nil))}
	f.clock = func() (string, time.Duration) { return "boot", 0 }
	return f
}

// At its end a feed gives the store all that has come, and waits for flushes that make room;
// what the store cannot take it says.
func TestFinish(t *testing.T) {
	const accesses = 10 * feedChunk / notify.RecordSize / 4
	errStream := errors.New("the stream's")
	for _, tt := range []struct {
		name   string
		before func(s *Store) (after func()) // called before it takes no more, and at the end
		fails  bool
	}{
		{"a flush is under way", func(s *Store) func() {
			gate := make(chan struct{})
			s.changed = func(what string) {
				if what == "segment" {
					<-gate
				}
			}
			return func() { close(gate) }
		}, false},
		{"a flush has failed", func(s *Store) func() {
			var works atomic.Bool
			s.syncDir = func(dir string) error {
				if !works.Load() {
					return errSync
				}
				return syncDir(dir)
			}
			return func() { works.Store(true) }
		}, false},
		{"flushes fail", func(s *Store) func() {
			s.syncDir = func(string) error { return errSync }
			return func() {}
		}, true},
		{"the journal cannot be written", func(s *Store) func() {
			s.syncDir = func(string) error { return errSync }
			return func() { s.journal.Close() }
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := memoryDir(t)
			s, err := Open(dir, testFSID, Limits{Inodes: 1000})
			if err != nil {
				t.Fatal(err)
			}
			var logged bytes.Buffer
			f := testFeed(s, &logged)
			f.add(hello(testStart))
			after := tt.before(s)
			for n := range uint64(accesses) {
				f.add(opened(n+1, n+1, testStart+Millis(n)))
			}
			for err == nil { // until it takes no more
				if err = f.round(); err == nil && s.frozen != nil {
					err = s.endFlush(<-s.flushed)
				}
			}
			if f.waits() == 0 {
				t.Fatalf("nothing waits: %v", err)
			}
			f.interval = time.Hour // there is no round but at the end
			err = f.Run(func(yield func(notify.Event, error) bool) {
				after()
				yield(nil, errStream)
			})
			lost := f.waits()
			wrong := strings.Contains(logged.String(), "cannot be written")
			if !errors.Is(err, errStream) || wrong != tt.fails || (lost > 0) != tt.fails ||
				tt.fails != strings.Contains(err.Error(), fmt.Sprintf("write %d accesses", lost)) {
				t.Errorf("%d wait still: %v; logged: %s", lost, err, logged.String())
			}
			s.Close()
			if n := view(t, dir).Nodes[0]; n.Records+lost != accesses || n.At.Seq != n.Records {
				t.Errorf("%d of %d accesses are in the store, up to %d, and %d were said not to be", n.Records, accesses, n.At.Seq, lost)
			}
		})
	}
}

// While a store cannot be written, what waits for it is bounded, whatever comes; and then all
// of it is accounted for.
func TestWaitingBounded(t *testing.T) {
	access := func(seq uint64, at Millis) notify.Event { return opened(seq, 1, at) }
	for _, tt := range []struct {
		name  string
		event func(seq uint64, at Millis) notify.Event // one round's
		lost  bool
	}{
		{"accesses", access, true},
		{"left out", func(seq uint64, at Millis) notify.Event {
			rec := opened(seq, 1, at)
			rec.UID = 7
			return rec
		}, false},
		{"idle", func(seq uint64, at Millis) notify.Event { return &notify.Idle{Seq: seq, Time: at.Time()} }, false},
		{"losses", func(seq uint64, at Millis) notify.Event {
			return &notify.Lost{First: seq, Last: seq, Count: 1, Cause: notify.LostQueue, Time: at.Time()}
		}, true},
		{"all of it", func(seq uint64, at Millis) notify.Event {
			switch seq % 4 {
			case 0:
				return &notify.Lost{First: seq, Last: seq, Count: 1, Cause: notify.LostQueue, Time: at.Time()}
			case 1:
				rec := opened(seq, 1, at)
				rec.UID = 7
				return rec
			case 2:
				return &notify.Idle{Seq: seq, Time: at.Time()}
			}
			return access(seq, at)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := testStore(t, memoryDir(t), Limits{})
			defer s.release()
			f := testFeed(s, io.Discard)
			x := Exclude{UIDs: []uint32{7}}
			f.Skip, f.max = x.Match, 100*notify.RecordSize
			f.add(hello(testStart))
			if err := f.round(); err != nil {
				t.Fatal(err)
			}
			journal, err := os.Open(os.DevNull) // which nothing can be written to
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			good := s.journal
			s.journal = journal
			const rounds = 1000
			at := testStart
			for seq := range uint64(rounds) {
				at += Millis(1000)
				f.add(tt.event(seq+1, at))
				if err := f.round(); err == nil && tt.lost {
					t.Fatal("the store can be written")
				}
			}
			if most := f.max + 4*notify.RecordSize; f.waiting > most || len(f.pending) > 1 {
				t.Errorf("%d bytes wait in %d chunks, %d were allowed", f.waiting, len(f.pending), most)
			}
			s.journal = good
			if err := f.round(); err != nil {
				t.Fatal(err)
			}
			n := s.Node()
			if n.At.Seq != rounds || n.Told != at || (n.Lost > 0) != tt.lost || f.waiting > 0 {
				t.Errorf("at %d of %d, told up to %v of %v, %d lost, %d bytes wait", n.At.Seq, rounds, n.Told, at, n.Lost, f.waiting)
			}
			for seq := range uint64(rounds) {
				if _, ok := tt.event(seq+1, at).(*notify.Lost); ok && n.has(Place{1, seq + 1}) {
					t.Fatalf("%d was lost, and no gap says so: %+v", seq+1, n.Gaps)
				}
			}
		})
	}
}

// Records of types that are not known are no accesses, neither when they come nor in a
// journal that has them already, and the stream goes on after them.
func TestUnknownTypes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		typ   notify.Type
		taken bool
	}{
		{"open", notify.TypeOpen, true},
		{"read", notify.TypeRead, true},
		{"none", 0, false},
		{"later", 3, false},
		{"last", 0x7fff, false},
		{"control", 0x8009, false},
	} {
		for how, write := range map[string]func(s *Store, events ...notify.Event){
			"feed": func(s *Store, events ...notify.Event) {
				f := testFeed(s, io.Discard)
				for _, ev := range events {
					f.add(ev)
				}
				if err := f.round(); err != nil {
					t.Error(err)
				}
			},
			"journal": func(s *Store, events ...notify.Event) { mustWrite(t, s, events...) },
		} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				dir := memoryDir(t)
				s, _ := testStore(t, dir, Limits{})
				rec := opened(1, 7, testStart+5)
				rec.Type, rec.Length = tt.typ, 4096
				write(s, hello(testStart), rec)
				s.release() // as if it was killed: the journal is replayed
				n := view(t, dir).Nodes[0]
				_, found := inodes(t, dir)[7]
				if found != tt.taken || (n.Records == 1) != tt.taken {
					t.Errorf("taken %v, %d accesses", found, n.Records)
				}
				if !tt.typ.IsControl() && n.At.Seq != 1 {
					t.Errorf("the stream goes on after %d", n.At.Seq)
				}
			})
		}
	}
}

// A flush that fails loses nothing, and the next one has it.
func TestFlushFails(t *testing.T) {
	dir := memoryDir(t)
	s, now := testStore(t, dir, Limits{Flush: time.Second})
	mustWrite(t, s, hello(testStart), opened(1, 7, testStart+5))
	*now = now.Add(2 * time.Second)
	// A folder is where the segment should be.
	block := segmentPath(dir, s.manifest.Next+1)
	if err := os.Mkdir(block, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, opened(2, 7, testStart+6), opened(3, 8, testStart+7))
	if err := s.endFlush(<-s.flushed); err == nil {
		t.Fatal("the flush did not fail")
	}
	os.Remove(block)
	check := func(when string) {
		t.Helper()
		e, ok, err := Find([]*View{view(t, dir)}, 7)
		if err != nil || !ok || e.Opens != 2 || e.First != testStart+5 || e.Last != testStart+6 {
			t.Errorf("%s: %+v, %v, %v", when, e, ok, err)
		}
	}
	check("after the failure")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after the next flush")
}

// A manifest that was replaced counts, whether the folder can be synced or not: what it names
// stays, and so does what the one before names, which a loss of power may bring back. When
// the folder can be synced again, the rest goes.
func TestSyncFails(t *testing.T) {
	for _, merge := range []bool{false, true} {
		t.Run(map[bool]string{false: "flush", true: "merge"}[merge], func(t *testing.T) {
			dir := memoryDir(t)
			s, now := testStore(t, dir, Limits{})
			mustWrite(t, s, hello(testStart), opened(1, 7, testStart+5))
			if merge { // of the first hour, when the second is flushed
				mustFlush(t, s)
				*now = now.Add(90 * time.Minute)
			}
			mustWrite(t, s, opened(2, 8, testStart+6))
			read := func() []byte {
				b, err := os.ReadFile(filepath.Join(dir, manifestName))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			before, fails := read(), false
			s.changed = func(what string) { fails = fails || what == "manifest" && !merge || what == "merge" }
			s.syncDir = func(dir string) error {
				if fails {
					return errSync
				}
				before = read()
				return syncDir(dir)
			}
			mustFlush(t, s)
			if err := s.Maintain(); !errors.Is(err, errSync) {
				t.Errorf("told: %v", err)
			}
			s.changed, s.syncDir = nil, syncDir
			mustWrite(t, s, opened(3, 8, testStart+7))

			check := func(when, dir string) {
				t.Helper()
				if got := inodes(t, dir); !maps.Equal(got, map[uint64]uint64{7: 1, 8: 2}) {
					t.Errorf("%s: opens by inode %v", when, got)
				}
			}
			check("after the failure", dir)
			for _, name := range []string{"killed", "power lost"} {
				kept := memoryDir(t)
				if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if name == "power lost" {
					if err := os.WriteFile(filepath.Join(kept, manifestName), before, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				again, err := Open(kept, testFSID, Limits{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				check(name, kept)
				again.release()
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			check("at the end", dir)
			files, err := filepath.Glob(filepath.Join(dir, "*-*"))
			if want := len(s.Segments()) + 1; err != nil || len(files) != want { // and a journal
				t.Errorf("%d files are left of %d: %v", len(files), want, files)
			}
		})
	}
}

// What comes after days without an event is not of the hour of the last flush.
func TestIdleDays(t *testing.T) {
	s, now := testStore(t, memoryDir(t), Limits{Flush: time.Second})
	defer s.release()
	for i := range uint64(2) {
		mustWrite(t, s, hello(MillisOf(*now)), opened(i+1, 7, MillisOf(*now)))
		mustFlush(t, s)
		if !slices.ContainsFunc(s.Segments(), func(g Segment) bool { return g.Last == MillisOf(*now) && g.Hour == g.Last.hours() }) {
			t.Errorf("at %v: %+v", now, s.Segments())
		}
		*now = now.Add(4 * 24 * time.Hour)
	}
}

// Merging segments changes nothing that is told of an inode, and leaves few.
func TestCompact(t *testing.T) {
	dir := memoryDir(t)
	s, now := testStore(t, dir, Limits{Flush: time.Millisecond})
	mustWrite(t, s, hello(testStart))
	want := make(map[uint64]Entry)
	rnd := rand.New(rand.NewPCG(1, 2))
	seq := uint64(0)
	for range 400 {
		for range 20 {
			seq++
			rec := opened(seq, 1+rnd.Uint64N(200), MillisOf(*now)+Millis(rnd.Uint64N(1000)))
			mustWrite(t, s, rec)
			e := access(rec)
			if old, ok := want[rec.Ino]; ok {
				old.add(&e)
				e = old
			}
			want[rec.Ino] = e
		}
		*now = now.Add(97 * time.Minute)
		mustFlush(t, s)
	}
	spans := map[Span]int{}
	for _, g := range s.Segments() {
		spans[g.Span]++
	}
	t.Logf("%d flushes over %v: segments by span %v", 400, now.Sub(testStart.Time()), spans)
	if spans[SpanAll] != 1 || spans[SpanDay] < 10 || spans[SpanDay] > 20 || spans[SpanHour] > 60 || spans[SpanFlush] > fanIn {
		t.Errorf("segments by span: %v", spans)
	}
	got := 0
	v := view(t, dir)
	err := All([]*View{v}, func(e *Entry) error {
		got++
		if *e != want[e.Ino] {
			t.Errorf("%+v, not %+v", *e, want[e.Ino])
		}
		return nil
	})
	if err != nil || got != len(want) {
		t.Errorf("%d inodes, not %d: %v", got, len(want), err)
	}
	// What is older than the days is not told apart any more.
	if _, _, err := Hot([]*View{v}, testStart, func(e *Entry) uint64 { return e.Opens }); !errors.Is(err, ErrCoarse) {
		t.Errorf("Hot from the start: %v", err)
	}
	hot, from, err := Hot([]*View{v}, MillisOf(now.Add(-24*time.Hour)), func(e *Entry) uint64 { return e.Opens })
	if err != nil || len(hot) == 0 || from < MillisOf(now.Add(-26*time.Hour)) {
		t.Errorf("Hot of a day: %d from %v, %v", len(hot), from, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
