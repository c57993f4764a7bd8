// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// errNotRecorded: the recording does not have the name.
var errNotRecorded = errors.New("not in the recording")

// liveNames are those of a mount that is there, and of processes that run.
type liveNames struct {
	alive     *alive
	accounts  *names.Accounts
	wantPaths bool
	device    notify.Device
	rid       notify.ID    // of the mount that paths is for
	paths     *names.Paths // nil if they are not wanted, or nothing is mounted yet

	under notify.MountPoint // what the folders are on that are wanted; checked once
}

func newLiveNames(env *environment, paths bool) *liveNames {
	return &liveNames{alive: newAlive(env), accounts: names.NewAccounts(), wantPaths: paths}
}

// follow passes on events, and finds out from them what is mounted.
func (n *liveNames) follow(events iter.Seq2[notify.Event, error]) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			if h, ok := ev.(*notify.Hello); ok {
				if err := n.meet(h); err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

// meet finds out what is mounted.
func (n *liveNames) meet(h *notify.Hello) error {
	if n.under.Path != "" && h.Device != (notify.Device{}) && n.under.Device != h.Device {
		return fmt.Errorf("look for files below a folder on %s: it is another file system", n.under.Path)
	}
	n.under.Path = ""
	// Another mount on the same device number can be of another file system, or of this
	// one after renames elsewhere.
	if n.wantPaths && (h.Device != n.device || h.RID != n.rid) {
		n.closePaths()
		n.device, n.rid, n.paths = h.Device, h.RID, names.NewPaths(h.Device)
	}
	return nil
}

func (n *liveNames) close() {
	n.closePaths()
	n.alive.close()
}

func (n *liveNames) closePaths() {
	if n.paths != nil {
		n.paths.Close()
	}
	n.paths = nil
}

// below sets what tells whether a file is in one of the folders that are wanted.
func (n *liveNames) below(env *environment, p *picker) error {
	if len(p.under) == 0 {
		return nil
	}
	var dirs []uint64
	for _, dir := range p.under {
		ino, err := names.Ino(dir)
		if err != nil {
			return err
		}
		dirs = append(dirs, ino)
		if path, err := filepath.Abs(dir); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil {
				n.under, _ = env.mountOf(path) // without /proc there is no check
			}
		}
	}
	p.below = func(ctx context.Context, ino uint64) (bool, error) {
		if n.paths == nil {
			return false, names.ErrUnknown
		}
		for _, dir := range dirs {
			if below, err := n.paths.Below(ctx, ino, dir); below || err != nil {
				return below, err
			}
		}
		return false, nil
	}
	return nil
}

func (n *liveNames) path(ctx context.Context, ino uint64) names.Path {
	if n.paths == nil {
		return names.Path{Err: names.ErrUnknown}
	}
	return n.paths.Path(ctx, ino)
}

func (n *liveNames) command(rec *notify.Record) string { return n.alive.name(rec) }
func (n *liveNames) user(uid uint32) string            { return n.accounts.User(uid) }
func (n *liveNames) group(gid uint32) string           { return n.accounts.Group(gid) }
