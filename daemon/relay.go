// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// goodBatch is how full the ring is to be when it is drained, if records come in so fast
// that it would be fuller after a pause: what comes in until the drain has its turn, and a
// burst, still fit.
const goodBatch = notify.RingRecords / 3

// loop is the life of every record: poll, drain, broadcast. It ends when the relay
// is told to stop, which is no error, or when the source fails.
//
// The source is polled only while the relay is asleep, which it is after a drain
// that found nothing. While records come in, it drains once every pause instead,
// so that the kernel finds nobody asleep and has nobody to wake.
func (r *relay) loop() error {
	defer r.turn.take()()
	// There may be records already, since the reader was attached.
	next, asleep := time.Now(), false
	last := next
	for {
		ready, stop, err := r.poll(next, asleep)
		if err != nil || stop {
			return err
		}
		now := time.Now()

		// Asleep, poll says when to drain; otherwise the time does. A sign of life says
		// that all has been told up to now, so it takes a drain, too.
		idleAt := r.clients.idleAt()
		idle := !idleAt.IsZero() && !now.Before(idleAt)
		if ready == 0 && (asleep || now.Before(next)) && !idle {
			if asleep {
				r.pub.tick(now, r.changed())
			}
			continue
		}
		n, err := r.relayBatch()
		if idle && err == nil {
			r.clients.idle(now, time.Now())
		}
		switch {
		case err != nil:
			return err
		case n == 0 && ready&unix.POLLHUP != 0:
			// The drain should have failed. This must not go in circles.
			return notify.ErrUnmounted
		case n == 0 && ready&(unix.POLLERR|unix.POLLNVAL) != 0:
			return errors.New("poll reader: the descriptor is in error")
		}
		// Counted from before the drain: a long round is pause enough.
		next, asleep = now.Add(nextPause(r.pause, now.Sub(last), n)), n == 0
		last = now
		r.turn.drained(n)
		// Now, because the next records will have to wait longest from here on.
		r.pub.tick(now, r.changed())
	}
}

// nextPause returns how long to wait after a drain that found records which came in since
// another one: no longer than pause, and not until there would be more than goodBatch. How
// fast a full ring has filled nobody knows.
func nextPause(pause, since time.Duration, records int) time.Duration {
	switch {
	case records <= goodBatch:
		return pause
	case records < notify.RingRecords:
		return min(pause, since/time.Duration(records)*goodBatch)
	}
	return 0
}

// relayBatch drains the kernel once, sends what that finds to every client, and
// returns how many records it was.
func (r *relay) relayBatch() (int, error) {
	n, dropped, failed := r.src.Drain(r.buf)
	batch := r.buf[:n*notify.RecordSize]
	news := n > 0 || dropped != r.state.KernelDropped
	r.count(batch, dropped)
	if !news || failed != nil && !errors.Is(failed, notify.ErrUnmounted) {
		return 0, failed
	}
	// Not before the drain: what a loss stands for was accessed before the time that the
	// loss is told with, however long a drain that found a full ring had to wait.
	now := time.Now()
	// Whoever was connected when these accesses were made gets them. So accept
	// between drain and broadcast, and not only when poll reports a connection.
	r.clients.accept(r.clients.ln.pending())
	events, err := r.stream.account(batch, dropped, now)
	if err != nil {
		return 0, err
	}
	r.clients.broadcast(batch, events, now)
	return n, failed // the last drain has no records, but may have a loss
}

// lastDrain delivers what was recorded before the relay was told to stop: one
// ring at most, or it might never end.
func (r *relay) lastDrain() error {
	for left := notify.RingRecords; left > 0; {
		n, err := r.relayBatch()
		if err != nil || n == 0 {
			return err
		}
		left -= n
	}
	return nil
}

// source is where the records come from: a *notify.Reader, or a test's.
type source interface {
	Mount() notify.Mount
	Fd() int
	Drain(buf []byte) (n int, dropped uint64, err error)
	Range() (first, next uint64, ok bool)
	Close() error
}

// relay moves records from the source to the clients. One goroutine owns it and
// all that it refers to.
type relay struct {
	log     *slog.Logger
	pause   time.Duration
	src     source
	stream  *stream
	clients *clients
	pub     *publisher
	turn    turn
	stop    int // eventfd, readable once the relay is to stop

	buf     []byte // for drains
	pollfds []unix.PollFd
	timeout unix.Timespec // for ppoll, here to save an allocation

	state notify.State // without the clients' part; see snapshot
	news  bool         // state has changed since the publisher was told

	reason notify.Reason // why the stream ends
}

func newRelay(cfg *config, src source, dir *runDir, ln *listener) (*relay, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make event descriptor: %w", err)
	}
	s := &stream{mount: src.Mount(), daemonStart: cfg.started, readerStart: time.Now()}
	if first, _, ok := src.Range(); ok {
		s.base, s.told = first, first-1
	}
	r := &relay{
		log: cfg.log, pause: cfg.pause, src: src, stream: s, clients: newClients(cfg, ln, s), stop: stop, reason: notify.EndStopping,
		buf: make([]byte, notify.RingRecords*notify.RecordSize),
		state: notify.State{
			Version: cfg.version, MountPoint: cfg.mountPoint, FSID: s.mount.FSID, RID: s.mount.RID, Device: s.mount.Device,
			PID: os.Getpid(), Start: s.daemonStart.Round(0), Attached: s.readerStart.Round(0), Socket: ln.path,
			Protocol: notify.Version2,
		},
	}
	r.pub = &publisher{
		log: cfg.log, dir: dir, manager: cfg.manager, interval: cfg.interval, check: cfg.check, snapshot: r.snapshot,
		restore: func() (bool, error) { return restore(dir, ln, cfg.sendBuffer) },
	}
	return r, nil
}

// run relays until the context is done or the file system is unmounted.
func (r *relay) run(ctx context.Context) error {
	defer r.stopAfter(ctx)()
	if err := r.pub.start(); err != nil {
		return err
	}
	r.log.Info("serving", "mount_point", r.state.MountPoint, "fsid", r.state.FSID.String(),
		"rid", r.state.RID.String(), "socket", r.state.Socket)

	err := r.loop()
	r.pub.stopping()
	switch {
	case err == nil: // told to stop
		err = r.lastDrain()
		var why string
		why, r.reason = lastWords(ctx)
		r.logTotals(why)
	case errors.Is(err, notify.ErrUnmounted):
		r.logTotals("file system is unmounted: stopping")
	}
	switch {
	case errors.Is(err, notify.ErrUnmounted):
		r.reason = notify.EndUnmounted
		return nil
	case err != nil:
		r.reason = notify.EndFailed
	}
	return err
}

// stopAfter has the loop stop once the context is done. The function it returns
// undoes that; only then may stop be closed, since nothing writes to it any more.
func (r *relay) stopAfter(ctx context.Context) (undo func()) {
	written := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		unix.Write(r.stop, binary.NativeEndian.AppendUint64(nil, 1))
		close(written)
	})
	return func() {
		if !unregister() {
			<-written
		}
	}
}

// close detaches the reader, ends all connections, and removes what the relay has
// published.
func (r *relay) close() {
	// What was not drained, and what was dropped since the last drain, is lost.
	_, next, _ := r.src.Range()
	// First: a client that sees the end may start another daemon, which must not
	// find the ring busy.
	r.src.Close()
	r.clients.close(r.reason, next)
	r.pub.close()
	unix.Close(r.stop)
}

// Indices of pollfds.
const (
	pollStop = iota
	pollSource
	pollClients // and from there on
)

// poll waits until next or, if asleep, until the source is ready, unless there is
// something else to do before that. It serves the clients, and returns what poll(2)
// reports of the source, 0 for nothing.
func (r *relay) poll(next time.Time, asleep bool) (ready int16, stop bool, err error) {
	// Awake, the publisher has its turn after the next drain.
	source, until := unix.PollFd{Fd: -1, Events: unix.POLLIN}, next
	if asleep {
		source.Fd, until = int32(r.src.Fd()), r.pub.next(r.changed())
	}
	fds := append(r.pollfds[:0], unix.PollFd{Fd: int32(r.stop), Events: unix.POLLIN}, source)
	fds, reopen := r.clients.poll(fds)
	r.pollfds = fds
	until = earlier(until, r.clients.idleAt())

	if err := r.ppoll(fds, earlier(until, reopen)); err != nil {
		return 0, false, fmt.Errorf("poll: %w", err)
	}
	r.clients.serve(fds[pollClients:])
	return fds[pollSource].Revents, fds[pollStop].Revents != 0, nil
}

// ppoll waits for an event or until a time; the zero time is never.
func (r *relay) ppoll(fds []unix.PollFd, until time.Time) error {
	var wait time.Duration
	var timeout *unix.Timespec
	if !until.IsZero() {
		wait = max(0, time.Until(until))
		r.timeout = unix.NsecToTimespec(int64(wait))
		timeout = &r.timeout
	}
	var err error
	if timeout != nil && wait <= shortWait {
		_, err = pollShortly(fds, timeout)
	} else {
		_, err = unix.Ppoll(fds, timeout, nil)
	}
	if err == unix.EINTR {
		// Nothing is ready, and the kernel has not set revents.
		for i := range fds {
			fds[i].Revents = 0
		}
		return nil
	}
	return err
}

// count notes what a drain has found.
func (r *relay) count(batch []byte, dropped uint64) {
	n := len(batch) / notify.RecordSize
	r.news = r.news || n > 0 || dropped != r.state.KernelDropped
	r.state.KernelDropped = dropped
	if n == 0 {
		return
	}
	r.state.Records += uint64(n)
	r.state.Batches++
	if n == notify.RingRecords {
		r.state.FullBatches++
	}
	r.state.LastSeq = seqOf(batch, n-1)
}

// changed tells whether there is anything new in a snapshot since the last call.
func (r *relay) changed() bool {
	changed := r.news || r.clients.changed
	r.news, r.clients.changed = false, false
	return changed
}

// snapshot returns the state as it is now.
func (r *relay) snapshot() *notify.State {
	st := r.state
	st.Updated = time.Now().Round(0)
	r.clients.describe(&st)
	return &st
}

func (r *relay) logTotals(msg string) {
	st := r.snapshot()
	r.log.Info(msg, "records", st.Records, "dropped_by_kernel", st.KernelDropped,
		"sent", st.SentRecords, "lost_by_clients", st.LostRecords)
}
