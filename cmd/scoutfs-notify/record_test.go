// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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
