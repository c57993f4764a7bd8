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

Relays the access records of the ScoutFS mounted at MOUNTPOINT to clients of
` + notify.RunDir + "/<fsid>/" + notify.SocketName + ` until it is unmounted, or SIGTERM or SIGINT.

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

	// defaultQueueLimit is four times what a client that does not read can take.
	defaultQueueLimit = 16 << 20

	// maxPause is the longest pause that makes any sense.
	maxPause = time.Second
)

// config is what to serve and how.
type config struct {
	mountPoint string // a directory of a mounted ScoutFS
	runDir     string // has a directory for each file system; made if missing

	// pause is how long to leave records in the kernel after a drain that found
	// few. It keeps the cost of waking the daemon off the processes that read
	// files. The ring must not fill up meanwhile.
	pause time.Duration

	maxClients int           // served at once
	sendBuffer int           // of each client, in bytes; the kernel doubles it
	queueLimit int           // of all clients' queues together, in bytes of memory
	interval   time.Duration // between updates of state and metrics, at least
	started    time.Time     // the process
	version    string
	verbose    bool
	log        *slog.Logger
}

func defaultConfig() *config {
	return &config{
		started:    time.Now(),
		runDir:     notify.RunDir,
		pause:      time.Millisecond,
		maxClients: 64,
		sendBuffer: defaultSendBuffer,
		queueLimit: defaultQueueLimit,
		interval:   time.Second,
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
	flags.Var(cli.Duration(&cfg.pause, 0, maxPause), "pause", "wait for `duration`, 0s to 1s, after a drain that found fewer than 512 records; keeps wake-ups off the readers of files")
	flags.Var(cli.Int(&cfg.maxClients, 1, math.MaxInt), "max-clients", "serve at most `count` clients at once, 1 or more")
	flags.Var(cli.Int(&cfg.sendBuffer, minSendBuffer, maxSendBuffer), "sndbuf", "size of each client's queue in `bytes`, 131072 to 1073741823, which the kernel doubles")
	flags.Var(cli.Int(&cfg.queueLimit, minQueueLimit, math.MaxInt), "queues", "let all clients' queues together take `bytes` of memory, 1048576 or more; the longest are cut short first")
	flags.Var(cli.Duration(&cfg.interval, 1, math.MaxInt64), "interval", "update "+notify.StateName+" and "+notify.MetricsName+" once in a `duration` at most, above 0s")
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
	default:
		cfg.mountPoint, err = cli.MountPoint(flags)
	}
	if err != nil {
		fmt.Fprintf(stderr, "scoutfs-notifyd: %s\nTry 'scoutfs-notifyd -help'.\n", cli.Printable(err.Error()))
		return nil, exitUsage
	}
	return cfg, exitOK
}
