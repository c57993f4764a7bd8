// SPDX-License-Identifier: GPL-2.0-only

// Command series maintains patches/: it carries a series to another ScoutFS release,
// recreates all series from one, checks them, and watches upstream.
// docs/rebasing.md walks through it.
//
// It works in throw-away clones of the user's ScoutFS repository, which it only
// reads, and exports the series from them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

const usage = `usage: series COMMAND [flags]

  check [VERSION...]
                  check the form of the series; with SCOUTFS_SRC also apply,
                  export and compare them; with -kbuild also build them
  rebase [-from VERSION] -to VERSION [-restart]
                  carry a series to another release; without -from the one, of
                  the releases and main, whose base is nearest to it
  export -clone DIRECTORY -to VERSION
                  write the commits on the tag in your clone as the series
  regenerate -from VERSION [-restart]
                  recreate all other series from the one for VERSION
  upstream-check  say in one line whether the newest series still fits upstream:
                  "ok: " and exit status 0 if so, "needs work: " and 1 if a
                  release does, "main needs work: " and 3 if upstream's main
                  will at its next release, "check failed: " and 2 otherwise;
                  with -write it carries the series for main to upstream's tip,
                  unless that needs a person

VERSION is a release, such as v1.30, or main: the series in patches/main, which is
for upstream's main branch as it is in SCOUTFS_SRC.

flags of all commands:
`

// options are the settings from the command line.
type options struct {
	patches string // folder of all series
	src     string // the user's ScoutFS repository
	kbuild  string // kernel build directory; "" builds nothing
	work    string // folder for clones that outlive the command
	from    string
	to      string
	clone   string // the user's clone, to export from
	branch  string // upstream's main in the user's repository; "" for the usual names
	restart bool
	details bool // write details to errs
	update  bool // upstream-check: write the series for main
	args    []string
	tmp     string // folder for clones that do not outlive the command

	out, errs io.Writer
}

// command is one of the tool's commands. run returns the exit status; 0 with an error
// becomes 1.
type command struct {
	needs []string // required flags
	args  bool     // takes arguments
	run   func(ctx context.Context, o *options) (status int, err error)
}

// plain makes a command.run of a method without an exit status of its own.
func plain(run func(*options, context.Context) error) func(context.Context, *options) (int, error) {
	return func(ctx context.Context, o *options) (int, error) { return 0, run(o, ctx) }
}

var commands = map[string]command{
	"check":          {run: plain((*options).check), args: true},
	"rebase":         {run: plain((*options).rebaseOne), needs: []string{"to"}},
	"export":         {run: plain((*options).export), needs: []string{"clone", "to"}},
	"regenerate":     {run: plain((*options).regenerate), needs: []string{"from"}},
	"upstream-check": {run: upstreamCheck},
}

func main() {
	run.Main(func(ctx context.Context) int { return execute(ctx, os.Args[1:], os.Stdout, os.Stderr) })
}

// execute runs the command line in args and returns the exit status.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	status, err := dispatch(ctx, args, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "series:", err)
		status = max(status, 1)
	}
	return status
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) (status int, err error) {
	o := &options{out: stdout, errs: stderr}
	if o.patches, err = repo.Patches(); err != nil {
		return 0, err
	}
	flags := flag.NewFlagSet("series", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.patches, "patches", o.patches, "the `folder` with the folders vX.YY")
	flags.StringVar(&o.src, "src", os.Getenv("SCOUTFS_SRC"), "your ScoutFS `repository` with tags; the default is SCOUTFS_SRC")
	flags.StringVar(&o.kbuild, "kbuild", "", "a kernel build `directory`, to build with upstream's own Makefile")
	flags.StringVar(&o.work, "work", "", "the `folder` for clones in which a person works; the default is in the cache")
	flags.StringVar(&o.from, "from", "", "the `version` to start from")
	flags.StringVar(&o.to, "to", "", "the `version` to go to")
	flags.StringVar(&o.clone, "clone", "", "export: the `directory` of your clone")
	flags.StringVar(&o.branch, "branch", "", "upstream's main `branch` in your repository (default origin/main, upstream/main or main)")
	flags.BoolVar(&o.restart, "restart", false, "throw away what is in the clone and start over")
	flags.BoolVar(&o.update, "write", false, "upstream-check: write the series for main once it is carried")
	flags.BoolVar(&o.details, "v", false, "upstream-check: print the details on standard error")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if len(args) == 0 {
		flags.Usage()
		return 2, nil
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		flags.SetOutput(stdout)
		flags.Usage()
		return 0, nil
	}
	c, ok := commands[args[0]]
	if !ok {
		return 2, fmt.Errorf("there is no command %q; series help lists them", args[0])
	}
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0, nil
	case err != nil:
		return 2, nil // package flag has said why
	}
	for _, name := range c.needs {
		if flags.Lookup(name).Value.String() == "" {
			return 0, fmt.Errorf("%s: the flag -%s is missing", args[0], name)
		}
	}
	if o.args = flags.Args(); len(o.args) > 0 && !c.args {
		return 0, fmt.Errorf("%s: %q is not a flag", args[0], o.args[0])
	}
	if o.tmp, err = os.MkdirTemp("", "series-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(o.tmp)
	return c.run(ctx, o)
}

// report prints a line about a release's series.
func (o *options) report(version, format string, args ...any) {
	fmt.Fprintf(o.out, "%s: %s\n", version, fmt.Sprintf(format, args...))
}

// write writes s to its release's folder, and removes patches that s does not have.
func (o *options) write(s *series.Series) error {
	folder := filepath.Join(o.patches, s.Version)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(folder, "*.patch"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	for _, p := range s.Patches {
		if err := os.WriteFile(filepath.Join(folder, p.Name), p.Bytes(), 0o644); err != nil {
			return err
		}
	}
	base := s.Version
	if base == series.Main {
		base = s.Base
	}
	return os.WriteFile(filepath.Join(folder, "base.txt"), []byte(base+"\n"), 0o644)
}
