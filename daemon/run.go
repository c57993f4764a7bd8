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

// system is what the daemon needs of ScoutFS. Both calls ask the cluster's server,
// and wait for it, while it is away, until the context is done.
type system interface {
	Statfs(ctx context.Context, dir string) (notify.Mount, error)
	Attach(ctx context.Context, dir string) (source, error)
}

// kernel is the system in production.
type kernel struct{}

func (kernel) Statfs(ctx context.Context, dir string) (notify.Mount, error) {
	return notify.StatfsContext(ctx, dir)
}

func (kernel) Attach(ctx context.Context, dir string) (source, error) {
	return notify.AttachContext(ctx, dir)
}

// run serves a mount until the context is done or the file system is unmounted,
// neither of which is an error. Clients get what was drained by then. Socket, state
// and metrics are gone when it returns.
func run(ctx context.Context, cfg *config, sys system) error {
	err := serve(ctx, cfg, sys)
	if errors.Is(err, context.Canceled) {
		return nil // told to stop while it was starting
	}
	return err
}

func serve(ctx context.Context, cfg *config, sys system) error {
	mount, err := sys.Statfs(ctx, cfg.mountPoint)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", notify.ErrNotScoutFS, err)
	}
	if err != nil {
		return err
	}
	dir, err := claimDir(cfg.runDir, mount.FSID)
	if err != nil {
		return err
	}
	defer dir.release()

	src, err := sys.Attach(ctx, cfg.mountPoint)
	if err != nil {
		return err
	}
	defer src.Close()
	if src.Mount().FSID != mount.FSID {
		return fmt.Errorf("attach to %s: %w: %v instead of %v", cfg.mountPoint, errReplaced, src.Mount().FSID, mount.FSID)
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
	defer r.close()
	return r.run(ctx)
}
