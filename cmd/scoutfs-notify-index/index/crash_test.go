// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// crashes looks at a store as a start would find it after the end of the process or the
// machine.
type crashes struct {
	t      *testing.T
	s      *Store
	rnd    *rand.Rand
	seq    uint64
	at     Millis
	want   map[uint64]Entry
	states []string // after each write
	points map[string]int
	copies string // folder
	synced []byte // the manifest that a loss of power leaves at least
	failed int    // syncs of the folder
}

func (c *crashes) state(s *Store) string {
	b, err := json.Marshal(s.log.node)
	if err != nil {
		c.t.Error(err)
	}
	return string(b)
}

// write has the store take a few events, which need not make sense together.
func (c *crashes) write() {
	c.t.Helper()
	for range 1 + c.rnd.IntN(3) {
		c.at += Millis(c.rnd.IntN(600_000))
		var ev notify.Event
		switch at := c.at.Time(); c.rnd.IntN(8) {
		case 0:
			c.seq = c.rnd.Uint64N(50)
			ev = &notify.Hello{Next: c.seq + 1, Time: at, FSID: testFSID, RID: 1 + notify.ID(c.rnd.IntN(3)), Version: notify.Version2}
		case 1:
			ev = &notify.Lost{Cause: notify.LostAway | notify.LostUnattended, Unknown: true, Time: at}
		case 2:
			c.seq++
			ev = &notify.Lost{First: c.seq, Last: c.seq, Count: 1, Cause: notify.LostQueue, Time: at}
		case 3:
			ev = &notify.Idle{Seq: c.seq, Time: at}
		case 4:
			ev = &notify.End{Seq: c.seq, Reason: notify.EndStopping, Time: at}
			if c.rnd.IntN(2) == 0 {
				ev = &brokeOff
			}
		default:
			c.seq++
			rec := opened(c.seq, 1+c.rnd.Uint64N(20), c.at)
			e := access(rec)
			if old, ok := c.want[rec.Ino]; ok {
				old.add(&e)
				e = old
			}
			c.want[rec.Ino] = e
			ev = rec
		}
		if err := c.s.Write(encode(c.t, ev)); err != nil {
			c.t.Error(err)
		}
		c.states = append(c.states, c.state(c.s))
	}
	if c.rnd.IntN(4) == 0 {
		n := Notice{Boot: "boot", Offset: time.Duration(c.rnd.IntN(3)) * time.Hour, Now: c.at, Excluded: c.rnd.Uint64N(3)}
		if err := c.s.Look(n); err != nil {
			c.t.Error(err)
		}
		c.states = append(c.states, c.state(c.s))
	}
}

var errSync = errors.New("the folder cannot be synced")

// sync makes names last, or fails to at times: then what was renamed is there all the same,
// until the machine ends.
func (c *crashes) sync(dir string) error {
	if c.rnd.IntN(4) == 0 {
		c.failed++
		return errSync
	}
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		c.t.Error(err)
	}
	c.synced = b
	return syncDir(dir)
}

// flush flushes and merges. What fails is that the folder cannot be synced, if anything does.
func (c *crashes) flush() {
	c.t.Helper()
	if err := c.s.flush(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.s.endFlush(<-c.s.flushed); err != nil && !errors.Is(err, errSync) {
		c.t.Fatal(err)
	}
	c.s.mergers.Wait()
	if err := c.s.failure(); err != nil && !errors.Is(err, errSync) {
		c.t.Fatal(err)
	}
}

// point is called after each change on disk.
func (c *crashes) point(what string) {
	c.points[what]++
	switch what {
	case "seal", "journal":
	default: // on another goroutine than the one that writes, which waits just now
		c.write()
	}
	if s := c.restart(what, nil); s != nil {
		c.compare(what, s)
		s.release()
	}
	// What was not written to disk yet is lost with the machine, in any of the journals, and
	// so may be the last manifests.
	s := c.restart(what, func(name string, b []byte) []byte {
		if name == manifestName && c.rnd.IntN(2) == 0 {
			return c.synced
		}
		if !strings.HasPrefix(name, "journal-") || c.rnd.IntN(2) == 0 {
			return b
		}
		if c.rnd.IntN(2) == 0 {
			return b[:c.rnd.IntN(len(b)+1)]
		}
		ends := frameEnds(b)
		return b[:ends[c.rnd.IntN(len(ends))]]
	})
	if s != nil {
		if got := c.state(s); !slices.Contains(c.states, got) {
			c.t.Errorf("%s: after a loss of power a start goes on with\n%s\nwhich it never was at", what, got)
		}
		s.release()
	}
}

// compare compares a store that was opened with what was written.
func (c *crashes) compare(what string, s *Store) {
	if got, want := c.state(s), c.states[len(c.states)-1]; got != want {
		c.t.Errorf("%s: a start goes on with\n%s\nand not with\n%s", what, got, want)
	}
	v, err := OpenView(s.dir, testFSID)
	if err != nil {
		c.t.Errorf("%s: %v", what, err)
		return
	}
	defer v.Close()
	got := 0
	err = All([]*View{v}, func(e *Entry) error {
		got++
		if *e != c.want[e.Ino] {
			c.t.Errorf("%s: %+v, not %+v", what, *e, c.want[e.Ino])
		}
		return nil
	})
	if err != nil || got != len(c.want) {
		c.t.Errorf("%s: %d inodes, not %d: %v", what, got, len(c.want), err)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "seg-*"))
	if err != nil || len(files) != len(s.manifest.Segments) {
		c.t.Errorf("%s: %d files are left for %d segments: %v", what, len(files), len(s.manifest.Segments), err)
	}
}

// frameEnds returns where the frames of a journal end, and 0.
func frameEnds(b []byte) []int {
	ends := []int{0}
	for end := 0; end < len(b); {
		end += frameHead + int(binary.LittleEndian.Uint32(b[end:]))
		ends = append(ends, end)
	}
	return ends
}

// restart opens a copy of the store, with files cut off. It returns nil if it cannot: this
// may be a goroutine that has to go on.
func (c *crashes) restart(what string, cut func(name string, b []byte) []byte) *Store {
	s, err := func() (*Store, error) {
		if err := errors.Join(os.RemoveAll(c.copies), os.Mkdir(c.copies, 0o700)); err != nil {
			return nil, err
		}
		names, err := os.ReadDir(c.s.dir)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(c.s.dir, n.Name()))
			if err != nil {
				return nil, err
			}
			if cut != nil {
				b = cut(n.Name(), b)
			}
			if err := os.WriteFile(filepath.Join(c.copies, n.Name()), b, 0o600); err != nil {
				return nil, err
			}
		}
		return Open(c.copies, testFSID, Limits{})
	}()
	if err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
	return s
}

// Wherever the process is killed, between any two changes on disk of flushes and merges, a
// start goes on with exactly what was written; and with what was written at some earlier
// time, if the machine ends and only a part is on disk. So it is where a manifest was
// replaced and the folder could not be synced.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	s, now := testStore(t, dir, Limits{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &crashes{
		t: t, s: s, rnd: rand.New(rand.NewPCG(seed, 3)), at: testStart, want: make(map[uint64]Entry),
		points: make(map[string]int), copies: filepath.Join(filepath.Dir(dir), "copy"),
	}
	c.states = append(c.states, c.state(s))
	var err error
	if c.synced, err = os.ReadFile(filepath.Join(dir, manifestName)); err != nil {
		t.Fatal(err)
	}
	s.changed, s.syncDir = c.point, c.sync
	for range 30 {
		c.write()
		c.flush()
		*now = now.Add(13 * time.Minute)
		if t.Failed() {
			break
		}
	}
	s.changed, s.syncDir = nil, syncDir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s := c.restart("end", nil); s != nil {
		c.compare("end", s)
		s.release()
	}
	t.Logf("%v, %d syncs failed", c.points, c.failed)
	if len(c.points) != 8 && !t.Failed() {
		t.Errorf("it was at %d kinds of points only: %v", len(c.points), c.points)
	}
}
