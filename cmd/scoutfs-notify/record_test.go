// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// readRecording returns copies of what is in a recording.
func readRecording(t *testing.T, path string) (events []notify.Event) {
	t.Helper()
	r, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for ev, err := range r.Events(t.Context()) {
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if rec, ok := ev.(*notify.Record); ok {
			c := *rec
			ev = &c
		}
		events = append(events, ev)
	}
	return events
}

// session is what a fake daemon says to one connection.
type session []notify.Event

// sessions makes a fake daemon that says something else to each connection, the last again
// and again, and tells what each asks for.
func sessions(t *testing.T, all ...session) (socket string, asked func() []notify.Request) {
	t.Helper()
	var mu sync.Mutex
	var reqs []notify.Request
	socket = filepath.Join(shortTempDir(t), notify.SocketName)
	rawDaemon(t, socket, func(c *fakeClient) {
		mu.Lock()
		reqs = append(reqs, c.req)
		s := all[min(len(reqs), len(all))-1]
		mu.Unlock()
		c.say(s...)
	})
	return socket, func() []notify.Request {
		mu.Lock()
		defer mu.Unlock()
		return reqs
	}
}

func opened(seq uint64) notify.Event {
	return &notify.Record{Seq: seq, TimeNS: 1700000000e9 + seq, Ino: 42, PID: 1, Type: notify.TypeOpen, OpenFlags: 0x8000}
}

func hello(next uint64) *notify.Hello {
	h := *fakeHello
	h.Next = next
	return &h
}

// What is recorded is what the daemon said, over its restart and over two runs, and the
// second asks for what was missed since the first.
func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	away := &notify.Lost{First: 7, Last: 9, Count: 3, Cause: notify.LostAway, Time: fakeNow}
	end := &notify.End{Seq: 6, Reason: notify.EndRestarting, Time: fakeNow}
	socket, asked := sessions(t, session{hello(5), opened(5), opened(6), end}, session{hello(10), away, opened(10)}, session{hello(12), opened(12), opened(13)})
	status, stdout, stderr := runCommand("record", "-count", "3", path, socket)
	if status != 0 || stdout != "" || !strings.Contains(stderr, "record: 3 accesses, lost 3 records (away), in "+path) {
		t.Errorf("exit status %d, %s%s", status, stdout, stderr)
	}
	want := []notify.Event{hello(5), opened(5), opened(6), end, hello(10), away, opened(10)}
	if got := readRecording(t, path); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if status, _, stderr := runCommand("record", path, socket, "-count=2"); status != 0 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	want = append(want, hello(12), opened(12), opened(13))
	if got := readRecording(t, path); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	reqs := asked()
	for i, want := range []notify.Resume{{}, {RID: fakeHello.RID, Seq: 6}, {RID: fakeHello.RID, Seq: 10}} {
		if reqs[i].Resume != want || reqs[i].Idle != recordIdle {
			t.Errorf("connection %d asks for %+v, %v, want %+v", i, reqs[i].Resume, reqs[i].Idle, want)
		}
	}
}

// tail prints a recording as it prints a mount.
func TestTailRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	lost := &notify.Lost{First: 7, Last: 23, Count: 17, Cause: notify.LostQueue, Time: fakeNow}
	s := session{hello(5), &sampleRecords[0], &sampleRecords[1], lost, &sampleRecords[2], &notify.End{Seq: 24, Reason: notify.EndUnmounted, Time: fakeNow}}
	socket, _ := sessions(t, s)
	if status, _, stderr := runCommand("record", "-count=3", path, socket); status != 0 {
		t.Fatal(stderr)
	}
	for _, args := range [][]string{{"-json"}, {}, {"-type", "read", "-json"}} {
		_, live, _ := runCommand(append([]string{"tail", "-count=3", socket}, args...)...)
		_, got, stderr := runCommand(append([]string{"tail", path}, args...)...)
		if len(args) == 3 { // the fake daemon does not filter
			lines := strings.SplitAfter(live, "\n")
			live = strings.ReplaceAll(lines[0]+strings.Join(lines[2:], ""), `"at_most":false`, `"at_most":true`)
		}
		if got != live || stderr != "" {
			t.Errorf("%q: got\n%s%s\nwant\n%s", args, got, stderr, live)
		}
	}
	if status, _, stderr := runCommand("tail", "-f", path); status != 64 || !strings.Contains(stderr, "-f is for mounts") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	// All that can be read is printed before it says what is missing.
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file[:len(file)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := runCommand("tail", path)
	if status != 1 || strings.Count(stdout, "\n") != 4 || !strings.Contains(stderr, "the recording has no end") {
		t.Errorf("exit status %d, %s%s", status, stdout, stderr)
	}
}

// Files that are rotated are whole by themselves, nothing is lost between them, and the
// oldest go.
func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	s := session{hello(1)}
	const n = 17000
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	rawDaemon(t, socket, func(c *fakeClient) {
		c.say(s...)
		for seq := uint64(1); seq <= n; seq += 500 {
			var events []notify.Event
			for i := range uint64(500) {
				events = append(events, opened(seq+i))
			}
			c.say(events...)
		}
	})
	args := []string{"record", "-count", fmt.Sprint(n), "-rotate-size", "1K", path, socket}
	if status, _, stderr := runCommand(args...); status != 0 || !strings.Contains(stderr, "in "+path+" and ") {
		t.Fatalf("exit status %d, %s", status, stderr)
	}
	r := &recorder{path: path}
	files, err := r.rotated()
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	next := uint64(1)
	for _, file := range append(files, path) {
		for i, ev := range readRecording(t, file) {
			switch ev := ev.(type) {
			case *notify.Hello:
				if i != 0 || ev.Next != next || ev.RID != fakeHello.RID {
					t.Errorf("%s: event %d: %+v, want number %d", file, i, ev, next)
				}
			case *notify.Record:
				if i == 0 || ev.Seq != next {
					t.Fatalf("%s: event %d is number %d, want %d", file, i, ev.Seq, next)
				}
				next++
			}
		}
	}
	if next != n+1 {
		t.Errorf("%d records", next-1)
	}

	// The file itself is gone: it goes on after the newest of the others.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	at, err := recording.PlaceOf(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	other, asked := sessions(t, session{hello(n + 1), opened(n + 1)})
	if status, _, stderr := runCommand("record", "-count=1", path, other); status != 0 || asked()[0].Resume != at {
		t.Errorf("exit status %d, asks for %+v, want %+v: %s", status, asked()[0].Resume, at, stderr)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(path+".notes", nil, 0o600)
	if status, _, stderr := runCommand(append(args, "-keep", "2")...); status != 0 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if files, err := r.rotated(); err != nil || len(files) != 2 {
		t.Errorf("%q, %v", files, err)
	}
	if _, err := os.Stat(path + ".notes"); err != nil {
		t.Error(err)
	}
}

// rotatedFiles returns the files that were rotated, in the order in which they were.
func rotatedFiles(t *testing.T, path string) []string {
	t.Helper()
	files, err := (&recorder{path: path}).rotated()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Another mount has its own numbers, in each file, wherever the old one ends: each can be
// replayed, and the next run asks for what is missing from there.
func TestRotateRemounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	other := *hello(1)
	other.RID = 0x77
	remounted := &notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended, Time: fakeNow}
	end := &notify.End{Seq: 1000, Reason: notify.EndUnmounted, Time: fakeNow}
	restarted := other
	restarted.Next = 4
	socket, asked := sessions(t, session{hello(1000), opened(1000), end}, session{&other, remounted, opened(1), opened(2), opened(3)}, session{&restarted, opened(4)})
	// Each event but the end of a stream is in a file of its own.
	if status, _, stderr := runCommand("record", "-rotate-age", "1ns", "-count", "4", path, socket); status != 0 {
		t.Fatalf("exit status %d, %s", status, stderr)
	}
	before, after := notify.Resume{RID: fakeHello.RID, Seq: 1000}, func(seq uint64) notify.Resume { return notify.Resume{RID: other.RID, Seq: seq} }
	want := []struct {
		rid    notify.ID
		next   uint64
		events []notify.Event
		place  notify.Resume
	}{
		{fakeHello.RID, 1000, nil, notify.Resume{RID: fakeHello.RID, Seq: 999}},
		{fakeHello.RID, 1000, []notify.Event{opened(1000), end}, before},
		{other.RID, 1, nil, before}, // a loss may follow
		{other.RID, 1, []notify.Event{remounted}, after(0)},
		{other.RID, 1, []notify.Event{opened(1)}, after(1)},
		{other.RID, 2, []notify.Event{opened(2)}, after(2)},
		{other.RID, 3, []notify.Event{opened(3)}, after(3)},
	}
	files := append(rotatedFiles(t, path), path)
	if len(files) != len(want) {
		t.Fatalf("%q, not %d files", files, len(want))
	}
	for i, file := range files {
		events := readRecording(t, file)
		h, ok := events[0].(*notify.Hello)
		if w := want[i]; !ok || h.RID != w.rid || h.Next != w.next || !reflect.DeepEqual(events[1:], append([]notify.Event{}, w.events...)) {
			t.Errorf("file %d has %+v, want mount %v from number %d and %+v", i, events, w.rid, w.next, w.events)
		}
		if at, err := recording.PlaceOf(file); err != nil || at != want[i].place {
			t.Errorf("file %d ends at %+v, %v, want %+v", i, at, err, want[i].place)
		}
	}
	if status, _, stderr := runCommand("record", "-count", "1", path, socket); status != 0 || asked()[2].Resume != after(3) {
		t.Errorf("exit status %d, the next run asks for %+v, want %+v: %s", status, asked()[2].Resume, after(3), stderr)
	}
}

// The newest files are kept, and gone on with, whatever the clock was when others were
// rotated.
func TestRotateClock(t *testing.T) {
	socket, asked := sessions(t, session{hello(1), opened(1), opened(2), opened(3), opened(4), opened(5)})
	day := 24 * time.Hour
	for name, ahead := range map[string]time.Duration{"right": -day, "ahead": day, "decades ahead": 70 * 365 * day} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			was := time.Now().UTC().Add(ahead)
			for i := range time.Duration(3) {
				if err := os.WriteFile(path+"."+was.Add(i*time.Hour).Format(rotatedTime), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, other := range []string{path + ".20261127T120000,000000000Z", path + ".20261127T120000Z", path + "b.20261127T120000.000000000Z"} {
				if err := os.WriteFile(other, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				defer func() {
					if _, err := os.Stat(other); err != nil {
						t.Error(err)
					}
				}()
			}
			if status, _, stderr := runCommand("record", "-rotate-age", "1ns", "-keep", "2", "-count", "5", path, socket); status != 0 {
				t.Fatalf("exit status %d, %s", status, stderr)
			}
			files := rotatedFiles(t, path)
			if len(files) != 2 {
				t.Fatalf("%q are left", files)
			}
			for i, file := range append(files, path) {
				events := readRecording(t, file)
				if rec, ok := events[len(events)-1].(*notify.Record); !ok || rec.Seq != uint64(3+i) {
					t.Errorf("%s has %+v, want number %d", file, events, 3+i)
				}
			}
			// The newest is found without the file that it came from.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			before := len(asked())
			want := notify.Resume{RID: fakeHello.RID, Seq: 4}
			if status, _, stderr := runCommand("record", "-count", "1", path, socket); status != 0 || asked()[before].Resume != want {
				t.Errorf("exit status %d, it goes on at %+v, want %+v: %s", status, asked()[before].Resume, want, stderr)
			}
		})
	}
}

// A rotation that fails says why, and leaves a recording that is whole and can be closed.
func TestRotateFails(t *testing.T) {
	noFiles := func(t *testing.T) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		none := limit
		none.Cur = 0
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	}
	for _, tt := range []struct {
		name  string
		fails func(t *testing.T, r *recorder) // just before the file gets its other name
		want  error
		text  string
		kept  bool // what was recorded can be read
	}{
		{"rename", func(t *testing.T, r *recorder) { os.Remove(r.path) }, os.ErrNotExist, "it was moved or deleted; start the recorder again", false},
		{"append", func(t *testing.T, r *recorder) { noFiles(t) }, unix.EMFILE, "open ", true},
		{"close", func(t *testing.T, r *recorder) { r.w.Close() }, os.ErrClosed, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			env := systemEnvironment()
			r := &recorder{env: env, path: path, rotateAge: 1}
			var err error
			if r.w, err = recording.Append(path); err != nil {
				t.Fatal(err)
			}
			for _, ev := range []notify.Event{hello(5), opened(5)} {
				if err := r.w.Write(ev); err != nil {
					t.Fatal(err)
				}
			}
			t.Run("it", func(t *testing.T) {
				env.now = func() time.Time {
					tt.fails(t, r)
					return time.Now()
				}
				err = r.keepEvent(t.Context(), nil, &notify.Idle{Seq: 5, Time: fakeNow}, false)
			})
			if !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "rotate recording "+path+": ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%v", err)
			}
			r.w.Close() // as run does
			if !tt.kept {
				return
			}
			files := rotatedFiles(t, path)
			if len(files) != 1 {
				t.Fatalf("%q are there", files)
			}
			if events := readRecording(t, files[0]); len(events) != 2 {
				t.Errorf("%+v are there", events)
			}
			// The next run goes on after what is in the file.
			if r.w, err = recording.Append(path); err != nil {
				t.Fatal(err)
			}
			defer r.w.Close()
			if at, err := r.place(); err != nil || at != (notify.Resume{RID: fakeHello.RID, Seq: 5}) {
				t.Errorf("it goes on at %+v, %v", at, err)
			}
		})
	}
}

// A failure to close does not hide what failed before.
func TestRecordFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	rawDaemon(t, socket, func(c *fakeClient) {
		os.Remove(path)
		c.say(hello(5), opened(5), opened(6))
	})
	status, _, stderr := runCommand("record", "-rotate-age", "1ns", path, socket)
	if status != 66 || !strings.Contains(stderr, "rotate recording "+path+": rename "+path+" ") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

// What the recorder leaves out by itself is not missing for its next run.
func TestRecordSkips(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	again := false
	rawDaemon(t, socket, func(c *fakeClient) {
		if again {
			cancel()
			return
		}
		again = true
		c.say(hello(5), opened(5), opened(6)) // by nobody who is known, so long ago
	})
	env := systemEnvironment()
	env.stderr = io.Discard
	status := run(ctx, env, []string{"record", "-comm", "nobody", path, socket})
	at, err := recording.PlaceOf(path)
	if want := (notify.Resume{RID: fakeHello.RID, Seq: 6}); status != 0 || err != nil || at != want {
		t.Errorf("exit status %d, it has come to %+v, %v, want %+v", status, at, err, want)
	}
	if events := readRecording(t, path); len(events) != 1 {
		t.Errorf("it has %+v", events)
	}
}

// It ends in good order when it is interrupted, and says what it has.
func TestRecordInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	served := make(chan struct{})
	socket := fakeDaemon(t, func(c *fakeClient) {
		c.say(opened(5))
		var b [1]byte
		close(served)
		c.Read(b[:]) // until it leaves
	})
	cmd := commandLine("record", path, socket)
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-served
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if fi, err := os.Stat(path); err == nil && fi.Size() > 16 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it records nothing")
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || !strings.Contains(errs.String(), "1 accesses, lost nothing") {
		t.Errorf("%v: %s", err, &errs)
	}
	if got := readRecording(t, path); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestRecordErrors(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, []byte("#!/bin/sh\nexit 0 # longer than a header\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := fakeDaemon(t, func(*fakeClient) {})
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 64, "a file to record to is missing"},
		{[]string{""}, 64, "a file to record to is missing"},
		{[]string{foreign, socket}, 66, "append to recording " + foreign + ": not a recording"},
		{[]string{dir, socket}, 1, "is a directory"},
		{[]string{dir + "/none/a", socket}, 66, "no such file or directory"},
		{[]string{dir + "/a", foreign}, 64, "is a file, not a mount"},
		{[]string{dir + "/a", socket, "x"}, 64, "expected one mount point, got 2"},
		{[]string{"-rotate-size", "1X", dir + "/a", socket}, 64, "a size is a number of bytes"},
	} {
		status, _, stderr := runCommand(append([]string{"record"}, tt.args...)...)
		if status != tt.status || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: exit status %d, %s", tt.args, status, stderr)
		}
	}
}

// A process that lives is asked for its name once, and not again for each record.
func TestAlive(t *testing.T) {
	env := systemEnvironment()
	a := newAlive(env)
	defer a.close()
	if !a.usable {
		t.Skip("skipped: in another pid namespace there are no names")
	}
	self := uint32(os.Getpid())
	now := func() uint64 { return uint64(time.Now().UnixNano()) }
	want, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	var first *living
	for i := range 100 {
		rec := notify.Record{PID: self, TimeNS: now()}
		if got := a.name(&rec); got+"\n" != string(want) {
			t.Fatalf("record %d: %q, want %q", i, got, want)
		}
		if first == nil {
			first = a.kept[self]
		}
	}
	if first.fd >= 0 && a.kept[self] != first {
		t.Error("it is looked up again")
	}
	// One that has ended, and one that started after its record.
	cmd := commandLine()
	cmd.Env = append(cmd.Env, asIdle+"=1")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	rec := notify.Record{PID: uint32(cmd.Process.Pid), TimeNS: now() - uint64(time.Hour)}
	if got := a.name(&rec); got != "" {
		t.Errorf("a process that started later: %q", got)
	}
	rec.TimeNS = now()
	if got := a.name(&rec); got == "" {
		t.Error("no name for one that lives")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got := a.name(&rec); got == "" {
		t.Error("no name for a record of before it ended")
	}
	rec.TimeNS = now()
	if got := a.name(&rec); got != "" {
		t.Errorf("one that has ended: %q", got)
	}
	// No descriptor is left, however many there are.
	a.sweep(time.Now())
	a.sweep(time.Now())
	if len(a.kept) != 0 {
		t.Errorf("%d are kept", len(a.kept))
	}
}
