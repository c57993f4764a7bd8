// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"math"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const tailAbout = `Prints a line for each access, in the order in which they happened, and one for
each loss as soon as it is known: "lost 17 records (queue)". Ends with the stream
and says why; with -f it goes on when the daemon is back or the file system is
mounted again, and prints what it missed meanwhile. On a terminal the lines have
columns that fit.

scoutfs-notify-tail(1) says what the lines mean, and what the objects of -json are.
`

// tailFlags are the flags of tail.
type tailFlags struct {
	json, nul, follow, paths, names bool
	count, last, since              uint64
	idle, every                     time.Duration
	time                            string
	filter                          filterFlags
}

func (tf *tailFlags) define(flags *flag.FlagSet) {
	flags.BoolVar(&tf.json, "json", false, "print JSON Lines")
	flags.BoolVar(&tf.nul, "0", false, "print the files' paths and nothing else, each as it is with a NUL after it, as xargs -0 takes them")
	flags.BoolVar(&tf.follow, "f", false, "go on over restarts of the daemon, unmounts and mounts")
	flags.BoolVar(&tf.follow, "follow", false, "the same as -f")
	flags.BoolVar(&tf.paths, "paths", false, "print the files' paths")
	flags.BoolVar(&tf.names, "names", false, "print the names of users, groups and processes")
	flags.Var(cli.Count(&tf.count), "count", "end after `count` accesses; 0 for never (the default)")
	flags.Var(cli.Count(&tf.last), "n", "of a recording, print the last `count` accesses and what is between them; 0 for all (the default)")
	flags.Var(cli.Count(&tf.since), "since", "start with access `number`; what was missed since then is a loss")
	flags.Var(cli.Duration(&tf.idle, notify.IdleMin, notify.IdleMax), "idle", "print a sign of life whenever there was nothing to tell for `duration`, at least 10ms")
	flags.Var(cli.Duration(&tf.every, 0, math.MaxInt64), "every", "print a line for each file that was accessed in each `duration`, instead of one for each access")
	tf.time = "clock"
	flags.Var(cli.Choice(&tf.time, "clock", "date", "iso", "unix"), "time", "print times in this `format`: clock, date, iso or unix")
	tf.filter.define(flags)
}

// runTail is the command tail.
func runTail(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	var tf tailFlags
	tf.define(flags)
	mount, err := parseFlags(env, flags, tailAbout, args)
	if err != nil {
		return err
	}
	o, err := tf.options(env, mount)
	if err != nil {
		return err
	}
	src, err := openSource(ctx, env, "tail", mount, o)
	if err != nil {
		return err
	}
	defer src.close()
	out := newEagerWriter(env.stdout)
	events := src.events
	if tf.last > 0 {
		events, err = lastAccesses(events, tf.last, func() (*source, error) {
			o, err := tf.options(env, mount)
			if err != nil {
				return nil, err
			}
			return openSource(ctx, env, "tail", mount, o)
		})
		if err != nil {
			return err
		}
	}
	end, err := tail(ctx, events, tf.printer(ctx, env, src, out), tf.count)
	if ferr := out.close(); ferr != nil {
		return ferr // also if it was a write that failed before
	}
	o.pick.tell(env.stderr, "tail")
	return ended(env, end, err, "tail", mount)
}

// options returns what the flags ask for.
func (tf *tailFlags) options(env *environment, mount string) (o options, err error) {
	f, err := tf.filter.filter("tail")
	if err != nil {
		return o, err
	}
	switch {
	case tf.json && tf.nul:
		return o, usagef("tail", "-json and -0: only one of them can be given")
	case tf.every > 0 && (tf.count > 0 || tf.last > 0 || tf.nul):
		return o, usagef("tail", "-every has lines for files, which -count, -n and -0 are not for")
	case tf.last > 0 && !isRecording(env, mount):
		return o, usagef("tail", "-n is for recordings, a mount has no past; -count %d ends after as many accesses", tf.last)
	}
	tf.paths = tf.paths || tf.nul
	d := dialer(env, f)
	d.Idle = tf.idle.Truncate(time.Millisecond)
	if tf.every > 0 {
		// Lines are due although nothing comes.
		d.Idle = min(max(tf.every/4, notify.IdleMin), notify.IdleMax).Truncate(time.Millisecond)
	}
	return options{dialer: d, follow: tf.follow, paths: tf.paths, pick: tf.filter.picker(), since: tf.since}, nil
}

// printer returns what prints as the flags say.
func (tf *tailFlags) printer(ctx context.Context, env *environment, src *source, out *eagerWriter) printer {
	names := asked{ctx: ctx, namer: src.names, names: tf.names, paths: tf.paths}
	var p printer
	switch {
	case tf.nul:
		return &pathPrinter{w: out, names: names}
	case tf.json:
		p = newJSONPrinter(out, names)
	case env.width() > 0:
		names.names = true
		p = newColumns(out, names, times[tf.time], env.width, tf.follow, env.colours)
	default:
		p = &textPrinter{w: out, names: names, time: times[tf.time], follow: tf.follow}
	}
	if tf.every > 0 {
		s := &summary{p: p, every: tf.every, files: make(map[uint64]*fileSum), idle: tf.idle > 0}
		if !src.recorded {
			s.now = env.now
		}
		return s
	}
	return p
}

// ended turns the end of a stream into the end of the command: one that whoever waits
// for records, person or program, wants to know about, and a success unless something
// failed. end is nil if the command did not wait for it.
func ended(env *environment, end *notify.End, err error, command, mount string) error {
	switch {
	case err != nil:
		return explain(env, fmt.Errorf("%s %s: %w", command, mount, err), mount)
	case end == nil:
		return nil
	case end.Reason == notify.EndFailed:
		return fmt.Errorf("%s %s: the stream ended: %v: %s", command, mount, end.Reason, logHint(env, mount))
	}
	fmt.Fprintf(env.stderr, "scoutfs-notify: %s %s: the stream ended: %v\n", command, printable(mount), end.Reason)
	return nil
}

// tail prints events until there have been count accesses, or if that is 0 all. It
// returns the last event if that is the end of the stream.
func tail(ctx context.Context, events iter.Seq2[notify.Event, error], p printer, count uint64) (end *notify.End, err error) {
	n := uint64(0)
	for ev, err := range events {
		if err != nil {
			return nil, closePrinter(p, err)
		}
		if err := p.print(ev); err != nil {
			return nil, err
		}
		end = nil
		switch ev := ev.(type) {
		case *notify.Record:
			if n++; n == count {
				return nil, nil
			}
		case *notify.End:
			end = ev
		}
	}
	return end, closePrinter(p, ctx.Err())
}

// closePrinter has a printer print what it has kept. The error is err, or that of
// printing.
func closePrinter(p printer, err error) error {
	if c, ok := p.(interface{ close() error }); ok {
		if cerr := c.close(); cerr != nil {
			return cerr
		}
	}
	return err
}

// lastAccesses passes on the last accesses of a recording, and what is between them and
// after. again opens the same recording.
func lastAccesses(events iter.Seq2[notify.Event, error], count uint64, again func() (*source, error)) (iter.Seq2[notify.Event, error], error) {
	src, err := again()
	if err != nil {
		return nil, err
	}
	defer src.close()
	skip := uint64(0)
	for ev := range src.events { // its error comes again
		if _, ok := ev.(*notify.Record); ok {
			skip++
		}
	}
	skip -= min(skip, count)
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			_, access := ev.(*notify.Record)
			if (err != nil || skip == 0) && !yield(ev, err) {
				return
			}
			if access && skip > 0 {
				skip--
			}
		}
	}, nil
}
