// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// config is what follow is told.
type config struct {
	root    string
	mount   string
	limits  index.Limits
	exclude index.Exclude
	log     *slog.Logger
	version string
}

func runFollow(ctx context.Context, env *environment, args []string) error {
	cfg := config{root: storeRoot, log: slog.New(slog.NewTextHandler(env.stderr, nil)), version: cli.Version(version)}
	cfg.limits = index.DefaultLimits()
	l := &cfg.limits
	flags := flag.NewFlagSet("follow", flag.ContinueOnError)
	flags.StringVar(&cfg.root, "root", cfg.root, "keep the store in the folder of `directory` that is named by the file system's id")
	flags.Var(&cfg.exclude, "exclude", "leave out the accesses of `who`: uid=N, gid=N, comm=NAME or cgroup=/PATH; several with commas, or the flag several times")
	flags.Var(cli.Duration(&l.Flush, time.Second, time.Hour), "flush", "make what is in memory last at least once in a `duration`, 1s to 1h")
	flags.Var(cli.Int(&l.Inodes, 1000, 1<<30), "inodes", "keep up to `count` inodes in memory, 1000 or more, of 100 bytes each, and twice as many while it flushes")
	flags.Var((*age)(&l.Hours), "hours", "tell accesses of the last `time` apart by hour")
	flags.Var((*age)(&l.Days), "days", "tell accesses of the last `time` apart by day")
	flags.Var((*age)(&l.Keep), "keep", "forget inodes that were not accessed for `time`, and with them what was before that")
	flags.Var((*age)(&index.Settle), "settle", "believe a clock that was set, and that of a machine that was started, after `time` without another step")
	escaped := flags.Bool("escaped", false, "MOUNT is escaped as systemd-escape --path prints it")
	rest, err := env.program.Parse(flags, "MOUNT", followAbout, args)
	if err != nil {
		return err
	}
	if cfg.mount, err = cli.MountPoint(rest); err == nil && *escaped {
		cfg.mount, err = cli.UnescapePath(cfg.mount)
	}
	if err != nil {
		return cli.Usagef("follow", "%w", err)
	}
	// What a flush leaves is half of all memory otherwise.
	debug.SetGCPercent(50)
	// The file system must not be kept from being unmounted.
	if cfg.mount, err = filepath.Abs(cfg.mount); err == nil {
		err = os.Chdir("/")
	}
	if err != nil {
		return err
	}
	return cfg.follow(ctx, env)
}

const followAbout = `Takes the accesses that scoutfs-notifyd tells of into the store, over restarts of
the daemon, unmounts and mounts. Its own end loses nothing that it has received,
unless the disk fails, which it says; what happens until it runs again is told as a
gap.
`

// follow follows whatever ScoutFS is mounted, each into its own store.
func (c *config) follow(ctx context.Context, env *environment) error {
	sdReady("waiting for a ScoutFS at " + c.mount)
	for {
		hello, err := c.meet(ctx, env)
		if err != nil {
			return err
		}
		err = c.fill(ctx, env, hello.FSID)
		if err != index.ErrOther { // as it is: with others beside it that is not all
			return err
		}
		c.log.Info("another file system was mounted", "mount", c.mount)
	}
}

// meet waits for a daemon and returns its hello.
func (c *config) meet(ctx context.Context, env *environment) (*notify.Hello, error) {
	for ev, err := range notify.Follow(ctx, c.mount, &notify.Dialer{RunDir: env.runDir}) {
		if err != nil {
			return nil, err
		}
		switch ev := ev.(type) {
		case *notify.Hello:
			return ev, nil
		case *notify.Waiting:
			c.log.Info("waiting for scoutfs-notifyd", "mount", c.mount, "error", ev.Err)
		}
	}
	return nil, ctx.Err()
}

// fill takes the stream of one file system.
func (c *config) fill(ctx context.Context, env *environment, fsid notify.ID) (err error) {
	dir := filepath.Join(c.root, fsid.String())
	start := time.Now()
	s, err := index.Open(dir, fsid, c.limits)
	if err != nil {
		return err
	}
	defer func() {
		// It matters also when the program was told to stop.
		if e := s.Close(); e != nil {
			err = errors.Join(e, err)
		}
	}()
	n := s.Node()
	c.log.Info("following", "mount", c.mount, "store", dir, "since", n.Since, "told", n.Told, "gaps", len(n.Gaps),
		"opened_in", time.Since(start).Round(time.Millisecond), "exclude", c.exclude.String())
	host, _ := os.Hostname()
	metrics := metricsPath(env.runDir, fsid)
	// What nobody keeps true is not left for a collector.
	defer os.Remove(metrics)
	f := &index.Feed{
		Store: s, Log: c.log, Host: host, Skip: c.exclude.Match,
		Committed: func() (uint64, error) { return index.Committed(c.mount, fsid) },
		Report: func(n index.Node, segments []index.Segment) {
			c.report(metrics, fsid, &n, segments)
		},
	}
	d := &notify.Dialer{RunDir: env.runDir, Resume: s.Resume(), Idle: index.IdleInterval}
	return f.Run(notify.Follow(ctx, c.mount, d))
}

// report publishes metrics and tells the service manager.
func (c *config) report(metrics string, fsid notify.ID, n *index.Node, segments []index.Segment) {
	if err := writeMetrics(metrics, formatMetrics(fsid, c.version, n, segments)); err != nil {
		c.log.Warn("cannot write the metrics", "error", err)
	}
	what := "following " + c.mount
	if !n.Connected {
		what = "waiting for scoutfs-notifyd at " + c.mount
	}
	sdSend(fmt.Sprintf("STATUS=%s: %d accesses, %d left out, %d lost, told up to %v",
		what, n.Records, n.Excluded, n.Lost, n.Told))
}

// sdReady tells the service manager that the program has started, and how it is.
func sdReady(status string) { sdSend("READY=1", "STATUS="+status) }

// sdSend sends lines to the service manager, if there is one, as sd_notify(3) describes.
// There is nobody to report an error to.
func sdSend(lines ...string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.Dial("unixgram", name) // which takes a leading @ for abstract itself
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	text := ""
	for _, l := range lines {
		text += l + "\n"
	}
	conn.Write([]byte(text))
}
