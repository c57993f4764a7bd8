// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const lastAbout = `Shows when each FILE was accessed last, by whom, and whether a later access may
have been missed. Looking does not count as an access.
`

func runLast(ctx context.Context, env *environment, args []string) error {
	var s stores
	var inos, asJSON bool
	flags := flag.NewFlagSet("last", flag.ContinueOnError)
	s.flags(flags)
	flags.BoolVar(&inos, "inodes", false, "each FILE is an inode number instead of a path")
	flags.BoolVar(&asJSON, "json", false, "print JSON Lines")
	rest, err := env.program.Parse(flags, "MOUNT FILE...", lastAbout, args)
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return cli.Usagef("last", "a mount point and files are needed")
	}
	mount, files := rest[0], rest[1:]
	views, err := s.open(ctx, env, mount)
	if err != nil {
		return err
	}
	defer closeViews(views)
	enc := json.NewEncoder(env.stdout)
	for _, file := range files {
		ino, err := inodeOf(mount, file, inos)
		if err != nil {
			return err
		}
		e, seen, err := index.Find(views, ino)
		if err != nil {
			return err
		}
		e.Ino = ino
		now := index.MillisOf(env.now())
		// Without an access, all the time of observation is what it is about.
		doubts := index.Doubts(views, max(e.Last, 1), now)
		if !seen {
			doubts = index.Doubts(views, 1, now)
		}
		certain := true
		for i := range doubts {
			doubts[i].Short = doubts[i].Short && !seen
			certain = certain && doubts[i].Certain()
		}
		if asJSON {
			err = enc.Encode(objectOf(&e, seen, file, certain))
		} else {
			_, err = fmt.Fprint(env.stdout, describe(file, &e, seen, index.Latest(views, e.Last), doubts))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inodeOf returns a file's inode number.
func inodeOf(mount, file string, isIno bool) (uint64, error) {
	if isIno {
		n, err := strconv.ParseUint(file, 10, 64)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%q is not an inode number", file)
		}
		return n, nil
	}
	var st, top unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", file, err)
	}
	if err := unix.Stat(mount, &top); err != nil {
		return 0, fmt.Errorf("look at %s: %w", mount, err)
	}
	if st.Dev != top.Dev {
		return 0, fmt.Errorf("%s is not on the file system of %s", file, mount)
	}
	return st.Ino, nil
}

// describe returns the lines about a file.
func describe(file string, e *index.Entry, seen bool, latest index.Millis, doubts []index.Doubt) string {
	text := cli.Printable(file) + ": not accessed while observed\n"
	if seen {
		what := "opened"
		if e.Type == notify.TypeRead {
			what = "read"
		}
		text = fmt.Sprintf("%s: last %s %v by uid %d gid %d pid %d; %d opens, %d reads, %d bytes since %v\n",
			cli.Printable(file), what, e.Last, e.UID, e.GID, e.PID, e.Opens, e.Reads, e.Bytes, e.First)
	}
	if seen && latest > e.Last {
		text += fmt.Sprintf("  the clock was set since: it was at %v at the latest\n", latest)
	}
	for i := range doubts {
		sure := "certain since then"
		if !doubts[i].Certain() {
			sure = "may have been accessed later"
		}
		if !seen {
			sure = "no access was seen"
		}
		text += fmt.Sprintf("  %s: %s\n", sure, cli.Printable(doubts[i].String()))
	}
	return text
}
