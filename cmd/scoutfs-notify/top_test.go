// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// script is a stream of events that move a fake clock.
type script struct {
	now   time.Time
	until time.Time // deadline
	steps []step
	rest  []notify.Event // of the first step
}

// step is some events and the time they take. Without records it waits until the
// deadline.
type step struct {
	takes time.Duration
	recs  []notify.Record
	lost  *notify.Lost // before the records, unless nil

	before func() // unless nil, called first
}

func (s *script) Events(context.Context) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for len(s.rest) > 0 || len(s.steps) > 0 {
			if len(s.rest) == 0 {
				st := &s.steps[0]
				if st.before != nil {
					st.before()
				}
				if st.recs == nil {
					s.steps = s.steps[1:]
					s.now = s.until
					yield(nil, os.ErrDeadlineExceeded)
					return
				}
				if st.lost != nil {
					s.rest = append(s.rest, st.lost)
				}
				s.rest = append(s.rest, records(st.recs...)...)
			}
			ev := s.rest[0]
			if s.rest = s.rest[1:]; len(s.rest) == 0 {
				s.now = s.now.Add(s.steps[0].takes)
				s.steps = s.steps[1:]
			}
			if !yield(ev, nil) {
				return
			}
		}
		yield(&notify.End{Reason: notify.EndUnmounted}, nil)
	}
}

func (s *script) SetReadDeadline(t time.Time) error {
	s.until = t
	return nil
}

// A record is as old as the script.
const scriptStart = 1700000000

func open(ino uint64, pid, uid uint32) notify.Record {
	return notify.Record{Type: notify.TypeOpen, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid}
}

func read(ino uint64, pid, uid uint32, length uint64) notify.Record {
	return notify.Record{Type: notify.TypeRead, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid, Length: length}
}

func TestTop(t *testing.T) {
	proc := newFakeProc(t)
	proc.add(20, "evil\x1b[2J, too long", time.Minute)
	first := []notify.Record{
		open(100, 10, 1000), read(100, 10, 1000, 1<<20), read(100, 10, 1000, 1<<20),
		open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), read(200, 20, 0, 100),
		{Type: 77, Ino: 300, PID: 10, UID: 1000},
	}
	for _, tt := range []struct {
		name   string
		by     string
		sort   string
		rows   int
		height int
		count  uint64
		steps  []step
		want   string
		end    bool // of the stream
	}{
		{"inode", "inode", "bytes", 20, 0, 0, []step{{takes: time.Second, recs: first}, {}, {takes: time.Second, recs: []notify.Record{open(100, 1, 1)}, lost: &notify.Lost{Count: 7, Cause: notify.LostQueue}}},
			`22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 3 shown of 3
               INODE    OPENS/S    READS/S      BYTES/S
                 100        0.5        1.0      1.0 MiB
                 200        2.0        0.5       50.0 B
                 300        0.0        0.0        0.0 B

22:13:23  /mnt  1.0 opens/s  0.0 reads/s  0.0 B/s
lost 7 records (queue), 1 shown of 1
               INODE    OPENS/S    READS/S      BYTES/S
                 100        1.0        0.0        0.0 B
`, true},
		{"process", "process", "events", 20, 0, 1, []step{{takes: 2 * time.Second, recs: first}, {}},
			`22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 2 shown of 2
       PID        UID COMMAND            OPENS/S    READS/S      BYTES/S
        20          0 evil\x1b[2J, to        2.0        0.5       50.0 B
        10       1000 -                      0.5        1.0      1.0 MiB
`, false},
		{"user, one row", "user", "bytes", 1, 0, 1, []step{{takes: 4 * time.Second, recs: first}},
			`22:13:24  /mnt  1.2 opens/s  0.8 reads/s  512.0 KiB/s
lost nothing, 1 shown of 2
       UID    OPENS/S    READS/S      BYTES/S
      1000        0.2        0.5    512.0 KiB
`, false},
		{"terminal", "user", "events", 20, 6, 1, []step{{takes: 2 * time.Second, recs: first}},
			"\x1b[H22:13:22  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s\x1b[K\n" +
				"lost nothing, 1 shown of 2\x1b[K\n" +
				"       UID    OPENS/S    READS/S      BYTES/S\x1b[K\n" +
				"         0        2.0        0.5       50.0 B\x1b[K\n\x1b[J", false},
		{"idle", "inode", "bytes", 20, 0, 1, []step{{}},
			`22:13:22  /mnt  0.0 opens/s  0.0 reads/s  0.0 B/s
lost nothing, 0 shown of 0
               INODE    OPENS/S    READS/S      BYTES/S
`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{now: time.Unix(scriptStart, 0), steps: tt.steps}
			var out bytes.Buffer
			env := &environment{now: func() time.Time { return s.now }, height: func() int { return tt.height }, proc: proc.dir, sinceBoot: proc.sinceBoot}
			top := &top{out: bufio.NewWriter(&out), env: env, mount: "/mnt", rows: tt.rows, key: keys[tt.by], compare: orders[tt.sort], rates: make(map[uint64]*rate)}
			if tt.by == "process" {
				top.processes = newProcesses(env)
			}
			if end, err := top.run(t.Context(), s, 2*time.Second, tt.count); err != nil || (end != nil) != tt.end {
				t.Errorf("got end %v, error %v", end, err)
			}
			if out.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", &out, tt.want)
			}
		})
	}
}

// TestTopRest: accesses that exceed the table are summed up.
func TestTopRest(t *testing.T) {
	var recs []notify.Record
	for i := range uint64(maxRows + 10) {
		recs = append(recs, read(i, 1, 1, 1000))
	}
	s := &script{now: time.Unix(scriptStart, 0), steps: []step{{takes: time.Second, recs: recs}}}
	var out bytes.Buffer
	env := &environment{now: func() time.Time { return s.now }, height: func() int { return 0 }}
	top := &top{out: bufio.NewWriter(&out), env: env, mount: "/mnt", rows: 1, key: keys["inode"], compare: orders["bytes"], rates: make(map[uint64]*rate)}
	if _, err := top.run(t.Context(), s, time.Second, 1); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\nand more: 0.0 opens/s  10.0 reads/s  9.8 KiB/s\n") {
		t.Errorf("got\n%s", &out)
	}
}

// TestTopLosses: all losses of an interval are in its header, those without a record
// too.
func TestTopLosses(t *testing.T) {
	s := &script{now: time.Unix(scriptStart, 0), steps: []step{
		{recs: []notify.Record{}, lost: &notify.Lost{Count: 7, Cause: notify.LostQueue}},
		{recs: []notify.Record{}, lost: &notify.Lost{Count: 3, Cause: notify.LostKernel, AtMost: true}},
		{},
		{recs: []notify.Record{}, lost: &notify.Lost{Unknown: true, Cause: notify.LostAway}},
		{}, {},
	}}
	var out bytes.Buffer
	env := &environment{now: func() time.Time { return s.now }, height: func() int { return 0 }}
	top := &top{out: bufio.NewWriter(&out), env: env, mount: "/mnt", rows: 1, key: keys["inode"], compare: orders["bytes"], rates: make(map[uint64]*rate)}
	if _, err := top.run(t.Context(), s, time.Second, 3); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		if before, _, ok := strings.Cut(line, ", 0 shown"); ok {
			got = append(got, before)
		}
	}
	want := []string{"lost at most 10 records (kernel+queue)", "may have lost any number of records (away)", "lost nothing"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTopCommand(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    []notify.Event
		status int
		stderr string
	}{
		{"end", []notify.Event{&notify.End{Seq: 5, Reason: notify.EndUnmounted}}, 0, "the stream ended: the file system was unmounted\n"},
		{"failure", []notify.Event{&notify.End{Seq: 5, Reason: notify.EndFailed}}, 1, "the stream ended: scoutfs-notifyd failed"},
		{"killed", nil, 1, "scoutfs-notifyd was killed, and what it had not sent is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var req notify.Request
			socket := fakeDaemon(t, func(c *fakeClient) {
				req = c.req
				c.say(&sampleRecords[0])
				c.say(tt.end...)
			})
			status, stdout, stderr := runCommand("top", "-n", "1", "-interval", "10s", "-type", "read", "-not-uid", "3", socket)
			if status != tt.status || !strings.Contains(stderr, tt.stderr) || !strings.Contains(stdout, "\n                  42 ") {
				t.Errorf("exit status %d, output\n%s\n%s", status, stdout, stderr)
			}
			if f := req.Filter; !slices.Equal(f.Types, []notify.Type{notify.TypeRead}) || !slices.Equal(f.UIDs, []uint32{3}) || !f.SkipUIDs {
				t.Errorf("it asks for %+v", f)
			}
		})
	}
}

// TestTopInterrupt: a signal ends top while it waits.
func TestTopInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	socket := fakeDaemon(t, func(*fakeClient) {
		cancel()
		<-release
	})
	defer close(release)
	env := systemEnvironment()
	var errs bytes.Buffer
	env.stdout, env.stderr = io.Discard, &errs
	if status := run(ctx, env, []string{"top", "-interval", "1h", socket}); status != 0 || errs.Len() > 0 {
		t.Errorf("exit status %d, %s", status, &errs)
	}
}
