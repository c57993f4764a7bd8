// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// system is what the daemon needs of ScoutFS. Statfs and Attach wait until the context
// is done, if they must.
type system interface {
	// Statfs asks the cluster's server.
	Statfs(ctx context.Context, dir string) (notify.Mount, error)

	// Attach does, too, unless it knows the device, which is 0 for any.
	Attach(ctx context.Context, dir string, dev notify.Device) (source, error)

	// Mounts opens the list of mounts.
	Mounts() (mountTable, error)
}

// kernel is the system in production.
type kernel struct{}

func (kernel) Statfs(ctx context.Context, dir string) (notify.Mount, error) {
	return notify.StatfsContext(ctx, dir)
}

func (kernel) Attach(ctx context.Context, dir string, dev notify.Device) (source, error) {
	if dev == (notify.Device{}) {
		return notify.AttachContext(ctx, dir)
	}
	return notify.AttachDevice(ctx, dir, dev)
}

func (kernel) Mounts() (mountTable, error) { return openMounts() }

// run serves what is mounted until the context is done or it is unmounted, neither of
// which is an error. Clients get what was drained by then. Socket, state and metrics
// are gone when it returns.
func run(ctx context.Context, cfg *config, sys system) error {
	var s server
	err := s.serve(ctx, cfg, sys)
	if errors.Is(err, context.Canceled) {
		return nil // told to stop while it was starting
	}
	return err
}

// server is one attempt to serve a mount.
type server struct {
	dev  notify.Device // of the file system, zero for whatever is mounted
	fsid notify.ID     // 0 until it is known, which an earlier attempt may have found out
}

func (s *server) serve(ctx context.Context, cfg *config, sys system) error {
	var dir *runDir
	defer func() {
		if dir != nil {
			dir.release()
		}
	}()
	// First, if possible: as long as another daemon has the directory, there is no
	// use in opening the mount point, which umount(8) finds busy at that moment.
	if s.fsid != 0 {
		var err error
		if dir, err = claimDir(cfg.runDir, s.fsid); err != nil {
			return err
		}
	}
	src, err := sys.Attach(ctx, cfg.mountPoint, s.dev)
	if errors.Is(err, notify.ErrBusy) && s.fsid == 0 {
		err = s.whose(ctx, cfg, sys, err)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", notify.ErrNotScoutFS, err)
	}
	if err != nil {
		return err
	}
	// Closed before the directory is released: whoever claims that next must not find
	// the ring busy.
	closed := false
	defer func() {
		if !closed {
			src.Close()
		}
	}()
	if fsid := src.Mount().FSID; dir == nil || dir.fsid != fsid {
		if dir != nil {
			dir.release()
			dir = nil
		}
		s.fsid = fsid
		if dir, err = claimDir(cfg.runDir, fsid); err != nil {
			return err
		}
	}

	ln, err := listen(dir.path(notify.SocketName), cfg.sendBuffer)
	if err != nil {
		return err
	}
	defer ln.close()

	r, err := newRelay(cfg, src, dir, ln)
	if err != nil {
		return err
	}
	closed = true
	defer r.close()
	return r.run(ctx)
}

// whose says whose reader it is that keeps this one out, if that is a daemon's.
func (s *server) whose(ctx context.Context, cfg *config, sys system, busy error) error {
	mount, err := sys.Statfs(ctx, cfg.mountPoint)
	if err != nil {
		return busy
	}
	s.fsid = mount.FSID
	if holder, served := servedBy(cfg.runDir, mount.FSID); served {
		return fmt.Errorf("attach to %s: %w: %s", cfg.mountPoint, errServed, holder)
	}
	return busy
}
