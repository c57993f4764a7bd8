// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

const vacuumAbout = `Finds the files that were deleted among those that a store has from before the days
that it tells apart. follow drops them when it next writes to disk, or when it next
runs. Until then, and without this, they only take room.
`

func runVacuum(ctx context.Context, env *environment, args []string) error {
	var s stores
	flags := flag.NewFlagSet("vacuum", flag.ContinueOnError)
	s.rootFlag(flags)
	rest, err := env.program.Parse(flags, "MOUNT", vacuumAbout, args)
	if err != nil {
		return err
	}
	mount, err := cli.MountPoint(rest)
	if err != nil {
		return cli.Usagef("vacuum", "%w", err)
	}
	views, err := s.open(ctx, env, mount)
	if err != nil {
		return err
	}
	defer closeViews(views)
	m, err := env.open(mount)
	if err != nil {
		return err
	}
	defer m.Close()

	progress := startProgress(env.stderr)
	defer progress.end()
	inodes, gone, err := index.Vacuum(views[0], func(seq uint64, f func(uint64)) error {
		return m.Walk(seq, func(ino uint64) {
			progress.count("files looked at")
			f(ino)
		})
	}, func(ino uint64) (bool, error) {
		progress.count("files that may be deleted")
		_, _, err := m.Owner(ino)
		if errors.Is(err, os.ErrNotExist) {
			return false, ctx.Err()
		}
		return true, errors.Join(err, ctx.Err())
	})
	progress.end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.stdout, "%d of %d inodes are deleted\n", gone, inodes)
	return err
}
