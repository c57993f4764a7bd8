// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"math"
	"sync"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/screen"
	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const topAbout = `Shows which files, directories, users, processes or commands read most: in the last
interval, or with -total since the start. On a terminal that is a live screen, on which
? shows the keys; elsewhere one table follows the other. What was lost is in the second or
third line. Ends with the stream, and says why; with -f it goes on when the daemon is back or the
file system is mounted again, and says meanwhile what it waits for.
`

// runTop is the command top.
func runTop(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	by, order, interval, count, rows := "file", "bytes", 2*time.Second, uint64(0), 20
	flags.Var(cli.Choice(&by, "file", "directory", "user", "process", "command"), "by", "add up by `key`: file, directory, user, process or command")
	flags.Var(cli.Choice(&order, "bytes", "reads", "opens", "events"), "sort", "sort by `key`: bytes read, reads, opens, or events (opens and reads)")
	flags.Var(cli.Duration(&interval, 10*time.Millisecond, math.MaxInt64), "interval", "`duration` from one table to the next, at least 10ms")
	flags.Var(cli.Count(&count), "n", "end after `count` tables; 0 for never (the default)")
	flags.Var(cli.Int(&rows, 1, math.MaxInt), "rows", "show at most `count` rows, 1 or more; the live screen shows as many as fit")
	once := flags.Bool("once", false, "print one table and end, as -n 1 does")
	asJSON := flags.Bool("json", false, "print JSON Lines, one object for each table")
	paths := flags.Bool("paths", false, "show the paths of files")
	follow := flags.Bool("f", false, "go on over restarts of the daemon, unmounts and mounts")
	flags.BoolVar(follow, "follow", false, "the same as -f")
	total := flags.Bool("total", false, "add up from the start, instead of in each interval")
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pick := ff.picker()
	src, err := openSource(ctx, env, "top", mount, options{dialer: dialer(env, f), follow: *follow, paths: *paths, pick: pick})
	if err != nil {
		return err
	}
	defer src.close()
	defer pick.tell(env.stderr, "top")
	if *once {
		count = 1
	}
	t := &top{
		env: env, events: src.events, follow: *follow, names: tallyNames(ctx, src.names), mount: mount, interval: interval, count: count,
		query: tally.Query{By: byNames[by], Order: orderNames[order], Total: *total, Rows: rows},
	}
	// The names are in use for as long as it collects, which ends soon: whoever waits for a
	// name in between waits no longer.
	defer t.collecting.Wait()
	defer cancel()
	live := env.terminal != nil && count == 0 && !*asJSON
	if src.recorded {
		series := count > 0 || isSet(flags, "interval")
		t.query.Total = t.query.Total || !series
		if !live {
			t.show = t.printer(*asJSON)
		}
		return recordingError(t.recorded(ctx, series), "top", mount)
	}
	var end *notify.End
	if live {
		end, err = t.live(ctx)
	} else {
		if env.height() > 0 && !*asJSON {
			fmt.Fprintf(env.stderr, "scoutfs-notify: the first table comes in %v\n", interval)
		}
		t.show = t.printer(*asJSON)
		end, err = t.tables(ctx)
	}
	return ended(env, end, err, "top", mount)
}

// isSet tells whether a flag was given.
func isSet(flags *flag.FlagSet, name string) bool {
	set := false
	flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// recordingError says what failed with a recording, if anything did.
func recordingError(err error, command, path string) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, path, err)
	}
	return nil
}

// tallyNames are a source's names as a tally asks for them.
func tallyNames(ctx context.Context, n namer) tally.Names {
	return tally.Names{
		Path:    func(ino uint64) string { return n.path(ctx, ino).Text },
		Command: n.command,
		User:    n.user,
	}
}

var byNames = map[string]tally.By{
	"file": tally.ByFile, "directory": tally.ByDirectory, "user": tally.ByUser, "process": tally.ByProcess, "command": tally.ByCommand,
}

var orderNames = map[string]tally.Order{"bytes": tally.Bytes, "reads": tally.Reads, "opens": tally.Opens, "events": tally.Events}

// top adds up events and shows tables.
type top struct {
	env      *environment
	events   iter.Seq2[notify.Event, error]
	follow   bool // there can be another stream after one that ends
	names    tally.Names
	mount    string
	query    tally.Query
	interval time.Duration
	count    uint64 // of tables, 0 for no end
	show     func(v tally.Table, now time.Time) error

	collecting sync.WaitGroup // what uses events and names
}

// printer prints tables.
func (t *top) printer(asJSON bool) func(v tally.Table, now time.Time) error {
	if asJSON {
		return jsonTable(t.env.stdout, t.query)
	}
	return textTable(t.env.stdout, t.mount, t.query)
}

// outcome is the end of a stream.
type outcome struct {
	end *notify.End // nil if it was not told
	err error
}

// collect adds up what comes, until the stream ends or the context is done. What it returns
// yields the end once.
func (t *top) collect(ctx context.Context, sum *tally.Tally) <-chan outcome {
	ended := make(chan outcome, 1)
	t.collecting.Go(func() {
		for ev, err := range t.events {
			if ctx.Err() != nil {
				err = ctx.Err() // there may be many that were received before it was
			}
			end, over := ev.(*notify.End)
			if err != nil || over && !t.follow {
				ended <- outcome{end, err}
				return
			}
			sum.Add(ev)
		}
		ended <- outcome{nil, io.ErrUnexpectedEOF} // it yields the end or an error before
	})
	return ended
}

// tables shows tables, as many as are wanted or until the stream ends. It returns the end
// of the stream if it came to that.
func (t *top) tables(ctx context.Context) (*notify.End, error) {
	sum := tally.New(t.env.now(), t.names)
	ended := t.collect(ctx, sum)
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for n := uint64(0); t.count == 0 || n < t.count; n++ {
		var last *outcome
		select {
		case <-tick.C:
		case o := <-ended:
			last = &o
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		now := t.env.now()
		sum.Next(now)
		if err := t.show(sum.Look(t.query, now), now); err != nil {
			return nil, err
		}
		if last != nil {
			return last.end, last.err
		}
	}
	return nil, nil
}

// live shows the live screen, until the user has had enough or the stream ends. Then it
// returns the end.
func (t *top) live(ctx context.Context) (*notify.End, error) {
	sum := tally.New(t.env.now(), t.names)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan outcome, 1)
	go func() {
		over <- <-t.collect(ctx, sum)
		cancel()
	}()
	err := screen.Run(ctx, t.env.terminal, sum, screen.Options{
		Title: printable(t.mount), Query: t.query, Interval: t.interval, ASCII: !utf8Locale(t.env.getenv),
	})
	select {
	case o := <-over:
		return o.end, o.err
	default:
		return nil, err
	}
}
