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
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
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
is its mount point or any directory below it, or the path of scoutfs-notifyd's
socket. tail and top must be run by root.

Commands:
  tail     print each access as it happens
  top      show which files, processes or users read most
  stat     show how the daemon and the kernel's part are doing
  version  print the version
  help     print this text, or with the name of a command its flags

Exit status: 0 when stopped or at the end of the stream, 1 for a failure, 64 for
bad flags or arguments. stat exits with 1 if no daemon is running.
`

// environment is what a command has of the outside world.
type environment struct {
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time
	height func() int // of the terminal in lines, 0 if stdout is none

	statfs func(ctx context.Context, dir string) (notify.Mount, error)
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
		statfs: notify.StatfsContext,
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
type usageError struct {
	error
	command string // whose they are, "" for the program's own
}

// errSaid is a failure that the command's output tells of.
var errSaid = errors.New("no daemon is running")

// usagef makes a usageError. The message starts with the command's name.
func usagef(command, format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	if command != "" {
		err = fmt.Errorf("%s: %w", command, err)
	}
	return usageError{err, command}
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
		try := "scoutfs-notify -help"
		if bad.command != "" {
			try = "scoutfs-notify " + bad.command + " -help"
		}
		fmt.Fprintf(env.stderr, "scoutfs-notify: %v\nTry '%s'.\n", err, try)
		return exitUsage
	}
	fmt.Fprintf(env.stderr, "scoutfs-notify: %v\n", err)
	return exitFailure
}

func dispatch(ctx context.Context, env *environment, args []string) error {
	if len(args) == 0 {
		return usagef("", "a command is missing: tail, top or stat")
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		if args[0] == "help" && len(args) > 1 && args[1] != "help" && args[1] != "version" && !isFlag(args[1]) {
			return dispatch(ctx, env, []string{args[1], "-help"})
		}
		_, err := io.WriteString(env.stdout, usage)
		return err
	case "-version", "--version", "version":
		_, err := fmt.Fprintln(env.stdout, "scoutfs-notify", buildVersion())
		return err
	}
	cmd, ok := commands[args[0]]
	if !ok {
		return usagef("", "there is no command %q: the commands are tail, top and stat", args[0])
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
		return "", usagef(flags.Name(), "%w%s", err, allowed(flags, err))
	}
	switch {
	case flags.NArg() == 0:
		return "", usagef(flags.Name(), "a mount point is missing")
	case flags.NArg() > 1 && slices.ContainsFunc(flags.Args(), isFlag):
		return "", usagef(flags.Name(), "expected one mount point, got %d arguments: flags come before the mount point", flags.NArg())
	case flags.NArg() > 1:
		return "", usagef(flags.Name(), "expected one mount point, got %d arguments", flags.NArg())
	case flags.Arg(0) == "":
		return "", usagef(flags.Name(), "the mount point is an empty string")
	}
	return flags.Arg(0), nil
}

func isFlag(arg string) bool { return strings.HasPrefix(arg, "-") }

// flagInError finds the flag that package flag complains of.
var flagInError = regexp.MustCompile(`invalid value .* for flag -([a-z-]+): `)

// allowed says what a flag takes, if that is what package flag complains of:
// all it says itself is "parse error".
func allowed(flags *flag.FlagSet, err error) string {
	m := flagInError.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	getter, ok := flags.Lookup(m[1]).Value.(flag.Getter)
	if !ok {
		return ""
	}
	switch getter.Get().(type) {
	case time.Duration:
		return ": a duration is a number with a unit, such as 500ms or 2s"
	case uint64:
		return ": it takes a whole number, 0 or more"
	case int:
		return ": it takes a whole number"
	}
	return ""
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
