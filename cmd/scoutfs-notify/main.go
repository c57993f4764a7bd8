// SPDX-License-Identifier: GPL-2.0-only

// Scoutfs-notify shows which files of a mounted ScoutFS are opened and read on
// this node, as it happens. It is a client of scoutfs-notifyd.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// version is set by the linker: -ldflags "-X main.version=1.0".
var version string

// failures are the errors with an exit status of their own.
var failures = []cli.Failure{
	{Status: cli.ExitUnavailable, Errors: []error{notify.ErrNotScoutFS, notify.ErrNotRunning, notify.ErrRefused, notify.ErrOtherMount}},
	{Status: cli.ExitNoInput, Errors: []error{notify.ErrTarget, recording.ErrFormat, os.ErrNotExist}},
	{Status: cli.ExitNoPermission, Errors: []error{os.ErrPermission}},
}

const usage = `Usage: scoutfs-notify COMMAND [flags] [MOUNT]

Shows who opens and reads which files of a mounted ScoutFS on this node. MOUNT
is its mount point or any directory below it, or the path of scoutfs-notifyd's
socket. It can be left out if there is just one, but for cold, hot and last. Any
user can run stat and socket, and what takes a recording on one that they may
read; the rest is for root.

Commands:
  tail     print each access as it happens, or those in a recording
  top      show who reads most, and what, on a live screen
  record   keep the accesses in a file
  picture  draw when, where, how often and by whom files are read
  replay   serve a recording on a socket, to try a consumer
  stat     show how the daemon and the kernel's part are doing
  socket   print where a mount's daemon listens
  cold     list the files that were not accessed for some time
  hot      list the files that were accessed most in some time
  last     show who accessed files last, and when
  version  print the version
  help     print this text, or with the name of a command its flags

Exit status: 0 when stopped or at the end of the stream, 1 for a failure, 64 for
bad flags or arguments, 66 for a path that does not exist or leads to nothing
that can be taken, 69 if no ScoutFS is mounted there or no daemon serves it, 77 if
only root may. stat exits with 1 if no daemon is running.
`

// environment is a command's view of the outside world, for tests to replace.
type environment struct {
	stdout io.Writer
	stderr io.Writer
	height func() int // of the terminal in lines, 0 if stdout is not one

	width    func() int // of it in columns, 0 if it is not one
	colours  bool       // it shows them
	progress bool       // stderr is a terminal: say how long work goes

	mountOf func(path string) (notify.MountPoint, error)
	mounts  func() ([]notify.MountPoint, error) // of ScoutFS

	terminal *os.File // stdout if there can be a live screen, nil if not
	getenv   func(string) string

	now       func() time.Time
	sinceBoot func() time.Duration

	patience time.Duration // with a daemon that does not answer

	statfs func(ctx context.Context, dir string) (notify.Mount, error)
	runDir string // of the daemons
	sysfs  string // of ScoutFS's mounts
	proc   string

	modules string                                                                      // loaded ones, in sysfs
	kernels string                                                                      // installed ones
	modinfo func(ctx context.Context, kernel string) (file, describe string, err error) // of the module that it would load

	program *cli.Program
}

func systemEnvironment() *environment {
	return &environment{
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		height:    func() int { return terminalHeight(os.Stdout) },
		width:     func() int { return terminalWidth(os.Stdout) },
		colours:   os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		progress:  terminalHeight(os.Stderr) > 0,
		mountOf:   notify.MountOf,
		mounts:    notify.Mounts,
		terminal:  liveTerminal(),
		getenv:    os.Getenv,
		now:       time.Now,
		sinceBoot: sinceBoot,
		patience:  answerTime,
		statfs:    notify.StatfsContext,
		runDir:    notify.RunDir,
		sysfs:     "/sys/fs/scoutfs",
		proc:      "/proc",
		modules:   "/sys/module",
		kernels:   "/lib/modules",
		modinfo:   modinfo,
	}
}

// terminalHeight returns how many lines a terminal has, 0 if f is not one.
func terminalHeight(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Row == 0 {
		return 24 // the terminal does not know
	}
	return int(ws.Row)
}

// liveTerminal returns stdout if it is a terminal that can move its cursor, and keys come
// from one.
func liveTerminal() *os.File {
	if term := os.Getenv("TERM"); term == "" || term == "dumb" || terminalHeight(os.Stdin) == 0 || terminalHeight(os.Stdout) == 0 {
		return nil
	}
	return os.Stdout
}

// terminalWidth returns how many columns a terminal has, 0 if f is not one.
func terminalWidth(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Col == 0 {
		return 80 // the terminal does not know
	}
	return int(ws.Col)
}

// awaitHangup returns when nobody can read what is written to f any more: the
// pipe is closed, or the terminal is gone.
func awaitHangup(f *os.File) {
	// poll reports errors and hang-ups without being asked.
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	for {
		n, err := unix.Poll(fds, -1)
		if n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			return
		}
		if err != unix.EINTR {
			select {} // such a file has no hang-ups
		}
	}
}

// errReported is a failure that the command's output has reported already.
var errReported = errors.New("no daemon is running")

// usagef makes an error about bad flags and arguments of a command.
func usagef(command, format string, a ...any) error { return cli.Usagef(command, format, a...) }

// commands run until they are done or the context is.
var commands = map[string]func(ctx context.Context, env *environment, args []string) error{
	"cold":    runIndexed("cold"),
	"hot":     runIndexed("hot"),
	"last":    runIndexed("last"),
	"picture": runPicture,
	"record":  runRecord,
	"replay":  runReplay,
	"socket":  runSocket,
	"stat":    runStat,
	"tail":    runTail,
	"top":     runTop,
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	// The second signal ends a command that is stuck in a write.
	context.AfterFunc(ctx, cancel)
	// A closed pipe ends the command: like any other write error when the command
	// writes to it, and otherwise like a signal, or an idle tail would outlive its
	// head.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		awaitHangup(os.Stdout)
		cancel()
	}()
	os.Exit(run(ctx, systemEnvironment(), os.Args[1:]))
}

// run runs the command line without the program's name and returns the exit
// status.
func run(ctx context.Context, env *environment, args []string) int {
	env.program = &cli.Program{
		Name: "scoutfs-notify", Usage: usage, Version: version, Failures: failures, Stdout: env.stdout,
		Mounts: func() (points []string) {
			mounts, _ := env.mounts() // without /proc there are none to name
			for _, m := range mounts {
				points = append(points, m.Path)
			}
			return points
		},
		Command: cli.Commands(ctx, env, commands),
	}
	err := env.program.Run(args)
	if errors.Is(err, errReported) {
		return cli.ExitFailure
	}
	return env.program.Status(env.stderr, err)
}

// parseFlags parses a command's flags and returns its one argument, the mount.
func parseFlags(env *environment, flags *flag.FlagSet, about string, args []string) (mount string, err error) {
	rest, err := env.program.Parse(flags, "[MOUNT]", about, args)
	if err != nil {
		return "", err
	}
	return theMount(env, flags.Name(), rest)
}

// theMount returns the mount that a command's arguments name, or the only one that there
// is.
func theMount(env *environment, command string, args []string) (string, error) {
	switch {
	case len(args) > 1:
		return "", usagef(command, "expected one mount point, got %d arguments", len(args))
	case len(args) == 1 && args[0] == "":
		return "", usagef(command, "the mount point is an empty string")
	case len(args) == 1:
		return args[0], nil
	}
	mounts, err := env.mounts()
	switch {
	case err != nil:
		return "", err
	case len(mounts) == 0:
		return "", usagef(command, "a mount point is missing, and no ScoutFS is mounted here")
	case len(mounts) > 1:
		points := make([]string, len(mounts))
		for i, m := range mounts {
			points[i] = m.Path
		}
		return "", usagef(command, "a mount point is missing; there are %s", strings.Join(points, ", "))
	}
	return mounts[0].Path, nil
}
