// SPDX-License-Identifier: GPL-2.0-only

// Package daemon is scoutfs-notifyd: it drains the access records of one mounted
// ScoutFS and sends each to every client of a local socket.
//
// One goroutine does the work, in the poll(2) loop at the top of relay.go. The
// kernel's socket buffers are the only queues.
package daemon

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

// Main is scoutfs-notifyd. It parses the command line, without the program's name,
// serves until it is told to stop or the file system is unmounted, and returns the
// exit status. Without a version it is the module's.
func Main(args []string, version string) int {
	return start(args, version, os.Stdout, os.Stderr, kernel{})
}

func start(args []string, version string, stdout, stderr *os.File, sys system) int {
	tuneRuntime()
	cfg, status := configure(args, cli.Version(version), stdout, stderr)
	if cfg == nil {
		return status
	}
	log, closeLog := openLog(stderr, cfg.verbose)
	defer closeLog()
	cfg.log = log
	warnOfLimit(cfg)

	// A reader of the log that goes away is no reason to stop, nor is a request to
	// reload: there is nothing to read again.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()

	err := leaveDirectory(cfg)
	if err == nil {
		err = run(ctx, cfg, sys)
	}
	status, hint := explain(err)
	if err != nil {
		attrs := []any{"error", err}
		if hint != "" {
			attrs = append(attrs, "hint", hint)
		}
		log.Error("giving up", attrs...)
	}
	return status
}

// tuneRuntime keeps the process small.
func tuneRuntime() {
	// There is next to no garbage. Without this the heap would creep up to Go's
	// first threshold, 4 MiB, over some hours.
	debug.SetGCPercent(10)
	// A huge page under the heap would be a quarter of all the daemon's memory,
	// whenever khugepaged gets round to it.
	unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	// One goroutine does all the work. More processors would only add a cache of
	// memory each.
	runtime.GOMAXPROCS(1)
}

// warnOfLimit logs if there are too few descriptors for all clients.
func warnOfLimit(cfg *config) {
	const others = 16 // what the daemon and the runtime have open besides
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(cfg.maxClients)+others {
		cfg.log.Warn("-max-clients is more than the limit of open files allows", "max_clients", cfg.maxClients, "limit", limit.Cur)
	}
}

// leaveDirectory goes to /, where the process keeps nothing from being unmounted.
// The paths become absolute, also for state and messages, which name them to people
// in other directories.
func leaveDirectory(cfg *config) (err error) {
	for _, path := range []*string{&cfg.mountPoint, &cfg.runDir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}
