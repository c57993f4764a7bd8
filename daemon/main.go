// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const usage = `Usage: scoutfs-notifyd [flags] MOUNTPOINT

Relays the access records of the ScoutFS mounted at MOUNTPOINT to clients of
/run/scoutfs/<fsid>/notify.sock until it is unmounted, or SIGTERM or SIGINT.

Flags:
`

const usageStatus = `
Exit status:
  0   told to stop, or the file system was unmounted
  1   another failure
  64  bad flags or arguments
  75  the file system already has a reader or a daemon; this may pass
  77  not permitted: not root of the host, or others can write to -run-dir
  78  MOUNTPOINT is not a mounted ScoutFS, or the loaded module has no notify
      support
`

// Main is scoutfs-notifyd: it parses the command line without the program's
// name, serves until told to stop, and returns the exit status. version may be
// empty.
func Main(args []string, version string) int {
	return start(args, version, os.Stdout, os.Stderr, kernel{})
}

func start(args []string, version string, stdout, stderr *os.File, sys system) int {
	// There is next to no garbage: what of it there is shall not make the heap
	// grow to Go's first threshold, 4 MiB, which takes hours to show.
	debug.SetGCPercent(10)
	// Nor shall the kernel put a huge page under it: that would be a quarter of all
	// the daemon's memory, whenever khugepaged gets round to it.
	unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	// One goroutine does all the work; more processors would only give each a
	// cache of memory.
	runtime.GOMAXPROCS(1)

	cfg := DefaultConfig()
	cfg.Version = buildVersion(version)

	flags := flag.NewFlagSet("scoutfs-notifyd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "make the folders for sockets, one for each file system, in `directory`")
	flags.DurationVar(&cfg.Pause, "pause", cfg.Pause, "wait for `duration`, 0s to 1s, after a drain that found fewer than 512 records; keeps wake-ups off the readers of files")
	flags.IntVar(&cfg.MaxClients, "max-clients", cfg.MaxClients, "serve at most `count` clients at once, 1 or more")
	flags.IntVar(&cfg.SendBuffer, "sndbuf", cfg.SendBuffer, "size of each client's queue in `bytes`, 131072 to 1073741823, which the kernel doubles")
	flags.DurationVar(&cfg.Interval, "interval", cfg.Interval, "update state.json and metrics.prom once in a `duration` at most, above 0s")
	verbose := flags.Bool("v", false, "log clients that come and go")
	showVersion := flags.Bool("version", false, "print the version and exit")
	printUsage := func(w io.Writer) {
		fmt.Fprint(w, usage)
		flags.SetOutput(w)
		flags.PrintDefaults()
		fmt.Fprint(w, usageStatus)
	}
	complain := func(format string, a ...any) int {
		fmt.Fprintf(stderr, "scoutfs-notifyd: "+format+"\nTry 'scoutfs-notifyd -help'.\n", a...)
		return ExitUsage
	}

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		printUsage(stdout)
		return ExitOK
	case err != nil:
		return complain("%v%s", err, allowed(flags, err))
	case *showVersion:
		fmt.Fprintln(stdout, "scoutfs-notifyd", cfg.Version)
		return ExitOK
	case flags.NArg() == 0:
		return complain("a mount point is missing")
	case flags.NArg() > 1 && slices.ContainsFunc(flags.Args(), func(arg string) bool { return strings.HasPrefix(arg, "-") }):
		return complain("expected one mount point, got %d arguments: flags come before the mount point", flags.NArg())
	case flags.NArg() > 1:
		return complain("expected one mount point, got %d arguments", flags.NArg())
	case flags.Arg(0) == "":
		return complain("the mount point is an empty string")
	}
	cfg.MountPoint = flags.Arg(0)
	if err := cfg.check(); err != nil {
		return complain("%v", err)
	}
	direct := newLogger(stderr, stderr, *verbose)
	queue := newLogQueue(stderr, func(lost uint64) {
		direct.Warn("log lines were lost: nobody took them in time", "lines", lost)
	})
	defer queue.close()
	cfg.Logger = newLogger(stderr, queue, *verbose)

	if err := leaveDirectory(&cfg); err != nil {
		cfg.Logger.Error("cannot start", "error", err)
		return ExitStatus(err)
	}
	// A reader of our log that goes away is no reason to stop.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()

	warnOfLimit(&cfg)
	err := run(ctx, cfg, sys)
	if err != nil {
		cfg.Logger.Error("giving up", append([]any{"error", err}, hint(err)...)...)
	}
	return ExitStatus(err)
}

// allowed says what a flag takes if package flag complains of its value, of which
// it only says "parse error".
func allowed(flags *flag.FlagSet, err error) string {
	_, name, _ := strings.Cut(err.Error(), " for flag -")
	name, _, _ = strings.Cut(name, ":")
	if f := flags.Lookup(name); f != nil {
		switch f.Value.(flag.Getter).Get().(type) {
		case time.Duration:
			return ": a duration is a number with a unit, such as 500us or 1ms"
		case int:
			return ": it takes a whole number"
		}
	}
	return ""
}

// warnOfLimit says so if there are too few descriptors for the clients.
func warnOfLimit(cfg *Config) {
	const others = 16 // what the daemon and the runtime have open besides
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(cfg.MaxClients)+others {
		cfg.Logger.Warn("-max-clients is more than the limit of open files allows", "max_clients", cfg.MaxClients, "limit", limit.Cur)
	}
}

// leaveDirectory goes where it keeps nothing from being unmounted.
func leaveDirectory(cfg *Config) error {
	var err error
	for _, path := range []*string{&cfg.MountPoint, &cfg.RunDir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}

// hint tells what to do about an error, as an attribute of a log line.
func hint(err error) []any {
	switch {
	case errors.Is(err, notify.ErrNotSupported):
		return []any{"hint", installHint("/sys/module/scoutfs")}
	case errors.Is(err, notify.ErrNotScoutFS):
		return []any{"hint", "mount the file system first and name its mount point"}
	case errors.Is(err, notify.ErrBusy):
		return []any{"hint", "stop the other reader; this finds it: find /proc -path '/proc/[0-9]*/fd/*' -lname '*scoutfs-notify*'"}
	case errors.Is(err, errUnsafeDir):
		return []any{"hint", "give it to the daemon's user and to nobody else: chown root: DIRECTORY && chmod 755 DIRECTORY"}
	case errors.Is(err, os.ErrPermission):
		return []any{"hint", "run it as root of the host, with CAP_SYS_ADMIN and CAP_NET_ADMIN"}
	}
	return nil
}

// newLogger logs to w, from which it gets to the file. If that is the journal, it
// leaves the time to it and tells it the priority of each line, as in
// sd-daemon(3).
func newLogger(file *os.File, w io.Writer, verbose bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		opts.Level = slog.LevelDebug
	}
	if isJournal(file) {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			switch {
			case len(groups) > 0:
			case a.Key == slog.TimeKey:
				return slog.Attr{}
			case a.Key == slog.LevelKey: // which comes first, without the time
				if level, ok := a.Value.Any().(slog.Level); ok {
					a.Key = priority(level) + a.Key
				}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// priority is a level as the start of a line tells it to the journal.
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// isJournal compares a file with JOURNAL_STREAM, device:inode.
func isJournal(f *os.File) bool {
	stream := os.Getenv("JOURNAL_STREAM")
	if stream == "" {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// buildVersion is the version the linker was given, or the module's.
func buildVersion(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
