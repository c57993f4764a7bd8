// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// followReplay replays a recording to a consumer that wants all there is, and returns what
// that sees, to the end of the last of its streams, and what replay says.
func followReplay(t *testing.T, streams int, args ...string) (events []string, status int, stderr string) {
	t.Helper()
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	replayed, stop := context.WithCancel(ctx)
	defer stop()
	env := systemEnvironment()
	var errs strings.Builder
	env.stderr = &errs
	done := make(chan struct{})
	go func() {
		status = run(replayed, env, append(append([]string{"replay", "-speed", "max"}, args...), socket))
		close(done)
	}()
	for ev, err := range notify.Follow(ctx, socket, nil) {
		switch ev := ev.(type) {
		case *notify.Hello:
			streams--
			events = append(events, fmt.Sprintf("mount %d: next %d", ev.RID, ev.Next))
		case *notify.Record:
			events = append(events, fmt.Sprintf("%v %d", ev.Type, ev.Seq))
		case *notify.Lost:
			events = append(events, fmt.Sprintf("%v %d-%d", ev, ev.First, ev.Last))
		case *notify.Idle:
			events = append(events, fmt.Sprintf("idle %d", ev.Seq))
		case *notify.End:
			events = append(events, fmt.Sprintf("end %d", ev.Seq))
			if streams == 0 {
				cancel()
			}
		case nil:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
				stop() // it would wait for the consumer
			}
		}
	}
	<-done
	return events, status, errs.String()
}

// What a filter leaves out is not lost: what is left is numbered anew, so that it is a
// stream of all there is. What was lost is lost, and as much of it.
func TestReplayFiltered(t *testing.T) {
	op := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, TimeNS: 1700000000e9 + seq*1e6, Ino: seq, Type: notify.TypeOpen}
	}
	rd := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, TimeNS: 1700000000e9 + seq*1e6, Ino: seq, Length: 1, Type: notify.TypeRead}
	}
	start := func(rid notify.ID, next uint64) notify.Event {
		return &notify.Hello{RID: rid, Next: next, Time: fakeNow, DaemonStart: fakeNow, ReaderStart: fakeNow, Version: notify.Version2}
	}
	lost := func(first, last, count uint64, atMost bool, why notify.Cause) notify.Event {
		return &notify.Lost{First: first, Last: last, Count: count, AtMost: atMost, Cause: why, Time: fakeNow}
	}
	idle := func(seq uint64) notify.Event { return &notify.Idle{Seq: seq, Time: fakeNow} }
	end := func(seq uint64) notify.Event {
		return &notify.End{Seq: seq, Reason: notify.EndRestarting, Time: fakeNow}
	}
	for _, tt := range []struct {
		name   string
		args   []string
		events []notify.Event
		want   string
	}{
		{"nothing left out", nil, []notify.Event{start(7, 5), op(5), rd(6), lost(7, 9, 3, false, notify.LostQueue), op(10), idle(10), end(10), start(7, 13), lost(11, 12, 2, false, notify.LostAway), op(13)},
			"mount 7: next 5; open 5; read 6; lost 3 records (queue) 7-9; open 10; idle 10; end 10; mount 7: next 13; lost 2 records (away) 11-12; open 13; end 13"},
		{"by replay", []string{"-type", "read"}, []notify.Event{start(7, 5), op(5), rd(6), op(7), rd(8), lost(9, 11, 3, false, notify.LostKernel), op(12), idle(12), rd(13), op(14), end(14)},
			"mount 7: next 5; read 5; read 6; lost at most 3 records (kernel) 7-9; idle 9; read 10; end 10"},
		{"all by replay", []string{"-type", "read"}, []notify.Event{start(7, 5), op(5), idle(5), op(6), end(6)}, "mount 7: next 5; idle 4; end 4"},
		{"by the recorder", nil, []notify.Event{start(7, 5), rd(6), lost(8, 20, 4, false, notify.LostQueue), lost(22, 23, 2, true, notify.LostKernel), rd(30), idle(31), end(32)},
			"mount 7: next 5; read 5; lost 4 records (queue) 6-9; lost at most 2 records (kernel) 10-11; read 12; idle 12; end 12"},
		{"over a restart", nil, []notify.Event{start(7, 5), rd(6), rd(8), end(9), start(7, 12), lost(10, 11, 2, true, notify.LostAway), rd(14), end(15)},
			"mount 7: next 5; read 5; read 6; end 6; mount 7: next 9; lost at most 2 records (away) 7-8; read 9; end 9"},
		{"a recorder that was killed", nil, []notify.Event{start(7, 5), rd(5), start(7, 8), lost(6, 7, 2, true, notify.LostAway), rd(8), end(8)},
			"mount 7: next 5; read 5; mount 7: next 8; lost at most 2 records (away) 6-7; read 8; end 8"},
		{"over a rotation", nil, []notify.Event{start(7, 5), rd(6), rd(8), start(7, 9), rd(10), end(10)},
			"mount 7: next 5; read 5; read 6; mount 7: next 7; read 7; end 7"},
		{"another mount", nil, []notify.Event{start(7, 5), rd(8), end(9), start(8, 3), rd(4), end(4)},
			"mount 7: next 5; read 5; end 5; mount 8: next 3; may have lost any number of records (away+unattended) 0-0; read 3; end 3"},
		{"an older module", nil, []notify.Event{start(7, 0), idle(0), rd(6), rd(8), end(9), start(7, 0), rd(12), rd(14), end(15)},
			"mount 7: next 0; idle 0; read 6; read 7; end 7; mount 7: next 0; read 10; read 11; end 11"},
		{"an uncounted loss", nil, []notify.Event{start(7, 5), rd(6), &notify.Lost{Unknown: true, Cause: notify.LostUnattended, Time: fakeNow}, rd(8), end(8)},
			"mount 7: next 5; read 5; may have lost any number of records (unattended) 0-0; read 6; end 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			streams := 0
			for _, ev := range tt.events {
				if _, ok := ev.(*notify.Hello); ok {
					streams++
				}
			}
			got, status, stderr := followReplay(t, streams, append(tt.args, recordEvents(t, tt.events...))...)
			if text := strings.Join(got, "; "); status != 0 || text != tt.want || strings.Contains(stderr, "left before") {
				t.Errorf("exit status %d, %s\ngot  %s\nwant %s", status, stderr, text, tt.want)
			}
		})
	}
}

// A consumer that leaves before the end is told of, and is its own affair.
func TestReplayLeft(t *testing.T) {
	var events []notify.Event
	for seq := range uint64(5 * maxReplayBatch) {
		events = append(events, opened(seq+1))
	}
	file := recordEvents(t, append([]notify.Event{hello(1)}, events...)...)
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	type result struct {
		status int
		stderr string
	}
	done := make(chan result)
	go func() {
		status, _, stderr := runCommand("replay", "-clients", "2", "-speed", "max", file, socket)
		done <- result{status, stderr}
	}()
	var other *notify.Client
	for ev, err := range notify.Follow(t.Context(), socket, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := ev.(*notify.Hello); ok {
			if other, err = new(notify.Dialer).DialContext(t.Context(), socket); err != nil {
				t.Fatal(err)
			}
			defer other.Close()
		}
		if _, ok := ev.(*notify.Record); ok {
			break // both are there; this one leaves
		}
	}
	// More is to be sent then: no more was than the queue of the other has room for.
	var err error
	for err == nil {
		_, err = other.Next()
	}
	if got := <-done; err != io.EOF || got.status != 0 || !strings.Contains(got.stderr, "left before the end of the stream") {
		t.Errorf("%v; exit status %d, %s", err, got.status, got.stderr)
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
