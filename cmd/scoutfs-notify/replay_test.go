// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// recordEvents makes a recording of events.
func recordEvents(t *testing.T, events ...notify.Event) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a")
	w, err := recording.Append(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		if err := w.Write(ev); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A consumer of a replay gets what was recorded, over restarts and other mounts.
func TestReplay(t *testing.T) {
	at := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, TimeNS: 1700000000e9 + seq*1e6, Ino: seq, Type: notify.TypeOpen}
	}
	lost := &notify.Lost{First: 7, Last: 9, Count: 3, Cause: notify.LostQueue, Time: fakeNow}
	other := *hello(1)
	other.RID = 0x77
	remounted := &notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended, Time: fakeNow}
	file := recordEvents(t, hello(5), at(5), at(6), lost, at(10), &notify.End{Seq: 10, Reason: notify.EndRestarting, Time: fakeNow},
		hello(11), at(11), // the recorder was killed
		hello(12), at(12), &notify.End{Seq: 12, Reason: notify.EndUnmounted, Time: fakeNow},
		&other, remounted, at(1), at(2))
	for _, speed := range []string{"max", "1000"} {
		socket := filepath.Join(shortTempDir(t), notify.SocketName)
		done := make(chan string, 1)
		go func() {
			status, _, stderr := runCommand("replay", "-speed", speed, file, socket)
			done <- fmt.Sprint(status, " ", stderr)
		}()
		// Waiting, too, is what a consumer of the daemon sees.
		status, stdout, stderr := runCommand("tail", "-f", "-count", "7", "-json", socket)
		var got []string
		for line := range strings.Lines(outline(t, stdout)) {
			if !strings.HasPrefix(line, "waiting") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		want := "hello 5,open 5,open 6,lost 7,open 10,end 10,hello 11,open 11,hello 12,open 12,end 12,hello 1,lost 0,open 1,open 2"
		if text := strings.Join(got, ","); status != 0 || text != want {
			t.Errorf("%s: exit status %d, %s\ngot  %s\nwant %s", speed, status, stderr, text, want)
		}
		select {
		case end := <-done:
			if !strings.HasPrefix(end, "0 ") || !strings.Contains(end, "7 accesses sent") {
				t.Errorf("%s: replay: %s", speed, end)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("replay does not end")
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("the socket is left")
		}
	}
}

// It takes the time that it took, or a part of it.
func TestReplaySpeed(t *testing.T) {
	at := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, TimeNS: 1700000000e9 + seq*1e9, Ino: seq, Type: notify.TypeOpen}
	}
	file := recordEvents(t, hello(1), at(1), at(2), at(3), &notify.End{Seq: 3, Reason: notify.EndUnmounted, Time: time.Unix(1700000003, 0)})
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	go runCommand("replay", "-speed", "10", file, socket)
	begun := time.Now()
	if status, stdout, stderr := runCommand("tail", "-f", "-count", "3", socket); status != 0 || strings.Count(stdout, "open ino") != 3 {
		t.Errorf("exit status %d, %s%s", status, stdout, stderr)
	}
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("two seconds at 10 times the speed took %v", took)
	}
}

func TestReplayErrors(t *testing.T) {
	file := recordEvents(t, hello(1))
	empty := recordEvents(t)
	headless := recordEvents(t, &notify.Record{Seq: 1, Type: notify.TypeOpen})
	dir := shortTempDir(t)
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 64, "expected a recording and the path of a socket, got 0 arguments"},
		{[]string{file}, 64, "got 1 arguments"},
		{[]string{dir, dir + "/s"}, 64, dir + " is not a file"},
		{[]string{file, dir + "/none/s"}, 66, "serve " + dir + "/none/s: no such file or directory"},
		{[]string{file, file}, 1, "address already in use"},
		{[]string{"-speed", "0", file, dir + "/s"}, 64, "neither a number above 0 nor max"},
		{[]string{empty, dir + "/s"}, 1, "the recording has no stream"},
		{[]string{headless, dir + "/s"}, 1, "does not start with a stream"},
	} {
		status, _, stderr := runCommand(append([]string{"replay"}, tt.args...)...)
		if status != tt.status || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: exit status %d, %s", tt.args, status, stderr)
		}
	}
}

// socket prints where the daemon of a mount is, whether it runs or not.
func TestSocket(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "a\nb", notify.SocketName)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{path}, printable(path) + "\n"},
		{[]string{"-0", path}, path + "\x00"},
	} {
		if status, stdout, stderr := runCommand(append([]string{"socket"}, tt.args...)...); status != 0 || stdout != tt.want {
			t.Errorf("%q: exit status %d, %q, %s", tt.args, status, stdout, stderr)
		}
	}
	if status, _, stderr := runCommand("socket", t.TempDir()); status != 69 || !strings.Contains(stderr, "not a mounted ScoutFS") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}
