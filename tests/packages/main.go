// SPDX-License-Identifier: GPL-2.0-only

// Command packages makes the project's packages. The Makefile's targets call its
// commands.
//
// ScoutFS's source is not part of the repository: commands that need it take it
// from the user's checkout, SCOUTFS_SRC.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

const usage = `usage: packages COMMAND [ARGUMENT...]

  kmod [VERSION...]    compile the patched module with dkms, in private trees
  srpm [VERSION...]    source packages
  rpm [VERSION...]     source packages and the packages rebuilt from them
  deb [VERSION...]     the module's packages for Debian
  notifyd              daemon packages, rpm and deb
  index                the indexes of what is there, for dnf and for apt
  all [VERSION...]     everything, with the indexes
  mock CHROOT [VERSION...]
                       source packages, and the packages that mock rebuilds from
                       them with mock/CHROOT.cfg
  release [-n]         check that a release is due and create its tags; -n: check only

Without VERSION: every release that has a series.

Environment:
  SCOUTFS_SRC        ScoutFS checkout or bare repository, with its tags
  PATCHES_DIR        the series (default patches)
  DIST_DIR           where results go (default dist)
  KVER, KERNEL_SRC   kmod: kernel release (default the running one) and its headers
  COMPILE_CHECK      if not empty, rpm, all and mock compile the module before
                     they package it, for each kernel with headers below
                     /usr/src/kernels. KERNEL_SRC makes rpm and all compile it
                     for that kernel instead, also without COMPILE_CHECK
  SOURCE_DATE_EPOCH  time stamp of results (default the newest changelog entry)

Relative paths start at the top of the repository.
`

func main() {
	// What is packaged must not depend on the caller's umask.
	syscall.Umask(0o022)
	run.Main(func(ctx context.Context) int {
		err := execute(ctx, os.Args[1:], os.Stdout)
		if err == nil {
			return 0
		}
		fmt.Fprintf(os.Stderr, "packages: %v\n", err)
		var u usageError
		if errors.As(err, &u) {
			fmt.Fprint(os.Stderr, usage)
			return 2
		}
		return 1
	})
}

// usageError is a mistake in the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

// command is one of the program's commands. It takes min to max arguments after its
// name; max is -1 for any number.
type command struct {
	min, max int
	run      func(p *project, ctx context.Context, args []string) error
}

// each makes a command.run that calls do for each release in its arguments.
func each(do func(p *project, ctx context.Context, r release) error) func(*project, context.Context, []string) error {
	return func(p *project, ctx context.Context, args []string) error {
		picked, err := p.pick(args)
		if err != nil {
			return err
		}
		for _, r := range picked {
			if err := do(p, ctx, r); err != nil {
				return fmt.Errorf("%s: %w", r.Version, err)
			}
		}
		return nil
	}
}

var commands = map[string]command{
	"kmod": {0, -1, each((*project).kmod)},
	"srpm": {0, -1, each(func(p *project, ctx context.Context, r release) error {
		_, err := p.srpm(ctx, r, p.dist)
		return err
	})},
	"rpm":     {0, -1, each((*project).rpm)},
	"deb":     {0, -1, each((*project).deb)},
	"notifyd": {0, 0, func(p *project, ctx context.Context, _ []string) error { return p.notifyd(ctx) }},
	"index":   {0, 0, func(p *project, ctx context.Context, _ []string) error { return p.index(ctx) }},
	"all":     {0, -1, (*project).all},
	"mock":    {1, -1, (*project).mock},
	"release": {0, 1, func(p *project, ctx context.Context, args []string) error {
		if len(args) == 1 && args[0] != "-n" {
			return usageError(fmt.Sprintf("release takes -n or nothing, not %q", args[0]))
		}
		return p.releaseTags(ctx, len(args) == 1)
	}},
}

// execute is main without the process.
func execute(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return usageError("no command given")
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		_, err := io.WriteString(out, usage)
		return err
	}
	c, ok := commands[args[0]]
	if !ok {
		return usageError(fmt.Sprintf("there is no command %q", args[0]))
	}
	if n := len(args) - 1; n < c.min || c.max >= 0 && n > c.max {
		return usageError(fmt.Sprintf("%s: a wrong number of arguments: %d", args[0], n))
	}
	root, err := repo.Root()
	if err != nil {
		return err
	}
	p, err := openProject(root, os.Getenv, out)
	if err != nil {
		return err
	}
	return c.run(p, ctx, args[1:])
}
