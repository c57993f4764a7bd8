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
	"math"
	"os"
	"slices"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const topAbout = `Shows which files (inodes), processes or users read most in the last interval.
On a terminal the table is renewed in place; elsewhere one follows the other.
Ends with the stream, as tail does.
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
	mount, err := parseFlags(env, flags, topAbout, args)
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

	c, err := connect(ctx, env, mount)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	err = t.run(c, interval, count)
	if ctx.Err() != nil {
		err = nil
	}
	return ended(env, err, "top", mount)
}

// batches is a notify.Client, or a test's.
type batches interface {
	ReadBatch() ([]notify.Record, error)
	SetReadDeadline(t time.Time) error
	Lost() uint64
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
	lost  uint64
	shown uint64 // tables
}

// run shows count tables, or if that is 0 all until the stream ends, with io.EOF.
func (t *top) run(c batches, interval time.Duration, count uint64) error {
	t.since = t.env.now()
	next := t.since.Add(interval)
	c.SetReadDeadline(next)
	for count == 0 || t.shown < count {
		batch, err := c.ReadBatch()
		if err != nil && err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		for i := range batch {
			t.add(&batch[i])
		}
		now := t.env.now()
		if err == io.EOF || !now.Before(next) {
			if err := t.show(now, c.Lost()); err != nil {
				return err
			}
			next = now.Add(interval)
			c.SetReadDeadline(next)
		}
		if err == io.EOF {
			return err
		}
	}
	return nil
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
func (t *top) show(now time.Time, lost uint64) error {
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
	fmt.Fprintf(t.out, "%d lost, %d shown of %d%s", lost-t.lost, min(rows, len(sorted)), len(sorted), eol)
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
	t.since, t.lost = now, lost
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
