// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// vacuumStore returns a store in which 3,000 inodes were accessed long ago, and inode 2 and
// 9999 since.
func vacuumStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, now := testStore(t, dir, Limits{Hours: time.Hour, Days: time.Hour})
	mustWrite(t, s, hello(testStart))
	for ino := range uint64(3000) {
		mustWrite(t, s, opened(ino+1, ino+1, testStart+Millis(ino)))
	}
	mustFlush(t, s)
	*now = now.Add(4 * 24 * time.Hour)
	mustWrite(t, s, opened(3001, 2, MillisOf(*now)), opened(3002, 9999, MillisOf(*now)))
	mustFlush(t, s)
	return s
}

// walkOdd lists the odd inodes, newer ones first.
func walkOdd(seq uint64, f func(uint64)) error {
	if seq != everything {
		return errors.New("not all files")
	}
	for ino := uint64(5001); ino > 0; ino -= 2 {
		f(ino)
		if ino == 1 {
			break
		}
	}
	return nil
}

// existsFourth says that each fourth is there, though it was not listed.
func existsFourth(ino uint64) (bool, error) { return ino%4 == 0, nil }

// inodes returns all that a store has, with how often they were opened.
func inodes(t *testing.T, dir string) map[uint64]uint64 {
	t.Helper()
	out := make(map[uint64]uint64)
	if err := All([]*View{view(t, dir)}, func(e *Entry) error { out[e.Ino] = e.Opens; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// Inodes that are deleted go from what is old, and no others, when the store next writes.
func TestVacuum(t *testing.T) {
	dir := memoryDir(t)
	s := vacuumStore(t, dir)
	want := inodes(t, dir)
	// Of one that was killed.
	if err := os.WriteFile(filepath.Join(dir, goneName+".new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, gone, err := Vacuum(view(t, dir), walkOdd, existsFourth)
	if n != 3000 || gone != 750 || err != nil {
		t.Fatalf("%d of %d are deleted, not 750 of 3000: %v", gone, n, err)
	}
	if got := inodes(t, dir); !maps.Equal(got, want) {
		t.Errorf("the list alone has changed what is told: %d inodes", len(got))
	}
	mustWrite(t, s, opened(3003, 9999, testStart))
	want[9999]++
	maps.DeleteFunc(want, func(ino, _ uint64) bool { return ino%4 == 2 && ino <= 3000 })
	want[2] = 1 // the newer access
	mustFlush(t, s)
	if got := inodes(t, dir); !maps.Equal(got, want) {
		t.Errorf("%d inodes are left, not %d", len(got), len(want))
	}
	if v := view(t, dir); v.Vacuumed.Entries != 750 || v.Vacuumed.Time == 0 || v.Kept.Days != time.Hour {
		t.Errorf("the store says %+v, %+v", v.Vacuumed, v.Kept)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, goneName+"*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if n, gone, err := Vacuum(view(t, dir), walkOdd, existsFourth); n != 2250 || gone != 0 || err != nil {
		t.Errorf("again: %d of %d are deleted: %v", gone, n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := inodes(t, dir); !maps.Equal(got, want) {
		t.Errorf("at the end %d inodes are left, not %d", len(got), len(want))
	}
}

// What goes wrong with a list takes nothing from the store but what is deleted.
func TestVacuumFails(t *testing.T) {
	errTest := errors.New("test")
	for _, tt := range []struct {
		name   string
		walk   Walk
		exists func(uint64) (bool, error)
		lock   bool
		want   error
	}{
		{"walk", func(uint64, func(uint64)) error { return errTest }, existsFourth, false, errTest},
		{"look", walkOdd, func(ino uint64) (bool, error) { return false, map[bool]error{true: errTest}[ino > 2000] }, false, errTest},
		{"another", walkOdd, existsFourth, true, ErrVacuum},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := memoryDir(t)
			s := vacuumStore(t, dir)
			defer s.release()
			want := inodes(t, dir)
			if tt.lock {
				lock, err := lockFile(filepath.Join(dir, vacuumLock))
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
			}
			if _, _, err := Vacuum(view(t, dir), tt.walk, tt.exists); !errors.Is(err, tt.want) {
				t.Errorf("%v, not %v", err, tt.want)
			}
			mustFlush(t, s)
			if got := inodes(t, dir); !maps.Equal(got, want) {
				t.Errorf("%d inodes are left of %d", len(got), len(want))
			}
			if left, _ := filepath.Glob(filepath.Join(dir, goneName+"*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	for name, at := range map[string]int{"head": 3, "first block": segmentHead + 60, "index": -40} {
		t.Run("damaged "+name, func(t *testing.T) {
			dir := memoryDir(t)
			s := vacuumStore(t, dir)
			defer s.release()
			want := inodes(t, dir)
			if _, _, err := Vacuum(view(t, dir), walkOdd, existsFourth); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, goneName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[(at+len(b))%len(b)] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			mustFlush(t, s)
			if got := inodes(t, dir); !maps.Equal(got, want) {
				t.Errorf("%d inodes are left of %d", len(got), len(want))
			}
			if err := s.Maintain(); !errors.Is(err, ErrDamaged) {
				t.Errorf("told: %v", err)
			}
			mustFlush(t, s) // goes on
			if err := s.Maintain(); err != nil {
				t.Errorf("and then: %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the list is still there: %v", err)
			}
		})
	}
}

// A store of some days has nothing that is old, and a list that another has left for it is
// no harm.
func TestVacuumYoung(t *testing.T) {
	dir := memoryDir(t)
	s, now := testStore(t, dir, Limits{})
	mustWrite(t, s, hello(testStart), opened(1, 7, testStart))
	mustFlush(t, s)
	if n, gone, err := Vacuum(view(t, dir), walkOdd, existsFourth); n != 0 || gone != 0 || err != nil {
		t.Errorf("%d of %d are deleted: %v", gone, n, err)
	}
	old := filepath.Join(t.TempDir(), "old")
	other := vacuumStore(t, old)
	defer other.release()
	if _, _, err := Vacuum(view(t, old), walkOdd, existsFourth); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(old, goneName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, goneName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Minute)
	mustWrite(t, s, opened(2, 2, MillisOf(*now)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(inodes(t, dir))); !slices.Equal(got, []uint64{2, 7}) {
		t.Errorf("inodes are left: %v", got)
	}
}
