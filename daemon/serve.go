// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// accept lets clients in if there may be any.
func (r *relay) accept(ready bool) {
	r.door.serve(r, ready)
	r.reap() // the first thing one says may be wrong
}

// serveClients deals with what poll says of each client.
func (r *relay) serveClients(fds []unix.PollFd) {
	for i := range fds {
		if fds[i].Revents != 0 {
			r.serveClient(r.clients[i], fds[i].Revents)
		}
	}
	r.reap()
}

func (r *relay) serveClient(c *client, revents int16) {
	if revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		r.leave(c, "hung up")
		return
	}
	if revents&unix.POLLOUT != 0 {
		c.caughtUp()
		r.pub.dirty = true
	}
	if revents&(unix.POLLIN|unix.POLLRDHUP) != 0 {
		r.receive(c)
	}
}

// receive deals with what a client sends.
func (r *relay) receive(c *client) {
	switch err := c.receive(); {
	case err == nil:
	case errors.Is(err, errHalfClosed):
		// It may go on listening. Polling for what it sends would never end.
		c.events &^= unix.POLLIN | unix.POLLRDHUP
	case errors.Is(err, notify.ErrRequest):
		level := slog.LevelDebug
		if r.door.rude.now() {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "closing the connection of a client that breaks the protocol", "error", err)
		r.count.refused.Protocol++
		r.leave(c, "broke the protocol")
	default:
		r.leave(c, err.Error())
	}
}

// leave closes a client's connection. The caller reaps.
func (r *relay) leave(c *client, why string) {
	level := slog.LevelDebug
	if c.lost > 0 {
		level = slog.LevelInfo
	}
	c.log.Log(context.Background(), level, "client leaves", "why", why, "sent", c.records, "lost", c.lost,
		"behind", c.behind.on, "connected_for", time.Since(c.since).Round(time.Millisecond))
	c.close()
	c.gone = true
	r.pub.dirty = true
}

// reap forgets the clients that are gone.
func (r *relay) reap() {
	kept := r.clients[:0]
	for _, c := range r.clients {
		if !c.gone {
			kept = append(kept, c)
		}
	}
	if len(kept) == len(r.clients) {
		return
	}
	clear(r.clients[len(kept):])
	r.clients = kept
	r.door.reopen()
}
