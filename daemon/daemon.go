// SPDX-License-Identifier: GPL-2.0-only

// Package daemon is scoutfs-notifyd: it drains the access records of one
// mounted ScoutFS and sends each to every client of a local socket.
//
// One goroutine does the work, in one poll(2) loop (see relay). The kernel's
// socket buffers are the only queues.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Defaults and limits of Config.
const (
	DefaultPause      = time.Millisecond
	DefaultMaxClients = 64
	DefaultInterval   = time.Second

	// DefaultSendBuffer lets a client that does not read stay 5,461 one-record
	// packets behind, over five times what the kernel's ring holds: the kernel
	// doubles the size and counts 768 bytes for such a packet.
	DefaultSendBuffer = 2 << 20

	// MinSendBuffer has room for a packet of all records of the ring.
	MinSendBuffer = 2 * notify.RingRecords * notify.RecordSize

	// MaxSendBuffer is the most that the kernel can double.
	MaxSendBuffer = 1<<30 - 1

	// MaxPause is the longest pause that makes any sense.
	MaxPause = time.Second
)

// Config says what to serve and how. Zero values of numbers mean what they
// say, not the default: start from DefaultConfig.
type Config struct {
	// MountPoint is a directory of a mounted ScoutFS.
	MountPoint string

	// RunDir holds a directory for each file system, in which are its socket,
	// state and metrics. Made if it is missing.
	RunDir string

	// Pause is how long to leave records in the kernel after a drain that found
	// a few, 0 to MaxPause. It keeps the cost of waking the daemon from the
	// processes that read files. The ring must not fill up meanwhile.
	Pause time.Duration

	// MaxClients is how many clients are served at once, at least 1.
	MaxClients int

	// SendBuffer is the size of each client's queue in bytes, from
	// MinSendBuffer to MaxSendBuffer, before the kernel doubles it.
	SendBuffer int

	// Interval is the least time between two updates of state and metrics,
	// which are written only when there is news. Above 0.
	Interval time.Duration

	// Version is the daemon's, for state and metrics.
	Version string

	// Logger gets all messages; nil for none.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults, without a mount point.
func DefaultConfig() Config {
	return Config{
		RunDir:     notify.RunDir,
		Pause:      DefaultPause,
		MaxClients: DefaultMaxClients,
		SendBuffer: DefaultSendBuffer,
		Interval:   DefaultInterval,
		Version:    "unknown",
		Logger:     slog.Default(),
	}
}

// ErrConfig is returned for a Config with a value out of range.
var ErrConfig = errors.New("out of range")

func (c *Config) check() error {
	switch {
	case c.MountPoint == "":
		return fmt.Errorf("mount point \"\": %w: name a directory", ErrConfig)
	case c.RunDir == "":
		return fmt.Errorf("-run-dir \"\": %w: name a directory", ErrConfig)
	case c.Pause < 0 || c.Pause > MaxPause:
		return fmt.Errorf("-pause %v: %w: 0s to %v", c.Pause, ErrConfig, MaxPause)
	case c.MaxClients < 1:
		return fmt.Errorf("-max-clients %d: %w: 1 or more", c.MaxClients, ErrConfig)
	case c.SendBuffer < MinSendBuffer || c.SendBuffer > MaxSendBuffer:
		return fmt.Errorf("-sndbuf %d: %w: %d to %d bytes", c.SendBuffer, ErrConfig, MinSendBuffer, MaxSendBuffer)
	case c.Interval <= 0:
		return fmt.Errorf("-interval %v: %w: above 0s", c.Interval, ErrConfig)
	}
	return nil
}

// Run serves a mount until the context is done or the file system is
// unmounted, and returns nil then. Clients get what was drained; socket, state
// and metrics are gone when it returns. If the process has NOTIFY_SOCKET and
// WATCHDOG_USEC in its environment, Run tells the service manager how it is, as
// in sd_notify(3).
//
// Errors to test for are ErrConfig, ErrServed, and those of notify.Attach.
// ExitStatus turns any into the daemon's exit status.
func Run(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, kernel{})
}

// source is a reader of the kernel's records: *notify.Reader, or a test's.
type source interface {
	Mount() notify.Mount
	Fd() int
	Drain(buf []byte) (n int, dropped uint64, err error)
	Close() error
}

// system is what Run needs of ScoutFS.
type system interface {
	Statfs(ctx context.Context, dir string) (notify.Mount, error)
	Attach(ctx context.Context, dir string) (source, error)
}

type kernel struct{}

func (kernel) Statfs(ctx context.Context, dir string) (notify.Mount, error) {
	return notify.StatfsContext(ctx, dir)
}

func (kernel) Attach(ctx context.Context, dir string) (source, error) {
	return notify.AttachContext(ctx, dir)
}

func run(ctx context.Context, cfg Config, sys system) (err error) {
	if err := cfg.check(); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// State and error messages name it to people in other directories.
	if cfg.MountPoint, err = filepath.Abs(cfg.MountPoint); err != nil {
		return fmt.Errorf("find mount point: %w", err)
	}

	mount, err := sys.Statfs(ctx, cfg.MountPoint)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", notify.ErrNotScoutFS, err)
	}
	if err != nil {
		return stopped(ctx, err)
	}
	dir, err := claimDir(cfg.RunDir, mount.FSID)
	if err != nil {
		return err
	}
	defer dir.release()

	src, err := sys.Attach(ctx, cfg.MountPoint)
	if err != nil {
		return stopped(ctx, err)
	}
	defer src.Close()
	if src.Mount().FSID != mount.FSID {
		return fmt.Errorf("attach to %s: file system %v was replaced by %v: %w",
			cfg.MountPoint, mount.FSID, src.Mount().FSID, errReplaced)
	}

	ln, err := listen(dir.path(notify.SocketName), cfg.SendBuffer)
	if err != nil {
		return err
	}
	defer ln.close()

	r, err := newRelay(&cfg, src, dir, ln)
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(ctx)
}

var errReplaced = errors.New("mounted anew meanwhile")

// stopped makes being told to stop while starting a success.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
