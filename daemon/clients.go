// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// acceptBurst bounds how long a storm of connections keeps the relay from its
// records. It is as many as can wait at once, so that accepting finds all clients
// that connected before it.
const acceptBurst = backlog + 1

// clients are all connections, and the listener that they come from.
type clients struct {
	log        *slog.Logger
	ln         *listener
	max        int
	sendBuffer int

	list     []*client
	lastID   uint64
	left     traffic // of clients that have left
	accepted uint64
	refused  notify.Refusals
	changed  bool // describe has news; the relay resets it

	// What anybody who connects could fill the log with.
	tooMany, exhausted, stranger, rude logLimiter
}

func newClients(cfg *config, ln *listener) *clients {
	return &clients{log: cfg.log, ln: ln, max: cfg.maxClients, sendBuffer: cfg.sendBuffer}
}

// broadcast sends records to every client.
func (cs *clients) broadcast(batch []byte) {
	for _, c := range cs.list {
		if err := c.send(batch); err != nil {
			cs.drop(c, "hung up")
		}
	}
	cs.reap()
}

// poll appends what poll(2) is to wait for: the listener, then each client. until
// is when to call serve even if nothing is ready, zero for never.
func (cs *clients) poll(fds []unix.PollFd) (_ []unix.PollFd, until time.Time) {
	fds = append(fds, unix.PollFd{Fd: cs.ln.pollFd(), Events: unix.POLLIN})
	for _, c := range cs.list {
		fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: c.events})
	}
	return fds, cs.ln.pausedUntil
}

// serve deals with what poll(2) reports on the descriptors that poll appended.
func (cs *clients) serve(fds []unix.PollFd) {
	for i, c := range cs.list {
		if revents := fds[1+i].Revents; revents != 0 {
			cs.serveClient(c, revents)
		}
	}
	cs.reap()
	// After the others: new clients have no place in fds.
	cs.accept(fds[0].Revents != 0)
}

func (cs *clients) serveClient(c *client, revents int16) {
	if revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		cs.drop(c, "hung up")
		return
	}
	if revents&unix.POLLOUT != 0 {
		c.caughtUp()
		cs.changed = true
	}
	if revents&(unix.POLLIN|unix.POLLRDHUP) != 0 {
		cs.receive(c)
	}
}

// receive deals with what a client sends.
func (cs *clients) receive(c *client) {
	switch err := c.receive(); {
	case err == nil:
	case errors.Is(err, errHalfClosed):
		// It may go on listening. But poll would report the half-close for ever.
		c.events &^= unix.POLLIN | unix.POLLRDHUP
	case errors.Is(err, notify.ErrRequest):
		level := slog.LevelDebug
		if cs.rude.allow() {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "closing the connection of a client that breaks the protocol", "error", err)
		cs.refused.Protocol++
		cs.drop(c, "broke the protocol")
	default:
		cs.drop(c, err.Error())
	}
}

// accept lets in all who wait, if ready says that there may be any.
func (cs *clients) accept(ready bool) {
	if !cs.ln.open(ready) {
		return
	}
	for range acceptBurst {
		fd, err := cs.ln.accept()
		if err == unix.EMFILE || err == unix.ENFILE {
			// Nobody is to wait for a daemon that has no descriptor for them.
			shortage := err
			if err = cs.ln.turnAway(); err == nil {
				cs.changed = true
				cs.refused.Resources++
				cs.logExhausted(shortage)
				continue
			}
		}
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			cs.ln.pause()
			cs.logExhausted(err)
			break
		}
		cs.admit(fd)
	}
	cs.reap() // the first packet of one may have been wrong
}

// admit makes a client of a connection, or closes it.
func (cs *clients) admit(fd int) {
	cs.changed = true
	pid, ok := cs.vet(fd)
	if !ok {
		unix.Close(fd)
		return
	}
	cs.lastID++
	cs.accepted++
	c := newClient(fd, cs.lastID, pid, cs.log)
	cs.list = append(cs.list, c)
	c.log.Debug("client connects")
	// As a rule its request has come with it.
	cs.receive(c)
}

// vet tells whether a connection may become a client, and sets its queue up; if it
// may not, vet counts and logs why. pid is the client's process.
func (cs *clients) vet(fd int) (pid int32, ok bool) {
	if len(cs.list) >= cs.max {
		cs.refused.MaxClients++
		if cs.tooMany.allow() {
			cs.log.Warn("turning clients away: there are as many as -max-clients allows", "max_clients", cs.max)
		}
		return 0, false
	}
	pid, err := checkPeer(fd)
	if err != nil {
		cs.refused.Credentials++
		if cs.stranger.allow() {
			cs.log.Warn("turning a client away", "pid", pid, "error", err)
		}
		return pid, false
	}
	if err := setSendBuffer(fd, cs.sendBuffer); err != nil {
		cs.refused.Resources++
		cs.log.Error("turning a client away", "pid", pid, "error", err)
		return pid, false
	}
	return pid, true
}

// logExhausted logs that something ran out.
func (cs *clients) logExhausted(err error) {
	if cs.exhausted.allow() {
		cs.log.Error("cannot accept clients", "error", err, "clients", len(cs.list))
	}
}

// drop closes a client's connection. The caller reaps.
func (cs *clients) drop(c *client, why string) {
	c.close(why)
	cs.left.add(c.traffic)
	cs.changed = true
}

// reap forgets the clients that were dropped.
func (cs *clients) reap() {
	before := len(cs.list)
	cs.list = slices.DeleteFunc(cs.list, (*client).closed)
	if len(cs.list) < before {
		// That freed what may have run out.
		cs.ln.resume()
	}
}

// close ends all connections.
func (cs *clients) close() {
	// A client still in the backlog was not refused: it sees the end like the
	// others.
	cs.accept(true)
	// Before they see the end, so that none connects to this daemon again.
	cs.ln.close()
	for _, c := range cs.list {
		cs.drop(c, "daemon stops")
	}
	cs.list = nil
}

// describe sets the clients' part of a snapshot.
func (cs *clients) describe(st *notify.State) {
	sum := cs.left
	st.Clients = make([]notify.ClientState, 0, len(cs.list))
	for _, c := range cs.list {
		sum.add(c.traffic)
		st.Clients = append(st.Clients, c.state())
	}
	st.SentRecords, st.SentPackets = sum.records, sum.packets
	st.LostRecords, st.LostEpisodes = sum.lost, sum.episodes
	st.MaxClients, st.Accepted, st.Refused = cs.max, cs.accepted, cs.refused
}
