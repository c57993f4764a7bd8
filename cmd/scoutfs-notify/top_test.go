// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// step is some events and the time until the next step.
type step struct {
	before func() // unless nil, called first
	events []notify.Event
	takes  time.Duration
}

// script is a stream of events and its end.
func script(steps ...step) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for _, st := range steps {
			if st.before != nil {
				st.before()
			}
			for _, ev := range st.events {
				if !yield(ev, nil) {
					return
				}
			}
			time.Sleep(st.takes)
		}
		yield(&notify.End{Reason: notify.EndUnmounted}, nil)
	}
}

// scriptStart is the time in seconds at which synctest's clock starts.
const scriptStart = 946684800

func open(ino uint64, pid, uid uint32) *notify.Record {
	return &notify.Record{Type: notify.TypeOpen, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid}
}

func read(ino uint64, pid, uid uint32, length uint64) *notify.Record {
	return &notify.Record{Type: notify.TypeRead, TimeNS: scriptStart * 1e9, Ino: ino, PID: pid, UID: uid, Length: length}
}

// someNames know a few.
var someNames = tally.Names{
	Path:    func(ino uint64) string { return map[uint64]string{200: "in/a\nfile", 300: "in/b\xff"}[ino] },
	User:    func(uid uint32) string { return map[uint32]string{0: "root"}[uid] },
	Command: func(r *notify.Record) string { return map[uint32]string{20: "evil\x1b[2J"}[r.PID] },
}

func TestTop(t *testing.T) {
	first := []notify.Event{
		open(100, 10, 1000), read(100, 10, 1000, 1<<20), read(100, 10, 1000, 1<<20),
		open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), open(200, 20, 0), read(200, 20, 0, 100),
		&notify.Record{Type: 77, Ino: 400, PID: 10, UID: 1000},
	}
	for _, tt := range []struct {
		name  string
		query tally.Query
		count uint64
		steps []step
		want  string
		end   bool // of the stream
	}{
		{"file", tally.Query{Rows: 20}, 0, []step{{nil, first, 2500 * time.Millisecond}, {nil, []notify.Event{&notify.Lost{Count: 7, Cause: notify.LostQueue}, open(100, 1, 1)}, 500 * time.Millisecond}},
			`00:00:02  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 2 shown of 2
   OPENS/S    READS/S      BYTES/S  FILE
       0.5        1.0      1.0 MiB  inode 100
       2.0        0.5       50.0 B  in/a\x0afile

00:00:03  /mnt  1.0 opens/s  0.0 reads/s  0.0 B/s
lost 7 records (queue), 1 shown of 1
   OPENS/S    READS/S      BYTES/S  FILE
       1.0        0.0        0.0 B  inode 100
`, true},
		{"process", tally.Query{By: tally.ByProcess, Order: tally.Events, Rows: 20}, 1, []step{{nil, first, time.Hour}},
			`00:00:02  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 2 shown of 2
   OPENS/S    READS/S      BYTES/S         PID  USER        COMMAND
       2.0        0.5       50.0 B          20  root        evil\x1b[2J
       0.5        1.0      1.0 MiB          10  1000        -
`, false},
		{"user, one row", tally.Query{By: tally.ByUser, Rows: 1}, 1, []step{{nil, first, time.Hour}},
			`00:00:02  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 1 shown of 2
   OPENS/S    READS/S      BYTES/S         UID  USER
       0.5        1.0      1.0 MiB        1000  -
`, false},
		{"command", tally.Query{By: tally.ByCommand, Order: tally.Opens, Rows: 1}, 1, []step{{nil, first, time.Hour}},
			`00:00:02  /mnt  2.5 opens/s  1.5 reads/s  1.0 MiB/s
lost nothing, 1 shown of 2
   OPENS/S    READS/S      BYTES/S  COMMAND
       2.0        0.5       50.0 B  evil\x1b[2J
`, false},
		{"directory in all", tally.Query{By: tally.ByDirectory, Total: true, Rows: 9}, 2, []step{{nil, first, 3 * time.Second}, {nil, []notify.Event{read(300, 1, 1, 50)}, time.Hour}},
			`00:00:02  /mnt  5 opens  3 reads  2.0 MiB in 2s
lost nothing, 2 shown of 2
     OPENS      READS        BYTES  DIRECTORY
         1          2      2.0 MiB  not known
         4          1      100.0 B  in

00:00:04  /mnt  5 opens  4 reads  2.0 MiB in 4s
lost nothing, 2 shown of 2
     OPENS      READS        BYTES  DIRECTORY
         1          2      2.0 MiB  not known
         4          2      150.0 B  in
`, false},
		{"idle", tally.Query{Rows: 20}, 1, []step{{nil, nil, time.Hour}},
			`00:00:02  /mnt  0.0 opens/s  0.0 reads/s  0.0 B/s
lost nothing, 0 shown of 0
   OPENS/S    READS/S      BYTES/S  FILE
`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer time.Sleep(2 * time.Hour) // until the script is over
				var out bytes.Buffer
				top := &top{
					env: &environment{now: time.Now}, events: script(tt.steps...), names: someNames, mount: "/mnt",
					query: tt.query, interval: 2 * time.Second, count: tt.count, show: textTable(&out, "/mnt", tt.query),
				}
				if end, err := top.tables(t.Context()); err != nil || (end != nil) != tt.end {
					t.Errorf("got end %v, error %v", end, err)
				}
				if out.String() != tt.want {
					t.Errorf("got\n%s\nwant\n%s", &out, tt.want)
				}
			})
		})
	}
}

// -json says the same, with names as they are.
func TestTopJSON(t *testing.T) {
	events := []notify.Event{
		read(200, 20, 0, 100), open(300, 10, 1000), read(300, 10, 1000, 7), open(100, 10, 1000),
		&notify.Lost{Count: 3, Cause: notify.LostKernel},
	}
	const start = `{"time":"2000-01-01T00:00:02Z","seconds":2,"by":"%","sum":{"opens":2,"reads":2,"bytes":107},` +
		`"lost":{"count":3,"at_most":false,"unknown":false,"cause":"kernel"},"found":#,"rows":[`
	const end = `],"rest":{"opens":0,"reads":0,"bytes":0}}` + "\n"
	for _, tt := range []struct {
		by    tally.By
		found string
		rows  string
	}{
		{tally.ByFile, "3", `{"ino":200,"path":"in/a\nfile","opens":0,"reads":1,"bytes":100},` +
			`{"ino":300,"path":"in/b\ufffd","path_b64":"aW4vYv8=","opens":1,"reads":1,"bytes":7},{"ino":100,"opens":1,"reads":0,"bytes":0}`},
		{tally.ByDirectory, "2", `{"path":"in","opens":1,"reads":2,"bytes":107},{"opens":1,"reads":0,"bytes":0}`},
		{tally.ByUser, "2", `{"uid":0,"user":"root","opens":0,"reads":1,"bytes":100},{"uid":1000,"opens":2,"reads":1,"bytes":7}`},
		{tally.ByProcess, "2", `{"pid":20,"uid":0,"user":"root","comm":"evil\u001b[2J","opens":0,"reads":1,"bytes":100},{"pid":10,"uid":1000,"opens":2,"reads":1,"bytes":7}`},
		{tally.ByCommand, "2", `{"comm":"evil\u001b[2J","opens":0,"reads":1,"bytes":100},{"opens":2,"reads":1,"bytes":7}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			defer time.Sleep(2 * time.Hour) // until the script is over
			var out bytes.Buffer
			query := tally.Query{By: tt.by, Rows: 9}
			top := &top{
				env: &environment{now: time.Now}, events: script(step{nil, events, time.Hour}), names: someNames,
				query: query, interval: 2 * time.Second, count: 1, show: jsonTable(&out, query),
			}
			if _, err := top.tables(t.Context()); err != nil {
				t.Error(err)
			}
			want := strings.NewReplacer("%", tt.by.String(), "#", tt.found).Replace(start) + tt.rows + end
			if out.String() != want || !json.Valid(out.Bytes()) {
				t.Errorf("got\n%s\nwant\n%s", &out, want)
			}
		})
	}
}

// Of a recording there is the sum of all, or a table for each interval of its own time in
// which something happened.
func TestTopRecorded(t *testing.T) {
	at := func(after time.Duration, rec *notify.Record) *notify.Record {
		rec.TimeNS = uint64(time.Unix(scriptStart, 0).Add(after).UnixNano())
		return rec
	}
	events := []notify.Event{
		&notify.Hello{}, at(0, read(1, 1, 1, 100)), at(time.Second, read(1, 1, 1, 100)), at(500*time.Millisecond, read(1, 1, 1, 100)), // the clock was set back
		at(2*time.Second, read(2, 1, 1, 50)), &notify.Lost{Count: 3, Cause: notify.LostQueue, Time: time.Unix(scriptStart+3, 0)}, &notify.End{},
		&notify.Hello{}, at(time.Hour, read(2, 1, 1, 50)), &notify.Waiting{},
	}
	failed := errors.New("cut off")
	for _, tt := range []struct {
		name   string
		series bool
		count  uint64
		fails  error
		want   []string
	}{
		{"all", false, 0, nil, []string{"01:00:00 0 opens  5 reads  400.0 B in 1h0m0s; lost 3 records (queue), 2 shown of 2"}},
		{"all up to an error", false, 0, failed, []string{"01:00:00 0 opens  5 reads  400.0 B in 1h0m0s; lost 3 records (queue), 2 shown of 2"}},
		{"series", true, 0, nil, []string{
			"00:00:02 0.0 opens/s  1.5 reads/s  150.0 B/s; lost nothing, 1 shown of 1",
			"00:00:04 0.0 opens/s  0.5 reads/s  25.0 B/s; lost 3 records (queue), 1 shown of 1",
			"01:00:02 0.0 opens/s  0.5 reads/s  25.0 B/s; lost nothing, 1 shown of 1",
		}},
		{"the first of it", true, 1, nil, []string{"00:00:02 0.0 opens/s  1.5 reads/s  150.0 B/s; lost nothing, 1 shown of 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			query := tally.Query{Rows: 9, Total: !tt.series}
			top := &top{
				query: query, interval: 2 * time.Second, count: tt.count, show: textTable(&out, "x", query),
				events: func(yield func(notify.Event, error) bool) {
					for _, ev := range events {
						if !yield(ev, nil) {
							return
						}
					}
					if tt.fails != nil {
						yield(nil, tt.fails)
					}
				},
			}
			if err := top.recorded(t.Context(), tt.series); err != tt.fails {
				t.Errorf("error %v", err)
			}
			var got []string
			for table := range strings.SplitSeq(out.String(), "\n\n") {
				lines := strings.Split(table, "\n")
				got = append(got, strings.Replace(lines[0], "  x  ", " ", 1)+"; "+lines[1])
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
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
			status, stdout, stderr := runCommand("top", "-once", "-interval", "10s", "-type", "read", "-exclude-user", "3", socket)
			if status != tt.status || !strings.Contains(stderr, tt.stderr) || !strings.Contains(stdout, "  inode 42\n") {
				t.Errorf("exit status %d, output\n%s\n%s", status, stdout, stderr)
			}
			if f := req.Filter; !slices.Equal(f.Types, []notify.Type{notify.TypeRead}) || !slices.Equal(f.UIDs, []uint32{3}) || !f.SkipUIDs {
				t.Errorf("it asks for %+v", f)
			}
		})
	}
}

// TestTopFollow: with -f sums go on over an unmount and a mount, and it is told meanwhile.
func TestTopFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text, objects bytes.Buffer
		query := tally.Query{Total: true, Rows: 9}
		for w, show := range map[*bytes.Buffer]func(tally.Table, time.Time) error{&text: textTable(&text, "/mnt", query), &objects: jsonTable(&objects, query)} {
			top := &top{
				env: &environment{now: time.Now}, names: someNames, query: query, interval: time.Second, count: 3, follow: true, show: show,
				events: script(
					step{nil, []notify.Event{&notify.Hello{}, read(100, 1, 1, 10)}, 1100 * time.Millisecond},
					step{nil, []notify.Event{&notify.End{Reason: notify.EndUnmounted}, &notify.Waiting{Err: errors.New("x")}}, time.Second},
					step{nil, []notify.Event{&notify.Hello{}, &notify.Lost{Unknown: true, Cause: notify.LostAway}, read(100, 1, 1, 10)}, time.Hour},
				),
			}
			if end, err := top.tables(t.Context()); end != nil || err != nil {
				t.Errorf("it ends with %v, %v", end, err)
			}
			w.WriteByte('\n')
		}
		time.Sleep(2 * time.Hour) // until the scripts are over
		for _, want := range []string{
			"0 opens  1 reads  10.0 B in 1s\nlost nothing, 1 shown of 1\n",
			"0 opens  1 reads  10.0 B in 2s\nwaiting: the file system was unmounted\nlost nothing, 1 shown of 1\n",
			"0 opens  2 reads  20.0 B in 3s\nmay have lost any number of records (away), 1 shown of 1\n",
		} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("there is no %q in\n%s", want, &text)
			}
		}
		if n := strings.Count(objects.String(), `"waiting":"the file system was unmounted"`); n != 1 || strings.Count(objects.String(), "waiting") != 1 {
			t.Errorf("%d objects say what is waited for, not one:\n%s", n, &objects)
		}
	})
}

// TestTopFollows: the command's -f connects again.
func TestTopFollows(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	var resumes []notify.Resume
	rawDaemon(t, socket, func(c *fakeClient) {
		if resumes = append(resumes, c.req.Resume); len(resumes) == 2 {
			cancel()
			return
		}
		c.say(fakeHello, &notify.Record{Seq: 5, Type: notify.TypeOpen}, &notify.End{Seq: 5, Reason: notify.EndRestarting})
	})
	env := systemEnvironment()
	var errs bytes.Buffer
	env.stdout, env.stderr, env.terminal = io.Discard, &errs, nil
	status := run(ctx, env, []string{"top", "-f", "-interval", "1h", socket})
	if want := []notify.Resume{{}, {RID: fakeHello.RID, Seq: 5}}; status != 0 || errs.Len() > 0 || !slices.Equal(resumes, want) {
		t.Errorf("exit status %d, it resumed at %v, want %v; %s", status, resumes, want, &errs)
	}
}

// TestTopStops: when top has had enough of a stream that goes on, nothing uses the names any
// more, even if one of them takes long, and it ends at once.
func TestTopStops(t *testing.T) {
	for _, slow := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		asked, left := 0, false
		names := someNames
		names.Command = func(*notify.Record) string {
			asked++
			if slow {
				<-ctx.Done()
			}
			return ""
		}
		query := tally.Query{Rows: 9}
		top := &top{
			env: &environment{now: time.Now}, names: names, query: query, interval: time.Millisecond, count: 1, show: textTable(io.Discard, "/mnt", query),
			events: func(yield func(notify.Event, error) bool) {
				defer func() { left = true }()
				for pid := uint32(1); yield(read(1, pid, 1, 1), nil); pid++ {
				}
			},
		}
		if end, err := top.tables(ctx); end != nil || err != nil {
			t.Errorf("it ends with %v, %v", end, err)
		}
		cancel()
		top.collecting.Wait()
		if !left || slow && asked > 1 {
			t.Errorf("slow names %v: after %d names it has left: %v", slow, asked, left)
		}
	}
}

// TestTopBusy: a mount that is busy when top ends is no trouble, which the race detector
// sees.
func TestTopBusy(t *testing.T) {
	socket := fakeDaemon(t, func(c *fakeClient) {
		for seq := uint64(5); ; {
			var b []byte
			for range notify.RingRecords {
				rec := notify.Record{Seq: seq, TimeNS: uint64(fakeNow.UnixNano()), Ino: seq, PID: 1<<22 + uint32(seq), Type: notify.TypeRead, Length: 1}
				b, _ = rec.AppendBinary(b)
				seq++
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	for range 3 {
		if status, _, stderr := runCommand("top", "-once", "-interval", "20ms", "-exclude-comm", "nobody", socket); status != 0 {
			t.Errorf("exit status %d, %s", status, stderr)
		}
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
	env.stdout, env.stderr, env.terminal = io.Discard, &errs, nil
	if status := run(ctx, env, []string{"top", "-interval", "1h", socket}); status != 0 || errs.Len() > 0 {
		t.Errorf("exit status %d, %s", status, &errs)
	}
}

func TestUTF8Locale(t *testing.T) {
	for _, tt := range []struct {
		vars map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "C.UTF-8"}, true},
		{map[string]string{"LANG": "de_DE.utf8", "LC_ALL": "C"}, false},
		{map[string]string{"LANG": "C", "LC_CTYPE": "C.UTF-8"}, true},
	} {
		if got := utf8Locale(func(name string) string { return tt.vars[name] }); got != tt.want {
			t.Errorf("%v: %v", tt.vars, got)
		}
	}
}
