// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"slices"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// filterFlags are the flags that say which accesses are wanted.
type filterFlags struct {
	f                notify.Filter
	notUIDs, notPIDs []uint32
	comms, notComms  []string
	under            []string
}

func (ff *filterFlags) define(flags *flag.FlagSet) {
	accounts := names.NewAccounts()
	user := func(name string) (uint32, error) {
		uid, err := accounts.UserID(name)
		if err != nil {
			return 0, fmt.Errorf("not a user: %w", err)
		}
		return uid, nil
	}
	flags.Var(cli.List(&ff.f.Types, notify.FilterMax, parseType), "type", "only accesses of these `types`: open, read")
	flags.Var(cli.List(&ff.f.UIDs, notify.FilterMax, user), "user", "only those by these `users`, by name or number, with commas between")
	flags.Var(cli.List(&ff.notUIDs, notify.FilterMax, user), "exclude-user", "not those by these `users`")
	flags.Var(cli.List(&ff.f.PIDs, notify.FilterMax, cli.Number[uint32]), "pid", "only those by these `processes`")
	flags.Var(cli.List(&ff.notPIDs, notify.FilterMax, cli.Number[uint32]), "exclude-pid", "not those by these `processes`")
	flags.Var(cli.List(&ff.comms, notify.FilterMax, parseComm), "comm", "only those by processes of these `names`")
	flags.Var(cli.List(&ff.notComms, notify.FilterMax, parseComm), "exclude-comm", "not those by processes of these `names`")
	flags.Var(cli.List(&ff.f.Inos, notify.FilterMax, cli.Number[uint64]), "ino", "only those of the files with these `inodes`")
	flags.Func("under", "only those of files in this `folder` or below it; can be given several times", func(dir string) error {
		if dir == "" {
			return errors.New("not a folder")
		}
		ff.under = append(ff.under, dir)
		return nil
	})
}

// filter returns what the flags ask for that the daemon can leave out.
func (ff *filterFlags) filter(command string) (notify.Filter, error) {
	f := ff.f
	var err error
	if f.UIDs, f.SkipUIDs, err = either(f.UIDs, ff.notUIDs); err != nil {
		return f, usagef(command, "-user and -exclude-user: %w", err)
	}
	if f.PIDs, f.SkipPIDs, err = either(f.PIDs, ff.notPIDs); err != nil {
		return f, usagef(command, "-pid and -exclude-pid: %w", err)
	}
	if _, _, err := either(ff.comms, ff.notComms); err != nil {
		return f, usagef(command, "-comm and -exclude-comm: %w", err)
	}
	// This process accesses no file of the mount once it is connected. To leave it out
	// would only make what it says about losses vague.
	return f, nil
}

// either returns the one of two lists that is given, and whether that is the second.
func either[T any](only, not []T) (list []T, skip bool, err error) {
	switch {
	case len(not) == 0:
		return only, false, nil
	case len(only) == 0:
		return not, true, nil
	}
	return nil, false, errors.New("only one of them can be given")
}

// parseType parses the name of a type that can be asked for.
func parseType(word string) (notify.Type, error) {
	for _, t := range []notify.Type{notify.TypeOpen, notify.TypeRead} {
		if word == t.String() {
			return t, nil
		}
	}
	return 0, errors.New("neither open nor read")
}

// maxComm is how long the kernel lets the name of a process be, in bytes.
const maxComm = 15

// parseComm parses the name of a process, of which the kernel keeps the start.
func parseComm(word string) (string, error) {
	if word == "" {
		return "", errors.New("not the name of a process")
	}
	return word[:min(len(word), maxComm)], nil
}

// picker leaves out what the daemon cannot: by names. What nobody can tell is left out,
// too, and counted.
type picker struct {
	comms     []string
	skipComms bool
	under     []string
	below     func(ctx context.Context, ino uint64) (bool, error) // in one of under
	skipped   func(seq uint64)                                    // unless nil, called for what is left out

	// accesses that were left out because it is not known who made them, or where
	unknownComm, unknownPath uint64
}

// picker returns what the flags ask for that needs names.
func (ff *filterFlags) picker() *picker {
	p := &picker{under: ff.under}
	p.comms, p.skipComms, _ = either(ff.comms, ff.notComms) // filter has checked it
	return p
}

// active tells whether anything is left out.
func (p *picker) active() bool { return len(p.comms) > 0 || p.below != nil }

// pick passes on the events that are wanted. Of what is lost nobody knows whether it is.
func (p *picker) pick(ctx context.Context, events iter.Seq2[notify.Event, error], n namer) iter.Seq2[notify.Event, error] {
	if !p.active() {
		return events
	}
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			switch ev := ev.(type) {
			case *notify.Record:
				if !p.wants(ctx, n, ev) {
					if p.skipped != nil {
						p.skipped(ev.Seq)
					}
					continue
				}
			case *notify.Lost:
				ev.AtMost = ev.AtMost || ev.Count > 0
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

func (p *picker) wants(ctx context.Context, n namer, rec *notify.Record) bool {
	if len(p.comms) > 0 {
		comm := n.command(rec)
		if comm == "" {
			p.unknownComm++
			if !p.skipComms {
				return false
			}
		} else if slices.Contains(p.comms, comm) == p.skipComms {
			return false
		}
	}
	if p.below == nil {
		return true
	}
	below, err := p.below(ctx, rec.Ino)
	if err != nil {
		p.unknownPath++
	}
	return below
}

// tell says what was not known.
func (p *picker) tell(w io.Writer, command string) {
	if p.unknownComm > 0 {
		what := "left out"
		if p.skipComms {
			what = "not left out"
		}
		fmt.Fprintf(w, "scoutfs-notify: %s: %s: %d accesses of processes whose names are not known\n", command, what, p.unknownComm)
	}
	if p.unknownPath > 0 {
		fmt.Fprintf(w, "scoutfs-notify: %s: left out: %d accesses of files of which it is not known where they are\n", command, p.unknownPath)
	}
}
