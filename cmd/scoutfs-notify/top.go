// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"slices"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const topAbout = `Shows which files (inodes), processes or users read most in the last interval.
On a terminal the table is renewed in place; elsewhere one follows the other.
The second line says what was lost in the interval. Ends with the stream, and says
why.
`

// maxRows bounds how many keys are told apart in an interval, and so the memory
// for them. The rest is added up in one row.
const maxRows = 1 << 16

// runTop is the command top.
func runTop(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	by, order, interval, count, rows := "inode", "bytes", 2*time.Second, uint64(0), 20
	flags.Var(cli.Choice(&by, "inode", "process", "user"), "by", "add up by `key`: inode, process or user")
	flags.Var(cli.Choice(&order, "bytes", "events"), "sort", "sort by `key`: bytes read, or events (opens and reads)")
	flags.Var(cli.Duration(&interval, 10*time.Millisecond, math.MaxInt64), "interval", "`duration` from one table to the next, at least 10ms")
	flags.Var(cli.Count(&count), "n", "end after `count` tables; 0 for never (the default)")
	flags.Var(cli.Int(&rows, 1, math.MaxInt), "rows", "show at most `count` rows, 1 or more; a terminal may have room for fewer")
	var ff filterFlags
	ff.define(flags)
	mount, err := parseFlags(env, flags, topAbout, args)
	if err != nil {
		return err
	}
	f, err := ff.filter("top")
	if err != nil {
		return err
	}
	t := &top{
		out: bufio.NewWriter(env.stdout), env: env, mount: mount, rows: rows,
		key: keys[by], compare: orders[order], rates: make(map[uint64]*rate),
	}
	if by == "process" {
		t.processes = newProcesses(env)
	}

	c, err := connect(ctx, env, dialer(env, f), mount)
	if err != nil {
		return err
	}
	defer c.Close()
	end, err := t.run(ctx, c, interval, count)
	return ended(env, end, err, "top", mount)
}

// stream is a notify.Client, or a test's.
type stream interface {
	Events(ctx context.Context) iter.Seq2[notify.Event, error]
	SetReadDeadline(t time.Time) error
}

// rate is what was opened and read under one key in an interval.
type rate struct {
	id    uint64
	name  string // if it is a process
	uid   uint32 // of the last access
	opens uint64
	reads uint64
	bytes uint64
}

func (r *rate) add(rec *notify.Record) {
	r.uid = rec.UID
	switch rec.Type {
	case notify.TypeOpen:
		r.opens++
	case notify.TypeRead:
		r.reads++
		r.bytes += rec.Length
	}
}

// key is what to add up by, and how to show it.
type key struct {
	of     func(*notify.Record) uint64
	header string
	row    func(r *rate) string
}

var keys = map[string]key{
	"inode": {
		of:     func(r *notify.Record) uint64 { return r.Ino },
		header: fmt.Sprintf("%20s", "INODE"),
		row:    func(r *rate) string { return fmt.Sprintf("%20d", r.id) },
	},
	"process": {
		of:     func(r *notify.Record) uint64 { return uint64(r.PID) },
		header: fmt.Sprintf("%10s %10s %-15s", "PID", "UID", "COMMAND"),
		row:    func(r *rate) string { return fmt.Sprintf("%10d %10d %-15.15s", r.id, r.uid, r.name) },
	},
	"user": {
		of:     func(r *notify.Record) uint64 { return uint64(r.UID) },
		header: fmt.Sprintf("%10s", "UID"),
		row:    func(r *rate) string { return fmt.Sprintf("%10d", r.id) },
	},
}

var orders = map[string]func(a, b *rate) int{
	"bytes": func(a, b *rate) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(b.opens+b.reads, a.opens+a.reads), cmp.Compare(a.id, b.id))
	},
	"events": func(a, b *rate) int {
		return cmp.Or(cmp.Compare(b.opens+b.reads, a.opens+a.reads), cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.id, b.id))
	},
}

// top is the table: it adds up the records of an interval and shows them.
type top struct {
	out     *bufio.Writer
	env     *environment
	mount   string
	rows    int
	key     key
	compare func(a, b *rate) int

	processes *processes // nil if they are not what it adds up by

	rates map[uint64]*rate
	rest  rate // of the keys that rates has no room for
	total rate
	since time.Time
	lost  notify.Lost // in the interval
	shown uint64      // tables
}

// run shows count tables, or if that is 0 all until the stream ends. It returns the end
// of the stream if it came to that.
func (t *top) run(ctx context.Context, s stream, interval time.Duration, count uint64) (end *notify.End, err error) {
	t.since = t.env.now()
	for count == 0 || t.shown < count {
		next := t.since.Add(interval)
		s.SetReadDeadline(next)
		end, err := t.collect(ctx, s, next)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := t.show(t.env.now()); err != nil {
			return nil, err
		}
		if end != nil || err != nil {
			return end, err
		}
	}
	return nil, nil
}

// collect adds up what comes until a time, or until the end of the stream.
func (t *top) collect(ctx context.Context, s stream, until time.Time) (end *notify.End, err error) {
	for ev, err := range s.Events(ctx) {
		switch ev := ev.(type) {
		case *notify.Record:
			t.add(ev)
		case *notify.Lost:
			t.lose(ev)
		case *notify.End:
			return ev, nil
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case err != nil:
			return nil, err
		case !t.env.now().Before(until):
			return nil, nil
		}
	}
	return nil, io.ErrUnexpectedEOF // it yields the end or an error before
}

// lose adds a loss to those of the interval.
func (t *top) lose(l *notify.Lost) {
	t.lost.Count += l.Count
	t.lost.Cause |= l.Cause
	t.lost.AtMost = t.lost.AtMost || l.AtMost
	t.lost.Unknown = t.lost.Unknown || l.Unknown
}

// losses says what was lost in the interval.
func (t *top) losses() string {
	if t.lost.Count == 0 && !t.lost.Unknown {
		return "lost nothing"
	}
	return t.lost.String()
}

func (t *top) add(rec *notify.Record) {
	t.total.add(rec)
	id := t.key.of(rec)
	r := t.rates[id]
	if r == nil {
		if len(t.rates) == maxRows {
			t.rest.add(rec)
			return
		}
		r = &rate{id: id}
		if t.processes != nil {
			// Not when the table is shown: many have ended by then.
			r.name = t.processes.name(rec)
		}
		t.rates[id] = r
	}
	r.add(rec)
}

// show prints a table and starts a new interval.
func (t *top) show(now time.Time) error {
	sorted := make([]*rate, 0, len(t.rates))
	for _, r := range t.rates {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, t.compare)

	height := t.env.height()
	eol := "\n"
	rows := t.rows
	switch {
	case height > 0:
		// Write over what is there, and clear the rest of each line.
		eol = "\x1b[K\n"
		t.out.WriteString("\x1b[H")
		// Leave three lines above the rows, one below, and the cursor's.
		rows = min(rows, max(1, height-5))
	case t.shown > 0:
		t.out.WriteString("\n")
	}

	per := now.Sub(t.since).Seconds()
	fmt.Fprintf(t.out, "%s  %s  %s%s", now.Local().Format("15:04:05"), printable(t.mount), t.total.format(per), eol)
	fmt.Fprintf(t.out, "%s, %d shown of %d%s", t.losses(), min(rows, len(sorted)), len(sorted), eol)
	fmt.Fprintf(t.out, "%s %10s %10s %12s%s", t.key.header, "OPENS/S", "READS/S", "BYTES/S", eol)
	for _, r := range sorted[:min(rows, len(sorted))] {
		fmt.Fprintf(t.out, "%s %10.1f %10.1f %12s%s", t.key.row(r),
			float64(r.opens)/per, float64(r.reads)/per, bytesPerSecond(r.bytes, per), eol)
	}
	if t.rest.opens+t.rest.reads > 0 {
		fmt.Fprintf(t.out, "and more: %s%s", t.rest.format(per), eol)
	}
	if height > 0 {
		t.out.WriteString("\x1b[J")
	}

	clear(t.rates)
	if t.processes != nil {
		t.processes.next()
	}
	t.rest, t.total = rate{}, rate{}
	t.since, t.lost = now, notify.Lost{}
	t.shown++
	return t.out.Flush()
}

// format writes the rate on one line.
func (r *rate) format(seconds float64) string {
	return fmt.Sprintf("%.1f opens/s  %.1f reads/s  %s/s", float64(r.opens)/seconds, float64(r.reads)/seconds, bytesPerSecond(r.bytes, seconds))
}

// bytesPerSecond writes how many bytes a second n bytes in an interval are.
func bytesPerSecond(n uint64, seconds float64) string {
	v := float64(n) / seconds
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f TiB", v)
}
