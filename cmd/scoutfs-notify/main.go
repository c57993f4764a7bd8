// SPDX-License-Identifier: GPL-2.0-only

// Scoutfs-notify shows which files of a mounted ScoutFS are opened and read on
// this node, as it happens. It is a client of scoutfs-notifyd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// version is set by the linker: -ldflags "-X main.version=1.0".
var version string

// Exit statuses, which are told in the usage.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 64
)

const usage = `Usage: scoutfs-notify COMMAND [flags] MOUNT

Shows who opens and reads which files of a mounted ScoutFS on this node. MOUNT
is its mount point, or the path of scoutfs-notifyd's socket.

Commands:
  tail  print each access as it happens
  top   show the files, processes or users with the most accesses
  stat  show how the daemon and the kernel's part are doing

'scoutfs-notify COMMAND -help' tells of a command's flags.

Exit status: 0 when stopped or at the end of the stream, 1 for a failure, 64 for
bad flags or arguments. stat exits with 1 if no daemon is running.
`

// environment is what a command has of the outside world.
type environment struct {
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time
	height func() int // of the terminal in lines, 0 if stdout is none

	statfs func(dir string) (notify.Mount, error)
	runDir string // of daemons' sockets
	sysfs  string // of ScoutFS's mounts
	proc   string
}

func systemEnvironment() *environment {
	return &environment{
		stdout: os.Stdout,
		stderr: os.Stderr,
		now:    time.Now,
		height: func() int { return terminalHeight(os.Stdout) },
		statfs: notify.Statfs,
		runDir: notify.RunDir,
		sysfs:  "/sys/fs/scoutfs",
		proc:   "/proc",
	}
}

// terminalHeight returns how many lines a terminal has, 0 if f is none.
func terminalHeight(f *os.File) int {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if ws.Row == 0 {
		return 24 // it does not know
	}
	return int(ws.Row)
}

// awaitHangup returns when nobody can read any more what is written to f: the
// pipe is closed, or the terminal gone.
func awaitHangup(f *os.File) {
	// Errors and hang-ups are told without being asked for.
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	for {
		n, err := unix.Poll(fds, -1)
		if n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			return
		}
		if err != unix.EINTR {
			select {} // it cannot be told
		}
	}
}

// usageError is for bad flags and arguments.
type usageError struct{ error }

// errSaid is a failure that the command's output tells of.
var errSaid = errors.New("no daemon is running")

func usagef(format string, a ...any) error {
	return usageError{fmt.Errorf(format, a...)}
}

// command runs until it is done or the context is.
type command func(ctx context.Context, env *environment, args []string) error

var commands = map[string]command{
	"stat": runStat,
	"tail": runTail,
	"top":  runTop,
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	// The second signal ends a command that is stuck in a write.
	context.AfterFunc(ctx, cancel)
	// Writing to a closed pipe shall end the command like any other write error,
	// and closing it like a signal, or an idle tail would outlive its head.
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
	err := dispatch(ctx, env, args)
	var bad usageError
	switch {
	case errors.Is(err, errSaid):
		return exitFailure
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, syscall.EPIPE):
		// Whoever read our output has had enough, as in tail | head.
		return exitOK
	case errors.As(err, &bad):
		fmt.Fprintf(env.stderr, "scoutfs-notify: %v\nTry 'scoutfs-notify -help'.\n", err)
		return exitUsage
	}
	fmt.Fprintf(env.stderr, "scoutfs-notify: %v\n", err)
	return exitFailure
}

func dispatch(ctx context.Context, env *environment, args []string) error {
	if len(args) == 0 {
		return usagef("expected a command")
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		_, err := io.WriteString(env.stdout, usage)
		return err
	case "-version", "--version", "version":
		_, err := fmt.Fprintln(env.stdout, "scoutfs-notify", buildVersion())
		return err
	}
	cmd, ok := commands[args[0]]
	if !ok {
		return usagef("there is no command %q", args[0])
	}
	return cmd(ctx, env, args[1:])
}

// parseFlags parses a command's flags and returns its one argument, the mount.
func parseFlags(env *environment, flags *flag.FlagSet, about string, args []string) (mount string, err error) {
	flags.SetOutput(io.Discard)
	err = flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(env.stdout)
		fmt.Fprintf(env.stdout, "Usage: scoutfs-notify %s [flags] MOUNT\n\n%s\nFlags:\n", flags.Name(), about)
		flags.PrintDefaults()
		return "", err
	}
	if err != nil {
		return "", usagef("%s: %w", flags.Name(), err)
	}
	if flags.NArg() != 1 {
		return "", usagef("%s: expected one mount point, got %d arguments", flags.Name(), flags.NArg())
	}
	return flags.Arg(0), nil
}

// buildVersion is the version the linker was given, or the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
