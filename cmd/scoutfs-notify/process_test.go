// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// fakeProc is a directory like /proc.
type fakeProc struct {
	t   *testing.T
	dir string
}

// uptime is that of the fake system when a script starts.
const uptime = 5000 * time.Second

func newFakeProc(t *testing.T) *fakeProc {
	t.Helper()
	p := &fakeProc{t, t.TempDir()}
	p.namespace("pid:[4026531836]")
	return p
}

// namespace says which one the process that looks is in; "" for no entry of its own.
func (p *fakeProc) namespace(link string) {
	p.t.Helper()
	ns := filepath.Join(p.dir, "self/ns")
	err := os.MkdirAll(ns, 0o700)
	if err == nil {
		os.Remove(filepath.Join(ns, "pid"))
	}
	if err == nil && link != "" {
		err = os.Symlink(link, filepath.Join(ns, "pid"))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) sinceBoot() time.Duration { return uptime }

// statLine is what the kernel says of a process.
func statLine(pid uint32, name string, ticks uint64) string {
	return fmt.Sprintf("%d (%s) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", pid, name, ticks)
}

// add starts a process, some time before the script.
func (p *fakeProc) add(pid uint32, name string, before time.Duration) {
	p.t.Helper()
	dir := filepath.Join(p.dir, strconv.Itoa(int(pid)))
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "stat"), []byte(statLine(pid, name, uint64((uptime-before)/tick))), 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) end(pid uint32) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, strconv.Itoa(int(pid)))); err != nil {
		p.t.Fatal(err)
	}
}

// TestProcessNames: a record gets the name of its process or none.
func TestProcessNames(t *testing.T) {
	const pid = 1 << 30 // which the kernel has none of: no process of the host is in the way
	type act = func(p *fakeProc, ps *alive)
	start := func(name string, before time.Duration) act {
		return func(p *fakeProc, _ *alive) { p.add(pid, name, before) }
	}
	end := func(p *fakeProc, _ *alive) { p.end(pid) }
	sweep := func(_ *fakeProc, ps *alive) { ps.sweep(ps.env.now()) }
	ask := func(before time.Duration, want string) act {
		return func(p *fakeProc, ps *alive) {
			p.t.Helper()
			rec := notify.Record{PID: pid, TimeNS: uint64(scriptStart*int64(time.Second) - int64(before))}
			if got := ps.name(&rec); got != want {
				p.t.Errorf("%v before: got %q, want %q", before, got, want)
			}
		}
	}
	open := func(tid uint32, before time.Duration, comm, want string) act {
		return func(p *fakeProc, ps *alive) {
			p.t.Helper()
			rec := notify.Record{Type: notify.TypeOpen, PID: pid, TID: tid, TimeNS: uint64(scriptStart*int64(time.Second) - int64(before))}
			copy(rec.Comm[:], comm)
			if got := ps.name(&rec); got != want {
				p.t.Errorf("open %v before: got %q, want %q", before, got, want)
			}
		}
	}
	for _, tt := range []struct {
		name string
		acts []act
	}{
		{"told", []act{open(pid, 0, "cat", "cat")}},
		{"told, and read", []act{open(pid, 10, "cat", "cat"), ask(0, "cat")}},
		{"told later", []act{open(pid, 0, "cat", "cat"), ask(1, "")}},
		{"told long ago", []act{open(pid, nameTime+1, "cat", "cat"), ask(1, "cat"), ask(0, "")}},
		{"told and swept", []act{open(pid, 2*sweepTime, "cat", "cat"), sweep, ask(2*sweepTime-1, "")}},
		{"told by another thread", []act{open(5, 1, "worker", ""), ask(0, "")}},
		{"told by another thread of one that is alive", []act{start("cat", time.Second), open(5, 1, "worker", "cat")}},
		{"executed another program", []act{start("sh", time.Second), ask(2, "sh"), open(pid, 1, "cat", "cat"), ask(0, "cat")}},
		{"told, its number is used again", []act{open(pid, 2*time.Second, "cat", "cat"), start("other", time.Second), ask(0, "other")}},
		{"alive", []act{start("cat", time.Second), ask(time.Millisecond, "cat")}},
		{"not there", []act{ask(0, "")}},
		{"any name", []act{start("a) S 1 (b\x1b\n c", time.Second), ask(0, "a) S 1 (b\x1b\n c")}},
		{"no name", []act{start("", time.Second), ask(0, "")}},
		{"started in the tick of its record", []act{start("cat", 0), ask(0, "cat")}},
		{"started after the record", []act{start("other", 10*time.Millisecond), ask(11*time.Millisecond, "")}},
		{"started after the record, which another process looked at", []act{
			start("other", time.Second), ask(time.Minute, ""), sweep, ask(0, "other"),
		}},
		{"ended after it was seen", []act{start("cat", time.Minute), ask(time.Second, "cat"), end, sweep, ask(0, "cat")}},
		{"ended and forgotten", []act{start("cat", time.Minute), ask(0, "cat"), end, sweep, sweep, ask(0, "")}},
		{"ended, asked for each time", []act{
			start("cat", time.Minute), ask(1, "cat"), end, sweep, ask(1, "cat"), sweep, ask(1, "cat"), sweep, ask(0, "cat"),
		}},
		{"ended, and the record is of later", []act{start("cat", time.Minute), ask(0, "cat"), end, sweep, ask(-1, "")}},
		{"ended, its number is used again", []act{
			start("cat", time.Minute), ask(time.Second, "cat"), end, start("other", 500*time.Millisecond), sweep, ask(time.Second, "cat"),
		}},
		{"from a time to which the clock was set back", []act{start("cat", time.Minute), ask(-time.Hour, "")}},
		{"has a new name", []act{
			start("sh", time.Minute), ask(0, "sh"), start("cat", time.Minute), sweep,
			func(_ *fakeProc, ps *alive) {
				now := ps.env.now().Add(time.Second)
				ps.env.now = func() time.Time { return now }
				ps.env.sinceBoot = func() time.Duration { return uptime + time.Second }
			},
			ask(-time.Second, "cat"),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newFakeProc(t)
			ps := newAlive(&environment{proc: p.dir, now: func() time.Time { return time.Unix(scriptStart, 0) }, sinceBoot: p.sinceBoot})
			for _, act := range tt.acts {
				act(p, ps)
			}
		})
	}
}

// TestForeignProc: in another pid namespace, or with a /proc of one, the numbers in
// records are others than those in /proc.
func TestForeignProc(t *testing.T) {
	for _, link := range []string{"", "pid:[4026532190]", "nonsense"} {
		p := newFakeProc(t)
		p.namespace(link)
		p.add(20, "wrong", time.Minute)
		ps := newAlive(&environment{proc: p.dir, now: func() time.Time { return time.Unix(scriptStart, 0) }, sinceBoot: p.sinceBoot})
		if got := ps.name(&notify.Record{PID: 20, TimeNS: scriptStart * 1e9}); got != "" {
			t.Errorf("namespace %q: got %q", link, got)
		}
		if got := ps.name(&notify.Record{PID: 20, TID: 20, TimeNS: scriptStart * 1e9, Comm: notify.Comm{'c'}}); got != "c" {
			t.Errorf("namespace %q, told by an open: got %q", link, got)
		}
	}
}

// TestOwnName asks the running kernel, where a process starts and makes a record at
// once.
func TestOwnName(t *testing.T) {
	env := systemEnvironment()
	if !inInitialNamespace(env.proc) {
		t.Skip("skipped: this is a container with a pid namespace of its own")
	}
	cmd := commandLine()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Env = append(cmd.Env, asIdle+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ps := newAlive(env)
	comm := filepath.Base(os.Args[0])
	if want, got := comm[:min(len(comm), 15)], ps.name(&notify.Record{PID: uint32(cmd.Process.Pid), TimeNS: uint64(started.UnixNano())}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ps = newAlive(env)
	if got := ps.name(&notify.Record{PID: uint32(cmd.Process.Pid), TimeNS: uint64(before.Add(-2 * tick).UnixNano())}); got != "" {
		t.Errorf("before it started: got %q", got)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestTopProcessEnds: the table has the name of a process that ended in the sweep,
// also if another has its number by then.
func TestTopProcessEnds(t *testing.T) {
	proc := newFakeProc(t)
	proc.add(20, "cat", time.Minute)
	proc.add(30, "other", time.Minute)
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(2 * time.Hour) // until the script is over
		var out bytes.Buffer
		env := &environment{now: time.Now, proc: proc.dir, sinceBoot: proc.sinceBoot}
		query := tally.Query{By: tally.ByProcess, Order: tally.Events, Rows: 9}
		top := &top{
			env: env, names: tallyNames(t.Context(), newLiveNames(env, false)), query: query, interval: time.Second, count: 1, show: textTable(&out, "/mnt", query),
			events: script(step{nil, []notify.Event{open(1, 20, 0)}, time.Millisecond}, step{func() {
				proc.end(20)
				proc.add(20, "reused", -time.Second)
			}, []notify.Event{open(1, 20, 0), open(2, 30, 0)}, time.Hour}),
		}
		if _, err := top.tables(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, row := range []string{
			`\n +2\.0 +0\.0 +0\.0 B +20  \S+ +cat\n`,
			`\n +1\.0 +0\.0 +0\.0 B +30  \S+ +other\n`,
		} {
			if !regexp.MustCompile(row).MatchString(out.String()) {
				t.Errorf("there is no row %q in\n%s", row, &out)
			}
		}
	})
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		stat  string
		name  string
		start time.Duration
		ok    bool
	}{
		{statLine(1, "init", 0), "init", 0, true},
		{statLine(1, ") (", 123), ") (", 1230 * time.Millisecond, true},
		{statLine(1, "x", 922337203685), "x", 9223372036850 * time.Millisecond, true},
		{statLine(1, "x", 922337203686), "", 0, false}, // overflows
		{"1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19", "x", 190 * time.Millisecond, true},
		{"1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", "", 0, false},
		{"1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1", "", 0, false},
		{"", "", 0, false},
		{"1 x) S", "", 0, false},
		{"1 )x( S", "", 0, false},
	} {
		name, start, ok := parseStat([]byte(tt.stat))
		if name != tt.name || start != tt.start || ok != tt.ok {
			t.Errorf("%q: got %q, %v, %v", tt.stat, name, start, ok)
		}
	}
}

// FuzzParseStat: whatever a process calls itself, its name and start come out.
func FuzzParseStat(f *testing.F) {
	f.Add("cat", uint64(42), []byte("1 (x) S"))
	f.Add(") S 1 2 (", uint64(0), []byte(")("))
	f.Fuzz(func(t *testing.T, name string, ticks uint64, junk []byte) {
		parseStat(junk)
		ticks %= 1 << 39
		got, start, ok := parseStat([]byte(statLine(7, name, ticks)))
		if got != name || start != time.Duration(ticks)*tick || !ok {
			t.Errorf("%q, %d: got %q, %v, %v", name, ticks, got, start, ok)
		}
	})
}
