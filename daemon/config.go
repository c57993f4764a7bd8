// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const usage = `Usage: scoutfs-notifyd [flags] MOUNTPOINT
       scoutfs-notifyd [-run-dir directory] -sweep

Relays the access records of the ScoutFS mounted at MOUNTPOINT to clients of
` + notify.RunDir + "/<fsid>/" + notify.SocketName + ` until it is unmounted, or SIGTERM or SIGINT.
With -wait it then waits for the next mount.

Flags:
`

const usageStatus = `
Exit status:
  0   told to stop, or, without -wait, the file system was unmounted
  1   another failure
  64  bad flags or arguments
  75  the file system already has a reader or a daemon; this may pass
  77  not permitted: not root of the host, or others can write to -run-dir
  78  MOUNTPOINT is not a mounted ScoutFS, or the loaded module has no notify
      support
With -wait it ends with 75 or 78 never: it logs the reason and tries again.
`

const (
	// defaultSendBuffer lets a client that does not read fall 5,461 one-record
	// packets behind, over five times what the kernel's ring holds: the kernel
	// doubles the size and charges 768 bytes for such a packet.
	defaultSendBuffer = 2 << 20

	// minSendBuffer has room for a packet of all records of the ring.
	minSendBuffer = 2 * notify.RingRecords * notify.RecordSize

	// minQueueLimit has room for a full ring in each of some queues.
	minQueueLimit = 1 << 20

	// maxSendBuffer is the most that the kernel can double.
	maxSendBuffer = 1<<30 - 1

	// defaultQueueLimit is 16 times what a client that does not read can take.
	defaultQueueLimit = 64 << 20

	// maxPause is the longest pause that makes any sense.
	maxPause = time.Second

	// defaultCheck is seldom enough to cost nothing.
	defaultCheck = 10 * time.Second

	// defaultRetry and maxRetry are the first and the longest time between attempts
	// to serve a file system that is mounted but cannot be served.
	defaultRetry = 250 * time.Millisecond
	maxRetry     = 30 * time.Second
)

// config is what to serve and how.
type config struct {
	mountPoint string // a directory of a mounted ScoutFS; with wait, where one is mounted now and then
	runDir     string // has a directory for each file system; made if missing
	wait       bool   // after an unmount, for the next mount
	sweep      bool   // only remove what killed daemons left

	// pause is how long to leave records in the kernel after a drain that found
	// some, at most. It keeps the cost of waking the daemon off the processes that
	// read files.
	pause time.Duration

	maxClients int           // served at once
	sendBuffer int           // of each client, in bytes; the kernel doubles it
	queueLimit int           // of all clients' queues together, in bytes of memory
	interval   time.Duration // between updates of state and metrics, at least
	started    time.Time     // the process
	check      time.Duration // between looks whether the run directory is still there
	retry      time.Duration // after the first failure to serve what is mounted
	version    string
	verbose    bool
	log        *slog.Logger
	manager    *sdNotify
}

func defaultConfig() *config {
	return &config{
		started:    time.Now(),
		runDir:     notify.RunDir,
		pause:      time.Millisecond,
		maxClients: 64,
		sendBuffer: defaultSendBuffer,
		queueLimit: int(max(minQueueLimit, min(defaultQueueLimit, memoryLimit("/proc/self", "/sys/fs/cgroup")/2))),
		interval:   time.Second,
		check:      defaultCheck,
		retry:      defaultRetry,
	}
}

// configure parses the command line. If there is nothing else to do, because it
// is wrong or asks for help or the version, that is printed, and the result is nil
// and the exit status.
func configure(args []string, version string, stdout, stderr io.Writer) (*config, int) {
	cfg := defaultConfig()
	cfg.version = version
	flags := flag.NewFlagSet("scoutfs-notifyd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.runDir, "run-dir", cfg.runDir, "make the folders for sockets, one for each file system, in `directory`")
	flags.Var(cli.Duration(&cfg.pause, 0, maxPause), "pause", "wait for `duration`, 0s to 1s, after a drain that found records, or for less when they come in fast; keeps wake-ups off the readers of files")
	flags.Var(cli.Int(&cfg.maxClients, 1, math.MaxInt), "max-clients", "serve at most `count` clients at once, 1 or more")
	flags.Var(cli.Int(&cfg.sendBuffer, minSendBuffer, maxSendBuffer), "sndbuf", "size of each client's queue in `bytes`, 131072 to 1073741823, which the kernel doubles")
	flags.Var(cli.Int(&cfg.queueLimit, minQueueLimit, math.MaxInt), "queues", "let all clients' queues together take `bytes` of memory, 1048576 or more; the longest are cut short first; if not set, half of what the control group may take is enough, too")
	flags.Var(cli.Duration(&cfg.interval, 1, math.MaxInt64), "interval", "update "+notify.StateName+" and "+notify.MetricsName+" once in a `duration` at most, above 0s")
	flags.BoolVar(&cfg.wait, "wait", false, "wait for a ScoutFS to be mounted at MOUNTPOINT, and after it is unmounted for the next one")
	escaped := flags.Bool("escaped", false, "MOUNTPOINT is escaped as systemd-escape --path prints it")
	flags.BoolVar(&cfg.sweep, "sweep", false, "remove files that killed daemons left below -run-dir, and exit")
	flags.BoolVar(&cfg.verbose, "v", false, "log clients that come and go")
	showVersion := flags.Bool("version", false, "print the version and exit")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		fmt.Fprint(stdout, usageStatus)
		return nil, exitOK
	case err != nil:
	case *showVersion:
		fmt.Fprintln(stdout, "scoutfs-notifyd", version)
		return nil, exitOK
	case cfg.runDir == "":
		err = errors.New("-run-dir is an empty string: name a directory")
	case cfg.sweep && flags.NArg() > 0:
		err = errors.New("-sweep takes no mount point")
	case cfg.sweep:
	default:
		cfg.mountPoint, err = cli.MountPoint(flags.Args())
		if err == nil && *escaped {
			cfg.mountPoint, err = cli.UnescapePath(cfg.mountPoint)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "scoutfs-notifyd: %s\nTry 'scoutfs-notifyd -help'.\n", cli.Printable(err.Error()))
		return nil, exitUsage
	}
	return cfg, exitOK
}
