// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whatever is in a segment, reading it ends, with an error or not.
func FuzzSegment(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seg")
	w, err := createSegment(path, testFSID)
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(3000) {
		e := Entry{Ino: i * 3, First: testStart, Last: testStart + Millis(i), Opens: i, Reads: 1, Bytes: 1 << 40, UID: uint32(i), Type: 2}
		if err := w.add(&e); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := w.finish(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "seg")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openSegment(path, testFSID)
		if err != nil {
			return
		}
		defer r.close()
		var e Entry
		for {
			if err := r.read(&e); err != nil {
				if err != io.EOF && !errors.Is(err, ErrDamaged) {
					t.Errorf("read: %v", err)
				}
				break
			}
		}
		if _, err := r.find(7, &e); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("find: %v", err)
		}
	})
}

// Whatever is in a block, decoding it does not panic: the checksum is no secret.
func FuzzEntry(f *testing.F) {
	e := Entry{Ino: 5, First: 1, Last: 2, Opens: 3, Reads: 4, Bytes: 5, UID: 6, GID: 7, PID: 8, Type: 1}
	f.Add(appendEntry(nil, &e, 0, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		for len(b) > 0 {
			rest, err := decodeEntry(b, &e, 0, 100)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

// Whatever follows the good frames of a journal, they are what is taken.
func FuzzJournal(f *testing.F) {
	good := appendFrame(nil, frameEvents, encode(f, hello(testStart), opened(1, 7, testStart+5)))
	good = appendFrame(good, frameNote, []byte(`{"boot":"x","offset_ns":5,"now":6}`))
	f.Add([]byte{})
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, tail []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, append(good[:len(good):len(good)], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		var l log
		whole, err := readJournal(path, l.take)
		if whole < int64(len(good)) || err == nil && l.node.Records < 1 {
			t.Errorf("%d bytes of %d taken: %v", whole, len(good), err)
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}

func TestParseStat(t *testing.T) {
	comm, start, ok := parseStat([]byte("12 (a) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	if comm != "a) b" || start != 42420*time.Millisecond || !ok {
		t.Errorf("%q, %v, %v", comm, start, ok)
	}
}
