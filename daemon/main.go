// SPDX-License-Identifier: GPL-2.0-only

// Package daemon is scoutfs-notifyd: it drains the access records of one mounted
// ScoutFS and sends each to every client of a local socket.
//
// One goroutine does the work, in the poll(2) loop at the top of relay.go. The
// kernel's socket buffers are the only queues.
package daemon

import (
	"context"
	"log/slog"
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
	if err := begin(cfg, sys); err != nil {
		status, hint := explain(err)
		attrs := []any{"error", err}
		if hint != "" {
			attrs = append(attrs, "hint", hint)
		}
		log.Error("giving up", attrs...)
		return status
	}
	return exitOK
}

// begin does what the command line asks for, until a signal ends it.
func begin(cfg *config, sys system) (err error) {
	ctx, cancel := takeSignals(cfg.log)
	defer cancel()
	if err := leaveDirectory(cfg); err != nil {
		return err
	}
	swept, err := sweep(cfg.runDir)
	for _, dir := range swept {
		cfg.log.Info("removed the files of a daemon that was killed", "directory", dir)
	}
	if cfg.sweep {
		return err
	}
	if err != nil {
		// The directories of others are no reason not to serve.
		cfg.log.Warn("cannot remove the files of a daemon that was killed", "error", err)
	}
	if cfg.manager, err = openNotify(cfg.wait); err != nil {
		return err
	}
	defer cfg.manager.close()
	if !cfg.wait {
		return run(ctx, cfg, sys)
	}
	err = waitAndServe(ctx, cfg, sys)
	cfg.manager.send("STOPPING=1")
	return err
}

// takeSignals returns a context that SIGTERM, SIGINT and SIGUSR2 end. Its cause says
// whether the daemon is to be started again.
func takeSignals(log *slog.Logger) (context.Context, context.CancelFunc) {
	// A reader of the log that goes away is no reason to stop.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := range signals {
			switch s {
			case syscall.SIGHUP:
				log.Info("SIGHUP changes nothing: there is nothing to read again")
			case syscall.SIGUSR2:
				cancel(errRestarting)
			default:
				cancel(errStopping)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		<-ended // it logs
		cancel(nil)
	}
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
