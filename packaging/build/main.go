// SPDX-License-Identifier: GPL-2.0-only

// Command build makes the project's packages. The Makefile's targets are thin
// names for its commands; it must run in the root of the repository.
//
// ScoutFS itself is never part of the repository: what needs its source takes it
// from the user's own checkout, named by SCOUTFS_SRC.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `usage: build COMMAND [ARGUMENT...]

  versions             print the ScoutFS versions that have a series
  stage VERSION DIR    stage the DKMS source tree of VERSION under DIR
  kmod [VERSION...]    compile the patched module with dkms, in private trees
  srpm [VERSION...]    source packages
  rpm [VERSION...]     source packages and the packages rebuilt from them
  notifyd              daemon packages, rpm and deb
  header FILE          write the C header out of the series
  packages [VERSION...]
                       everything, with a repository index
  mock CHROOT [VERSION...]
                       source packages, rebuilt by mock in mock/CHROOT.cfg
  release [-n]         check that a release is due and create its tags; -n: check only

Without VERSION: every version that has a series.

Environment:
  SCOUTFS_SRC        ScoutFS checkout or bare repository, with its tags
  PATCHES_DIR        the series (default patches)
  DIST_DIR           where results go (default dist)
  KVER, KERNEL_SRC   kmod: kernel release (default the running one) and its headers
  COMPILE_CHECK      when not empty, rpm, packages and mock compile the module before
                     they package it, for each kernel whose headers are below
                     /usr/src/kernels; rpm and packages for KERNEL_SRC, if that is
                     set, which alone turns the check on
  SOURCE_DATE_EPOCH  time stamp of results (default the newest changelog entry)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// What is packaged must not depend on the caller's umask.
	syscall.Umask(0o022)

	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "build: %v\n", err)
	var u usageError
	if errors.As(err, &u) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is a mistake in the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return usageError("no command given")
	}
	cmd, args := args[0], args[1:]
	if cmd == "help" || cmd == "-h" || cmd == "--help" {
		fmt.Fprint(out, usage)
		return nil
	}
	p, err := openProject(".", os.Getenv, out)
	if err != nil {
		return err
	}
	nargs := func(n int) error {
		if len(args) != n {
			return usageError(fmt.Sprintf("%s takes %d arguments, not %d", cmd, n, len(args)))
		}
		return nil
	}

	switch cmd {
	case "versions":
		if err := nargs(0); err != nil {
			return err
		}
		for _, s := range p.series {
			fmt.Fprintln(out, s.name())
		}
		return nil
	case "stage":
		if err := nargs(2); err != nil {
			return err
		}
		series, err := p.pick(args[:1])
		if err != nil {
			return err
		}
		dir, err := p.stage(ctx, series[0], args[1])
		if err != nil {
			return err
		}
		p.say("staged %s", dir)
		return nil
	case "kmod", "srpm", "rpm":
		series, err := p.pick(args)
		if err != nil {
			return err
		}
		for _, s := range series {
			switch cmd {
			case "kmod":
				err = p.kmod(ctx, s)
			case "srpm":
				_, err = p.srpm(ctx, s, p.dist)
			case "rpm":
				err = p.rpm(ctx, s)
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", cmd, s.name(), err)
			}
		}
		return nil
	case "notifyd":
		if err := nargs(0); err != nil {
			return err
		}
		return p.notifyd(ctx)
	case "header":
		if err := nargs(1); err != nil {
			return err
		}
		return p.header(ctx, args[0])
	case "packages":
		series, err := p.pick(args)
		if err != nil {
			return err
		}
		return p.packages(ctx, series)
	case "mock":
		if len(args) == 0 {
			return usageError("mock needs a chroot")
		}
		series, err := p.pick(args[1:])
		if err != nil {
			return err
		}
		return p.mock(ctx, args[0], series)
	case "release":
		dry := len(args) == 1 && args[0] == "-n"
		if !dry {
			if err := nargs(0); err != nil {
				return err
			}
		}
		return p.releaseTags(ctx, dry)
	}
	return usageError(fmt.Sprintf("unknown command %q", strings.TrimSpace(cmd)))
}
