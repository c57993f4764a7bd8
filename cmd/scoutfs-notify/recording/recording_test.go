// SPDX-License-Identifier: GPL-2.0-only

package recording

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const envRecorder = "TEST_RECORDER" // the file that the test binary records to

func TestMain(m *testing.M) {
	if path := os.Getenv(envRecorder); path != "" {
		fmt.Fprintln(os.Stderr, record(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// record records for as long as it may, and says what is in the file.
func record(path string) error {
	w, err := Append(path)
	if err != nil {
		return err
	}
	hello := &notify.Hello{Next: w.Place().Seq + 1, RID: 7, FSID: 1, Time: time.Unix(1, 0).UTC()}
	if err := w.Write(hello); err != nil {
		return err
	}
	for seq := hello.Next; ; seq++ {
		w.Name(Path, seq%10, fmt.Sprint("file ", seq%10))
		if err := w.Write(&notify.Record{Seq: seq, Ino: seq % 10, Type: notify.TypeRead}); err != nil {
			return err
		}
		if seq%100 == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
			fmt.Println(seq)
		}
	}
}

var second = time.Unix(1700000000, 5).UTC()

// all are events of each kind.
func all() []notify.Event {
	return []notify.Event{
		&notify.Hello{Next: 5, RID: 0xaa, FSID: 0xbb, Time: second, DaemonStart: second, ReaderStart: second, Device: notify.Device{Major: 1, Minor: 2}, Version: 2},
		&notify.Record{Seq: 5, TimeNS: 9, Ino: 42, PID: 7, TID: 8, UID: 1000, GID: 100, OpenFlags: 1, Type: notify.TypeOpen},
		&notify.Record{Seq: 6, TimeNS: 10, Ino: 43, Offset: 1 << 63, Length: 1<<64 - 1, PID: 7, Type: notify.TypeRead, Flags: 3},
		&notify.Lost{First: 7, Last: 9, Count: 3, AtMost: true, Unknown: true, Cause: notify.LostQueue, Time: second},
		&notify.Idle{Seq: 9, Time: second},
		&notify.End{Seq: 9, Reason: notify.EndRestarting, Time: second},
	}
}

// readAll returns copies of all events of a recording.
func readAll(r *Reader) (events []notify.Event, err error) {
	for ev, err := range r.Events(context.Background()) {
		if err != nil {
			return events, err
		}
		if rec, ok := ev.(*notify.Record); ok {
			c := *rec
			ev = &c
		}
		events = append(events, ev)
	}
	return events, nil
}

func readFile(t *testing.T, path string) ([]notify.Event, error) {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return readAll(r)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, events ...notify.Event) {
	t.Helper()
	w, err := Append(path)
	must(t, err)
	for _, ev := range events {
		must(t, w.Write(ev))
	}
	must(t, w.Close())
}

// What is written is read, over several sessions and files, and a Waiting is left out.
func TestEvents(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	write(t, a)
	write(t, a, all()...)
	write(t, a, &notify.Waiting{Err: os.ErrNotExist})
	write(t, a, all()...)
	write(t, b, all()...)
	want := append(all(), all()...)
	if got, err := readFile(t, a); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
	}
	first, err := os.ReadFile(a)
	must(t, err)
	last, err := os.ReadFile(b)
	must(t, err)
	r, err := NewReader(bytes.NewReader(append(first, last...)), "both")
	must(t, err)
	if got, err := readAll(r); err != nil || !reflect.DeepEqual(got, append(want, all()...)) {
		t.Errorf("put together: %v\n%+v", err, got)
	}
	if fi, err := os.Stat(a); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v: it says who read what, and has the mode %v", err, fi.Mode())
	}
}

// A recording that goes on can be read up to what was flushed, which is at the latest
// after FlushTime.
func TestFlush(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	w, err := Append(path)
	must(t, err)
	defer w.Close()
	if got, err := readFile(t, path); err != nil || got != nil {
		t.Errorf("before the first event: %v, %v", got, err)
	}
	must(t, w.Write(all()[0]))
	for end := time.Now().Add(10 * FlushTime); ; time.Sleep(FlushTime / 20) {
		got, err := readFile(t, path)
		if len(got) == 1 && errors.Is(err, ErrUnfinished) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v, %v", got, err)
		}
	}
}

// Where a stream has come to, so that nothing is untold after going on from there.
func TestPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	hello := func(rid notify.ID, next uint64) notify.Event { return &notify.Hello{RID: rid, Next: next} }
	steps := []struct {
		ev   notify.Event
		want notify.Resume
	}{
		{hello(7, 5), notify.Resume{RID: 7, Seq: 4}},
		{&notify.Record{Seq: 5}, notify.Resume{RID: 7, Seq: 5}},
		{&notify.Lost{First: 6, Last: 9, Count: 4}, notify.Resume{RID: 7, Seq: 9}},
		{&notify.Lost{Unknown: true}, notify.Resume{RID: 7, Seq: 9}},
		{&notify.Idle{Seq: 12}, notify.Resume{RID: 7, Seq: 12}},
		{&notify.End{Seq: 13}, notify.Resume{RID: 7, Seq: 13}},
		// A loss may follow, which the next one must be told of if it does not come.
		{hello(7, 20), notify.Resume{RID: 7, Seq: 13}},
		{&notify.Lost{First: 14, Last: 19, Count: 6}, notify.Resume{RID: 7, Seq: 19}},
		{hello(8, 0), notify.Resume{RID: 7, Seq: 19}},
		{&notify.Lost{Unknown: true}, notify.Resume{RID: 8}},
		{&notify.Record{Seq: 1}, notify.Resume{RID: 8, Seq: 1}},
	}
	w, err := Append(path)
	must(t, err)
	if w.Place() != (notify.Resume{}) {
		t.Errorf("at the start: %+v", w.Place())
	}
	for i, s := range steps {
		must(t, w.Write(s.ev))
		if w.Place() != s.want {
			t.Errorf("after step %d: %+v, want %+v", i, w.Place(), s.want)
		}
	}
	must(t, w.Close())
	w, err = Append(path)
	must(t, err)
	defer w.Close()
	if want := steps[len(steps)-1].want; w.Place() != want {
		t.Errorf("opened again: %+v, want %+v", w.Place(), want)
	}
}

// A recording that goes on in another file starts there with a Hello that is true, and owes
// the same loss.
func TestFollow(t *testing.T) {
	hello := func(rid notify.ID, next uint64) notify.Event { return &notify.Hello{RID: rid, Next: next} }
	unmounted := []notify.Event{hello(7, 1000), &notify.Record{Seq: 1000}, &notify.End{Seq: 1000}}
	for _, tt := range []struct {
		name   string
		before []notify.Event
		next   uint64 // of the Hello
		at     notify.Resume
		then   notify.Event
		after  notify.Resume
	}{
		{"access", unmounted[:2], 1001, notify.Resume{RID: 7, Seq: 1000}, &notify.Record{Seq: 1001}, notify.Resume{RID: 7, Seq: 1001}},
		{"another mount", append(unmounted, hello(8, 1)), 1, notify.Resume{RID: 7, Seq: 1000}, &notify.Record{Seq: 1}, notify.Resume{RID: 8, Seq: 1}},
		{"another mount, and its loss", append(unmounted, hello(8, 4)), 4, notify.Resume{RID: 7, Seq: 1000}, &notify.Lost{Unknown: true}, notify.Resume{RID: 8, Seq: 3}},
		{"another mount, no number known", append(unmounted, hello(8, 0)), 0, notify.Resume{RID: 7, Seq: 1000}, &notify.Idle{}, notify.Resume{RID: 8}},
		{"restart", append(unmounted, hello(7, 1005)), 1005, notify.Resume{RID: 7, Seq: 1000}, &notify.Lost{First: 1001, Last: 1004, Count: 4}, notify.Resume{RID: 7, Seq: 1004}},
		{"the first Hello", unmounted[:1], 1000, notify.Resume{RID: 7, Seq: 999}, &notify.Record{Seq: 1000}, notify.Resume{RID: 7, Seq: 1000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			old, err := Append(filepath.Join(dir, "a"))
			must(t, err)
			for _, ev := range tt.before {
				must(t, old.Write(ev))
			}
			must(t, old.Close())
			w, err := Append(filepath.Join(dir, "b"))
			must(t, err)
			defer w.Close()
			h := w.Follow(old)
			if h == nil || h.Next != tt.next || h.RID != tt.after.RID {
				t.Fatalf("it starts with %+v, want mount %v and number %d", h, tt.after.RID, tt.next)
			}
			must(t, w.Write(h))
			if w.Place() != tt.at {
				t.Errorf("it starts at %+v, want %+v", w.Place(), tt.at)
			}
			must(t, w.Write(tt.then))
			if w.Place() != tt.after {
				t.Errorf("it goes on to %+v, want %+v", w.Place(), tt.after)
			}
		})
	}
	old, err := Append(filepath.Join(t.TempDir(), "a"))
	must(t, err)
	defer old.Close()
	w, err := Append(filepath.Join(t.TempDir(), "a"))
	must(t, err)
	defer w.Close()
	if h := w.Follow(old); h != nil || w.Place() != (notify.Resume{}) {
		t.Errorf("after no stream: %+v, %+v", h, w.Place())
	}
}

// Names belong to the events that follow them, whatever else has had the number.
func TestNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	w, err := Append(path)
	must(t, err)
	every := string(func() (b []byte) {
		for c := 1; c < 256; c++ {
			b = append(b, byte(c))
		}
		return b
	}())
	long := strings.Repeat("x", maxText)
	texts := []string{"a/b", "a/b", "", every, "c", "", long, "", long + "x"}
	for i, text := range texts {
		w.Name(Path, 42, text)
		w.Name(Command, 42, "cat")
		must(t, w.Write(&notify.Record{Seq: uint64(i + 1), Ino: 42, Type: notify.TypeRead}))
	}
	// More than a block may have.
	for i := range uint64(70) {
		w.Name(Path, i, long)
		must(t, w.Write(&notify.Record{Seq: 10 + i, Ino: i, Type: notify.TypeRead}))
	}
	must(t, w.Close())

	texts[8] = ""
	r, err := Open(path)
	must(t, err)
	defer r.Close()
	n := 0
	for ev, err := range r.Events(t.Context()) {
		must(t, err)
		rec := ev.(*notify.Record)
		want := long
		if n < len(texts) {
			want = texts[n]
			if c, ok := r.Name(Command, 42); !ok || c != "cat" {
				t.Errorf("event %d: command %q, %v", n, c, ok)
			}
		}
		if got, ok := r.Name(Path, rec.Ino); got != want || ok != (want != "") {
			t.Errorf("event %d: %.20q, %v, want %.20q", n, got, ok, want)
		}
		n++
	}
	if n != len(texts)+70 {
		t.Errorf("%d events", n)
	}
}

// small returns a recording of a few blocks, and where they end.
func small(t testing.TB) (file []byte, ends []int64) {
	path := filepath.Join(t.TempDir(), "a")
	w, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		ends = append(ends, w.Size())
		for j := range uint64(3) {
			w.Name(Path, j, fmt.Sprint("file ", j))
			w.Write(&notify.Record{Seq: uint64(i)*3 + j + 1, Ino: j, Type: notify.TypeRead})
		}
		w.Flush()
	}
	ends = append(ends, w.Size())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file, ends
}

// Wherever a file is cut off, its whole blocks are read, the end is missed, and it can
// be gone on with.
func TestCut(t *testing.T) {
	file, ends := small(t)
	path := filepath.Join(t.TempDir(), "a")
	for n := headerSize; n < len(file); n += 1 + n%7 {
		blocks := 0
		for blocks+1 < len(ends) && int64(n) >= ends[blocks+1] {
			blocks++
		}
		must(t, os.WriteFile(path, file[:n], 0o600))
		got, err := readFile(t, path)
		if len(got) != 3*blocks || (n > headerSize) != errors.Is(err, ErrUnfinished) {
			t.Fatalf("cut at %d: %d events, %v", n, len(got), err)
		}
		w, err := Append(path)
		must(t, err)
		if w.Place().Seq != uint64(3*blocks) {
			t.Fatalf("cut at %d: goes on after number %d", n, w.Place().Seq)
		}
		must(t, w.Write(&notify.Record{Seq: 100, Type: notify.TypeRead}))
		must(t, w.Close())
		if got, err := readFile(t, path); len(got) != 3*blocks+1 || err != nil {
			t.Fatalf("cut at %d and gone on with: %d events, %v", n, len(got), err)
		}
	}
}

// A byte that is changed is noticed, and no event is made up.
func TestDamage(t *testing.T) {
	file, _ := small(t)
	r, err := NewReader(bytes.NewReader(file), "whole")
	must(t, err)
	want, err := readAll(r)
	must(t, err)
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		r, err := NewReader(bytes.NewReader(bad), "bad")
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) || i >= headerSize {
				t.Errorf("byte %d: %v", i, err)
			}
			continue
		}
		got, err := readAll(r)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnfinished) {
			t.Errorf("byte %d: %d events, %v", i, len(got), err)
		}
		if len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Errorf("byte %d: %+v", i, got)
		}
	}
}

func TestForeign(t *testing.T) {
	file, _ := small(t)
	newer, swapped := bytes.Clone(file), bytes.Clone(file)
	binary.NativeEndian.PutUint32(newer[8:], 2)
	swapped[12], swapped[15] = swapped[15], swapped[12]
	for _, tt := range []struct {
		name, text string
		want       error
		is         bool
	}{
		{"text", "root:x:0:0:root:/root:/bin/sh\n", ErrFormat, false},
		{"short", "x", ErrFormat, false},
		{"newer", string(newer), ErrVersion, true},
		{"swapped", string(swapped), ErrVersion, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			must(t, os.WriteFile(path, []byte(tt.text), 0o600))
			_, err := Open(path)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if Is(path) != tt.is {
				t.Errorf("Is: %v", !tt.is)
			}
			// Nothing of it is overwritten.
			if _, err := Append(path); !errors.Is(err, tt.want) {
				t.Errorf("%v", err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != tt.text {
				t.Errorf("%v: changed", err)
			}
		})
	}
	if _, err := Append("/dev/null"); err == nil || Is("/dev/null") || Is(t.TempDir()) || Is("/nonexistent") {
		t.Errorf("/dev/null: %v", err)
	}
}

func TestTwoWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	w, err := Append(path)
	must(t, err)
	if _, err := Append(path); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second one: %v", err)
	}
	must(t, w.Close())
	if err := w.Write(all()[0]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	write(t, path)
}

// A write that fails leaves whole blocks, and is told.
func TestNoSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	w, err := Append(path)
	must(t, err)
	must(t, w.Write(all()[0]))
	must(t, w.Flush())
	w.f.Close()
	w.f, err = os.Open(path) // writing to it fails
	must(t, err)
	must(t, w.Write(all()[1]))
	if err := w.Flush(); err == nil {
		t.Error("no error")
	}
	if w.Write(all()[1]) == nil || w.Close() == nil {
		t.Error("it goes on after an error")
	}
	if got, err := readFile(t, path); len(got) != 1 || !errors.Is(err, ErrUnfinished) {
		t.Errorf("%v, %v", got, err)
	}
}

// Whenever a recorder is killed, all that it had flushed is there, in order and with its
// names, and the next one goes on where it was.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	told := uint64(0)
	for round := range 10 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envRecorder+"="+path)
		out, err := cmd.StdoutPipe()
		must(t, err)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		for range round + 1 {
			if _, err := fmt.Fscan(out, &told); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()

		r, err := Open(path)
		must(t, err)
		next, hellos := uint64(1), 0
		for ev, err := range r.Events(t.Context()) {
			if errors.Is(err, ErrUnfinished) {
				break
			}
			must(t, err)
			rec, ok := ev.(*notify.Record)
			if !ok {
				hellos++
				continue
			}
			if name, _ := r.Name(Path, rec.Ino); rec.Seq != next || name != fmt.Sprint("file ", rec.Ino) {
				t.Fatalf("round %d: number %d (%s), want %d", round, rec.Seq, name, next)
			}
			next++
		}
		must(t, r.Close())
		if next-1 < told || hellos > round+1 {
			t.Errorf("round %d: %d records of at least %d, and %d starts", round, next-1, told, hellos)
		}
	}
}

// FuzzReader: no bytes make it fail but with an error.
func FuzzReader(f *testing.F) {
	file, ends := small(f)
	f.Add(file)
	f.Add(file[:ends[1]])
	f.Add(append(bytes.Clone(file), file...))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A changed byte would not get far: the sums are right.
		for off := headerSize; off+blockHeaderSize <= len(b); {
			h := b[off : off+blockHeaderSize]
			size := int(binary.NativeEndian.Uint32(h[4:]))
			if size > len(b)-off-blockHeaderSize {
				break
			}
			binary.NativeEndian.PutUint32(h[32:], checksum(h[:32], b[off+blockHeaderSize:off+blockHeaderSize+size]))
			off += blockHeaderSize + size
		}
		r, err := NewReader(bytes.NewReader(b), "fuzz")
		if err != nil {
			return
		}
		_, readErr := readAll(r)
		path := filepath.Join(t.TempDir(), "a")
		must(t, os.WriteFile(path, b, 0o600))
		w, err := Append(path)
		if err != nil {
			return
		}
		must(t, w.Close())
		// What is not damaged can be gone on with, and is whole then.
		if _, err := readFile(t, path); readErr == nil && err != nil || errors.Is(readErr, ErrUnfinished) && err != nil {
			t.Errorf("%v, and after going on with it: %v", readErr, err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a")
	w, err := Append(path)
	if err != nil {
		b.Fatal(err)
	}
	rec := notify.Record{TimeNS: uint64(second.UnixNano()), Type: notify.TypeRead, Length: 4096, OpenFlags: 0x8000}
	b.SetBytes(notify.RecordSize)
	for b.Loop() {
		rec.Seq++
		rec.TimeNS += 20_000 + rec.Seq*2654435761%5000
		rec.Ino = 1000 + rec.Seq*2654435761%100_000
		rec.Offset = rec.Seq * 40503 % 256 << 12
		rec.PID = uint32(500 + rec.Seq/7%20)
		rec.TID = rec.PID
		if err := w.Write(&rec); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fi.Size())/float64(b.N), "file-B/op")
}
