// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"flag"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// filterFlags are the flags that say which accesses are wanted.
type filterFlags struct {
	f                notify.Filter
	notUIDs, notPIDs []uint32
}

func (ff *filterFlags) define(flags *flag.FlagSet) {
	flags.Var(cli.List(&ff.f.Types, notify.FilterMax, parseType), "type", "only accesses of these `types`: open, read")
	flags.Var(cli.List(&ff.f.UIDs, notify.FilterMax, cli.Number[uint32]), "uid", "only those by these `users`, by number, with commas between")
	flags.Var(cli.List(&ff.notUIDs, notify.FilterMax, cli.Number[uint32]), "not-uid", "only those by other `users`")
	flags.Var(cli.List(&ff.f.PIDs, notify.FilterMax, cli.Number[uint32]), "pid", "only those by these `processes`")
	flags.Var(cli.List(&ff.notPIDs, notify.FilterMax, cli.Number[uint32]), "not-pid", "only those by other `processes`")
	flags.Var(cli.List(&ff.f.Inos, notify.FilterMax, cli.Number[uint64]), "ino", "only those of the files with these `inodes`")
}

// filter returns what the flags ask for. The daemon leaves out what is not wanted.
func (ff *filterFlags) filter(command string) (notify.Filter, error) {
	f := ff.f
	var err error
	if f.UIDs, f.SkipUIDs, err = either(f.UIDs, ff.notUIDs); err != nil {
		return f, usagef(command, "-uid and -not-uid: %w", err)
	}
	if f.PIDs, f.SkipPIDs, err = either(f.PIDs, ff.notPIDs); err != nil {
		return f, usagef(command, "-pid and -not-pid: %w", err)
	}
	// This process accesses no file of the mount once it is connected. To leave it out
	// would only make what it says about losses vague.
	return f, nil
}

// either returns the one of two lists that is given, and whether that is the second.
func either(only, not []uint32) (list []uint32, skip bool, err error) {
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
