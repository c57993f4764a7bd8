// SPDX-License-Identifier: GPL-2.0-only

// Command series looks after the patches: it carries a series to another ScoutFS
// release, makes all of them anew from one, checks them, and watches what
// upstream does. docs/rebasing.md walks through it.
//
// It runs git on throw-away clones of the user's ScoutFS repository, which it
// only reads, and exports what stands there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const usage = `usage: series COMMAND [flags]

  list            print the supported versions, oldest first
  check [VERSION...]
                  check the form of the series; with SCOUTFS_SRC also apply,
                  export and compare them; with -kbuild also build them
  rebase -from VERSION -to VERSION [-restart]
                  carry a series to another release
  export -clone DIRECTORY -to VERSION
                  write what stands on the tag in your clone as the series
  regenerate -from VERSION [-restart]
                  make all other series anew from the one for VERSION
  upstream-check  say in one line whether the newest series still fits upstream:
                  "ok: " and exit status 0 if so, "needs work: " and 1 if a
                  release does, "main needs work: " and 3 if upstream's main
                  will at its next release, "check failed: " and 2 otherwise

flags of all commands:
`

// jobs is how many compilers run at once.
func jobs() int { return runtime.NumCPU() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := &options{out: stdout}
	var from, to, branch, dir string
	var restart, verbose bool
	fs := flag.NewFlagSet("series", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.patches, "patches", "patches", "the `folder` with the folders vX.YY")
	fs.StringVar(&o.src, "src", os.Getenv("SCOUTFS_SRC"), "your ScoutFS `repository` with tags; the default is SCOUTFS_SRC")
	fs.StringVar(&o.kbuild, "kbuild", "", "a kernel build `directory`, to build with upstream's own Makefile")
	fs.StringVar(&o.work, "work", defaultWork(), "the `folder` for the clones that a person works in")
	fs.StringVar(&from, "from", "", "the `version` to start from")
	fs.StringVar(&to, "to", "", "the `version` to go to")
	fs.StringVar(&dir, "clone", "", "export: the `directory` of your clone")
	fs.StringVar(&branch, "branch", "", "upstream's main `branch` in your repository (default origin/main, upstream/main or main)")
	fs.BoolVar(&restart, "restart", false, "throw away what is in the clone and start over")
	fs.BoolVar(&verbose, "v", false, "upstream-check: tell the details on standard error")
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if len(args) == 0 {
		fs.Usage()
		return 2
	}
	command := args[0]
	if err := fs.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	need := func(values ...string) error {
		for i := 0; i < len(values); i += 2 {
			if values[i+1] == "" {
				return fmt.Errorf("%s: the flag -%s is missing", command, values[i])
			}
		}
		if fs.NArg() > 0 && command != "check" {
			return fmt.Errorf("%s: %q is no flag", command, fs.Arg(0))
		}
		return nil
	}
	status := 0
	var err error
	switch command {
	case "list":
		if err = need(); err == nil {
			var all []string
			if all, err = versions(o.patches); err == nil {
				fmt.Fprintln(stdout, strings.Join(all, "\n"))
			}
		}
	case "check":
		list := fs.Args()
		if len(list) == 0 {
			list, err = versions(o.patches)
		}
		if err == nil {
			err = o.check(ctx, list)
		}
	case "rebase":
		if err = need("from", from, "to", to); err == nil {
			var r *reference
			var cleanup func()
			if r, cleanup, err = o.reference(ctx, from); err == nil {
				err = o.rebase(ctx, r, to, restart)
				cleanup()
			}
		}
	case "export":
		if err = need("clone", dir, "to", to); err == nil {
			err = o.export(ctx, dir, to)
		}
	case "regenerate":
		if err = need("from", from); err == nil {
			err = o.regenerate(ctx, from, restart)
		}
	case "upstream-check":
		if err = need(); err != nil {
			status = upstreamFailed
		} else {
			var line string
			line, status, err = o.upstreamCheck(ctx, branch, func(text string) {
				if verbose {
					fmt.Fprintln(stderr, text)
				}
			})
			fmt.Fprintln(stdout, line)
		}
	case "help", "-h", "-help", "--help":
		fs.SetOutput(stdout)
		fmt.Fprint(stdout, usage)
		fs.PrintDefaults()
	default:
		err = fmt.Errorf("there is no command %q; series help lists them", command)
		status = 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "series:", err)
		if status == 0 {
			status = 1
		}
	}
	return status
}

// defaultWork is the folder for clones in the cache.
func defaultWork() string {
	cache := os.Getenv("SCOUTFS_NOTIFY_CACHE")
	if cache == "" {
		cache = ".cache"
	}
	return filepath.Join(cache, "rebase")
}
