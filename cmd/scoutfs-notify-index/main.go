// SPDX-License-Identifier: GPL-2.0-only

// Scoutfs-notify-index remembers the last access to each file of a mounted ScoutFS, and
// tells which files were not read for a while, which are read most, and who read one last.
// It is a client of scoutfs-notifyd. See package index for what it keeps.
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
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// version is set by the linker: -ldflags "-X main.version=1.0".
var version string

// failures are the errors with an exit status of their own.
var failures = []cli.Failure{
	{Status: exitNoAccess, Errors: []error{index.ErrDamaged, index.ErrForeign, index.ErrNewer, index.ErrMerged}},
	{Status: cli.ExitUsage, Errors: []error{index.ErrTwice}},
	{Status: cli.ExitUnavailable, Errors: []error{notify.ErrNotScoutFS}},
	{Status: cli.ExitNoInput, Errors: []error{os.ErrNotExist}},
}

// exitNoAccess is the exit status for a store that must be looked after; see the unit.
const exitNoAccess = 77

const usage = `Usage: scoutfs-notify-index COMMAND [flags] MOUNT

Remembers the last access to each file of a mounted ScoutFS on this node, which
ScoutFS does not, and answers from that. MOUNT is its mount point or any
directory below it. All commands must be run by root.

Commands:
  follow   take the accesses of a mount into its store, until stopped
  cold     list the files that were not accessed for some time
  hot      list the files that were accessed most in some time
  last     show who accessed files last, and when
  stat     show what a store has and what it has missed
  merge    make one store of those of several nodes
  vacuum   find deleted files, for follow to forget them
  version  print the version
  help     print this text, or with the name of a command its flags

Exit status: 0 when done or stopped, 1 for a failure, 64 for bad flags or
arguments, 66 for a path or a store that does not exist, 69 if no ScoutFS is
mounted there, 77 for a store that is damaged, of another file system or of a
newer release: nothing was changed.
`

// storeRoot is where the stores are, in a folder for each file system.
const storeRoot = "/var/lib/scoutfs-notify"

// environment is a command's view of the outside world, for tests to replace.
type environment struct {
	stdout io.Writer
	stderr *os.File
	now    func() time.Time
	statfs func(ctx context.Context, dir string) (notify.Mount, error)
	open   func(dir string) (mounted, error)
	runDir string // of the daemons, "" for the usual

	program *cli.Program
}

// mounted is what [index.Mounted] does.
type mounted interface {
	Walk(seq uint64, f func(ino uint64)) error
	Path(ino uint64) (string, error)
	Owner(ino uint64) (uid uint32, bytes int64, err error)
	Project(ino uint64) (uint64, error)
	Close()
}

func systemEnvironment() *environment {
	return &environment{
		stdout: os.Stdout, stderr: os.Stderr, now: time.Now, statfs: notify.StatfsContext,
		open: func(dir string) (mounted, error) { return index.OpenMounted(dir) },
	}
}

type command func(ctx context.Context, env *environment, args []string) error

var commands = map[string]command{
	"follow": runFollow, "cold": runCold, "hot": runHot, "last": runLast, "stat": runStat, "merge": runMerge,
	"vacuum": runVacuum,
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGUSR2)
	defer cancel()
	context.AfterFunc(ctx, cancel) // the second signal ends what is stuck
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, systemEnvironment(), os.Args[1:]))
}

// run runs the command line without the program's name and returns the exit status.
func run(ctx context.Context, env *environment, args []string) int {
	env.program = &cli.Program{
		Name: "scoutfs-notify-index", Usage: usage, Version: version, Failures: failures, Stdout: env.stdout,
		Mounts: func() (points []string) {
			mounts, _ := notify.Mounts() // without /proc there are none to name
			for _, m := range mounts {
				points = append(points, m.Path)
			}
			return points
		},
		Command: cli.Commands(ctx, env, commands),
	}
	return env.program.Status(env.stderr, explain(env.program.Run(args)))
}

// explain adds to an error what to do about it.
func explain(err error) error {
	hint := ""
	switch {
	case errors.Is(err, index.ErrDamaged):
		hint = "nothing was changed; to observe from now on, move the folder away, and keep it for what it knows"
	case errors.Is(err, index.ErrForeign):
		hint = "nothing was changed; move the folder to where its file system's store belongs"
	case errors.Is(err, index.ErrNewer):
		hint = "nothing was changed; install the release that wrote it"
	case errors.Is(err, index.ErrMerged):
		hint = "nothing was changed; name another folder to follow into"
	case errors.Is(err, index.ErrTwice):
		hint = "name each store once, and none beside its copy or what it was merged into"
	case errors.Is(err, index.ErrShort):
		hint = "ask for a shorter time with -older"
	case errors.Is(err, syscall.ENOTTY):
		hint = "this ScoutFS cannot list its inodes"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		hint = "run it as root"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, hint)
}

// stores are the flags that say which stores to look at.
type stores struct {
	root string
	from []string
}

func (s *stores) rootFlag(flags *flag.FlagSet) {
	flags.StringVar(&s.root, "root", storeRoot, "look for the store in the folder of `directory` that is named by the file system's id")
}

func (s *stores) flags(flags *flag.FlagSet) {
	s.rootFlag(flags)
	flags.Func("from", "look at the store in `directory` instead, and at each further one: the stores of all nodes of a cluster, or what merge made of them", func(dir string) error {
		if dir == "" {
			return errors.New("an empty string: name a directory")
		}
		s.from = append(s.from, dir)
		return nil
	})
}

// open opens the stores for a mount.
func (s *stores) open(ctx context.Context, env *environment, mount string) ([]*index.View, error) {
	m, err := env.statfs(ctx, mount)
	if err != nil {
		return nil, err
	}
	dirs := s.from
	if len(dirs) == 0 {
		dirs = []string{filepath.Join(s.root, m.FSID.String())}
	}
	return openViews(dirs, m.FSID)
}

func openViews(dirs []string, fsid notify.ID) (views []*index.View, err error) {
	for _, dir := range dirs {
		v, err := index.OpenView(dir, fsid)
		if err != nil {
			closeViews(views)
			if errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("%w: does scoutfs-notify-index@.service run for this mount? See scoutfs-notify-index(8)", err)
			}
			return nil, err
		}
		fsid = v.FSID
		views = append(views, v)
	}
	if err := index.Distinct(views); err != nil {
		closeViews(views)
		return nil, err
	}
	return views, nil
}

func closeViews(views []*index.View) {
	for _, v := range views {
		v.Close()
	}
}

// age is a flag for a time span, with days.
type age time.Duration

func (a *age) String() string { return formatAge(time.Duration(*a)) }

func (a *age) Set(s string) error {
	d, err := parseAge(s)
	if err == nil {
		*a = age(d)
	}
	return err
}

// parseAge parses a duration, or a number of days or weeks, such as 90d.
func parseAge(s string) (time.Duration, error) {
	errAge := errors.New("not a time such as 90d, 12w, 36h or 10m, above 0")
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		var n int
		var rest string
		if k, _ := fmt.Sscanf(s, "%d%s", &n, &rest); k == 2 && rest == unit {
			if n < 1 || n > 36500 {
				return 0, errAge
			}
			return time.Duration(n) * length, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errAge
	}
	return d, nil
}

func formatAge(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return d.String()
}

// moment is a flag for a time, or for how long ago it was. The zero value is not set.
type moment struct {
	at  time.Time
	ago age
}

func (m *moment) String() string {
	switch {
	case m.ago != 0:
		return m.ago.String()
	case m.at.IsZero():
		return ""
	}
	return m.at.Format(time.RFC3339)
}

func (m *moment) Set(s string) error {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		*m = moment{at: at}
		return nil
	}
	if err := m.ago.Set(s); err != nil {
		return errors.New("neither a time such as 90d, 12w, 36h or 10m, above 0, nor one such as 2026-11-27T00:00:00Z")
	}
	m.at = time.Time{}
	return nil
}

// time returns the time that it is now.
func (m *moment) time(now time.Time) time.Time {
	if m.ago != 0 {
		return now.Add(-time.Duration(m.ago))
	}
	return m.at
}
