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
	stream     *stream
	max        int
	sendBuffer int
	queueLimit uint64 // bytes

	list     []*client
	door     *doorman
	out      *packets
	polled   int    // how many of list poll was asked for
	cuts     uint64 // queues that were cut short
	scratch  []byte // for a selection of events
	lastID   uint64
	left     traffic // of clients that have left
	accepted uint64
	refused  notify.Refusals
	changed  bool // describe has news; the relay resets it
	dropped  bool // some of list are closed

	// What anybody who connects could fill the log with.
	tooMany, exhausted, stranger, rude, crowded logLimiter
}

func newClients(cfg *config, ln *listener, s *stream) *clients {
	cs := &clients{
		log: cfg.log, ln: ln, stream: s, out: newPackets(),
		max: cfg.maxClients, sendBuffer: cfg.sendBuffer, queueLimit: uint64(cfg.queueLimit),
	}
	cs.door = &doorman{log: cfg.log, stream: s, refuse: cs.refuse}
	return cs
}

// broadcast sends records to every client, to those of version 2 with the losses among
// them.
func (cs *clients) broadcast(batch, events []byte, now time.Time) {
	plain := len(events) == len(batch)
	fresh := uint64(0)
	for _, c := range cs.list {
		var err error
		if c.speaks2() {
			err = c.tell(events, plain, &cs.scratch, now)
		} else {
			err = c.send(batch)
		}
		if err != nil {
			cs.drop(c, "hung up")
		}
		fresh += c.queue.fresh
	}
	cs.reap()
	if fresh > cs.queueLimit/measureShare {
		cs.boundQueues()
	}
}

// measureShare is how much of their limit the queues may grow by, at most, before they
// are measured: a sixteenth.
const measureShare = 16

// boundQueues measures all queues, and keeps those from growing that have more than half
// of what is left for all. So the longest are the first, and clients that do not read
// leave twice as much as each of them takes for those that do. Only what each may take in
// any case, minSendBuffer, can add up to more than the limit. What is in a queue cannot be
// taken out again.
func (cs *clients) boundQueues() {
	sum := uint64(0)
	for _, c := range cs.list {
		c.queue.measure(c.fd)
		sum += c.queue.bytes
	}
	enough := max(minSendBuffer, (cs.queueLimit-min(sum, cs.queueLimit))/2)
	for _, c := range cs.list {
		if c.queue.cut || c.queue.bytes <= enough {
			continue
		}
		c.queue.stunt(c.fd)
		c.events |= unix.POLLOUT // when it may grow again
		cs.cuts++
		cs.changed = true
		if cs.crowded.allow() {
			c.log.Warn("clients do not keep up: the longest queues may not grow", "queue", c.queue.bytes,
				"all_queues", sum, "queue_limit", cs.queueLimit)
		}
	}
}

// idleAt returns when idle is to be called, zero for never.
func (cs *clients) idleAt() (at time.Time) {
	for _, c := range cs.list {
		at = earlier(at, c.idleAt())
	}
	return at
}

// idle tells clients that the stream is alive and accounted for up to a time.
func (cs *clients) idle(upTo, now time.Time) {
	for _, c := range cs.list {
		if at := c.idleAt(); at.IsZero() || now.Before(at) {
			continue
		}
		if err := c.idle(cs.stream.told, upTo, now); err != nil {
			cs.drop(c, "hung up")
		}
	}
	cs.reap()
}

// poll appends what poll(2) is to wait for: the listener, then each client, then those
// turned away. until is when to call serve even if nothing is ready, zero for never.
func (cs *clients) poll(fds []unix.PollFd) (_ []unix.PollFd, until time.Time) {
	fds = append(fds, unix.PollFd{Fd: cs.ln.pollFd(), Events: unix.POLLIN})
	for _, c := range cs.list {
		fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: c.events})
	}
	cs.polled = len(cs.list)
	fds, until = cs.door.poll(fds)
	return fds, earlier(until, cs.ln.pausedUntil)
}

// serve deals with what poll(2) reports on the descriptors that poll appended.
func (cs *clients) serve(fds []unix.PollFd) {
	listening, fds := fds[0].Revents != 0, fds[1:]
	for i, c := range cs.list {
		if revents := fds[i].Revents; revents != 0 {
			cs.serveClient(c, revents)
		}
	}
	cs.door.serve(fds[cs.polled:])
	cs.reap()
	// After the others: new clients have no place in fds.
	cs.accept(listening)
}

func (cs *clients) serveClient(c *client, revents int16) {
	if revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
		cs.drop(c, "hung up")
		return
	}
	if revents&unix.POLLOUT != 0 {
		cs.changed = true
		c.queue.restore(c.fd, cs.sendBuffer)
		if err := c.settle(time.Now()); err != nil {
			cs.drop(c, "hung up")
			return
		}
	}
	if revents&(unix.POLLIN|unix.POLLRDHUP) != 0 {
		cs.receive(c)
	}
}

// receive deals with what a client sends.
func (cs *clients) receive(c *client) {
	asked := c.asked
	switch err := c.receive(); {
	case err == nil:
		if c.asked && !asked && c.speaks2() {
			cs.greet(c)
		}
	case errors.Is(err, errHalfClosed):
		// It may go on listening. But poll would report the half-close for ever.
		c.events &^= unix.POLLIN | unix.POLLRDHUP
	case errors.Is(err, notify.ErrRequest):
		level := slog.LevelDebug
		if cs.rude.allow() {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "closing the connection of a client that breaks the protocol", "error", err)
		cs.refuse(notify.EndProtocol)
		if c.speaks2() {
			c.end(notify.EndProtocol, cs.stream.told, time.Now())
		}
		cs.drop(c, "broke the protocol")
	default:
		cs.drop(c, err.Error())
	}
}

// greet answers a client's request of version 2.
func (cs *clients) greet(c *client) {
	cs.changed = true
	now := time.Now()
	err := c.greet(cs.stream, now)
	switch {
	case err == nil && c.req.Probe:
		c.end(notify.EndProbe, cs.stream.told, now)
		cs.drop(c, "asked for no more")
	case err == nil:
	case isFull(err):
		// There is no memory. A client must not go on without its first packet.
		cs.refuse(notify.EndResources)
		cs.logExhausted(err)
		cs.drop(c, "no memory for the first packet")
	default:
		cs.drop(c, "hung up")
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
			if fd, err = cs.ln.acceptSpare(); err == nil {
				cs.door.answer(&turned{fd: fd, reason: notify.EndResources}, time.Now())
				cs.ln.giveBack(fd)
				cs.refuse(notify.EndResources)
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
	pid, refusal := cs.vet(fd)
	if refusal != 0 {
		cs.door.turnAway(fd, pid, refusal)
		return
	}
	cs.lastID++
	cs.accepted++
	c := newClient(fd, cs.lastID, pid, cs.log)
	c.out = cs.out
	cs.list = append(cs.list, c)
	c.log.Debug("client connects")
	// As a rule its request has come with it.
	cs.receive(c)
}

// vet tells whether a connection may become a client, and sets its queue up; if it
// may not, refusal is the reason. pid is the client's process.
func (cs *clients) vet(fd int) (pid int32, refusal notify.Reason) {
	pid, err := checkPeer(fd)
	switch {
	case err != nil:
		if cs.stranger.allow() {
			cs.log.Warn("turning a client away", "pid", pid, "error", err)
		}
		return pid, notify.EndCredentials
	case len(cs.list) >= cs.max:
		return pid, notify.EndMaxClients
	}
	if err = setSendBuffer(fd, cs.sendBuffer); err != nil {
		cs.log.Error("turning a client away", "pid", pid, "error", err)
		return pid, notify.EndResources
	}
	return pid, 0
}

// refuse counts a connection that was closed for a reason.
func (cs *clients) refuse(reason notify.Reason) {
	cs.changed = true
	switch reason {
	case notify.EndMaxClients:
		cs.refused.MaxClients++
		if cs.tooMany.allow() {
			cs.log.Warn("turning clients away: there are as many as -max-clients allows", "max_clients", cs.max)
		}
	case notify.EndCredentials:
		cs.refused.Credentials++
	case notify.EndResources:
		cs.refused.Resources++
	case notify.EndProtocol:
		cs.refused.Protocol++
	}
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
	cs.changed, cs.dropped = true, true
}

// reap forgets the clients that were dropped.
func (cs *clients) reap() {
	if !cs.dropped {
		return
	}
	cs.dropped = false
	cs.list = slices.DeleteFunc(cs.list, (*client).closed)
	// That freed what may have run out.
	cs.ln.resume()
}

// close ends all connections. next is the number that the next access would have got, 0
// if it is not known.
func (cs *clients) close(reason notify.Reason, next uint64) {
	// A client still in the backlog was not refused: it sees the end like the
	// others.
	cs.accept(true)
	// Before they see the end, so that none connects to this daemon again.
	cs.ln.close()
	now := time.Now()
	cs.broadcast(nil, cs.stream.finish(next, now), now)
	for _, c := range cs.list {
		if c.speaks2() {
			c.end(reason, cs.stream.told, now)
		}
		cs.drop(c, "daemon stops")
	}
	cs.list = nil
	cs.door.close()
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
	st.QueueLimit, st.QueueCuts = cs.queueLimit, cs.cuts
}
