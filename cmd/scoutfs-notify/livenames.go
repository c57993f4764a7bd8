// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"iter"

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
	paths     *names.Paths // nil if they are not wanted, or nothing is mounted yet
}

func newLiveNames(env *environment, paths bool) *liveNames {
	return &liveNames{alive: newAlive(env), accounts: names.NewAccounts(), wantPaths: paths}
}

// follow passes on events, and finds out from them what is mounted.
func (n *liveNames) follow(events iter.Seq2[notify.Event, error]) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for ev, err := range events {
			if h, ok := ev.(*notify.Hello); ok && n.wantPaths && h.Device != n.device {
				n.closePaths()
				n.device, n.paths = h.Device, names.NewPaths(h.Device)
			}
			if !yield(ev, err) {
				return
			}
		}
	}
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

func (n *liveNames) path(ctx context.Context, ino uint64) names.Path {
	if n.paths == nil {
		return names.Path{Err: names.ErrUnknown}
	}
	return n.paths.Path(ctx, ino)
}

func (n *liveNames) command(rec *notify.Record) string { return n.alive.name(rec) }
func (n *liveNames) user(uid uint32) string            { return n.accounts.User(uid) }
func (n *liveNames) group(gid uint32) string           { return n.accounts.Group(gid) }
