// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"flag"
	"fmt"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

const mergeAbout = `Makes one store of those of several nodes, for -from of the other commands. Of each
file it has the newest access of any node; what it does not know is what any of them
does not know. The stores may be copies, or be written meanwhile, but none may be
there twice.
`

func runMerge(_ context.Context, env *environment, args []string) error {
	out := ""
	flags := flag.NewFlagSet("merge", flag.ContinueOnError)
	flags.StringVar(&out, "o", "", "write the result to `directory`, which must not exist")
	rest, err := env.program.Parse(flags, "STORE...", mergeAbout, args)
	if err != nil {
		return err
	}
	if out == "" || len(rest) == 0 {
		return cli.Usagef("merge", "-o and at least one store are needed")
	}
	views, err := openViews(rest, 0)
	if err != nil {
		return err
	}
	defer closeViews(views)
	entries, err := index.Merge(out, views)
	if err != nil {
		return fmt.Errorf("merge into %s: %w", out, err)
	}
	_, err = fmt.Fprintf(env.stdout, "%s: %d entries of %d stores\n", out, entries, len(views))
	return err
}
