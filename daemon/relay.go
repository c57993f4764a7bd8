// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// fullBatch is a drain so large that waiting before the next one could let the
// ring overflow.
const fullBatch = notify.RingRecords / 2

// relay is the daemon at work: one goroutine owns all of it.
//
// The reader's descriptor is polled only while there is nothing to drain. With
// records coming in, the relay drains every Config.Pause instead, so that the
// kernel finds nobody asleep and has nobody to wake.
type relay struct {
	cfg   *Config
	log   *slog.Logger
	src   source
	mount notify.Mount
	dir   *runDir
	ln    *listener
	start time.Time
	stop  int // eventfd, readable once the context is done

	buf     []byte // for drains
	pollfds []unix.PollFd
	timeout unix.Timespec // for ppoll, here so as not to be allocated
	clients []*client
	lastID  uint64
	peers   *peers
	door    door
	count   counts
	pub     publisher
}

// counts are totals since the start, over all clients, those gone included.
type counts struct {
	records       uint64 // drained from the kernel
	lastSeq       uint64
	kernelDropped uint64
	batches       uint64
	fullBatches   uint64
	packets       uint64
	sent          uint64 // records
	lost          uint64 // records
	episodes      uint64
	accepted      uint64
	refused       notify.Refusals
}

func newRelay(cfg *Config, src source, dir *runDir, ln *listener) (*relay, error) {
	r := &relay{
		cfg:   cfg,
		log:   cfg.Logger,
		src:   src,
		mount: src.Mount(),
		dir:   dir,
		ln:    ln,
		start: time.Now(),
		buf:   make([]byte, notify.RingRecords*notify.RecordSize),
	}
	var err error
	if r.peers, err = newPeers(); err != nil {
		return nil, err
	}
	if err := r.door.init(); err != nil {
		return nil, err
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		r.door.close()
		return nil, fmt.Errorf("make event descriptor: %w", err)
	}
	r.stop = stop
	return r, nil
}

// run relays until the context is done or the file system is unmounted.
func (r *relay) run(ctx context.Context) error {
	unregister := context.AfterFunc(ctx, func() {
		one := binary.NativeEndian.AppendUint64(nil, 1)
		unix.Write(r.stop, one)
	})
	defer func() {
		if !unregister() {
			// It has started: stop must not be closed under it.
			r.awaitStop()
		}
	}()

	if err := r.pub.start(r); err != nil {
		return err
	}
	r.log.Info("serving", "mount_point", r.cfg.MountPoint, "fsid", r.mount.FSID.String(),
		"rid", r.mount.RID.String(), "socket", r.ln.path)

	err := r.loop()
	r.pub.stopping()
	switch {
	case err == nil: // told to stop
		err = r.lastDrain()
		r.log.Info("stopping", r.totals()...)
	case errors.Is(err, notify.ErrUnmounted):
		r.log.Info("file system is unmounted: stopping", r.totals()...)
	}
	if errors.Is(err, notify.ErrUnmounted) {
		err = nil
	}
	return err
}

// close ends all connections and removes what the relay has published.
func (r *relay) close() {
	// Who has connected is no client turned away: it sees the end like the others.
	r.accept(true)
	// Nobody shall connect again to a daemon that goes, nor find its ring busy.
	r.ln.close()
	r.src.Close()
	for _, c := range r.clients {
		r.leave(c, "daemon stops")
	}
	r.clients = nil
	r.pub.close(r)
	r.door.close()
	unix.Close(r.stop)
}

// loop relays until told to stop (nil) or an error of the source.
func (r *relay) loop() error {
	// Something may have come in since the reader was attached.
	next, sleep := r.start, false
	for {
		ready, err := r.poll(next, sleep)
		if err != nil {
			return err
		}
		if ready.stop {
			return nil
		}
		now := time.Now()
		r.pub.tick(r, now)

		// While records come in, the time of the next drain counts; otherwise what
		// poll says.
		if !ready.source && (sleep || now.Before(next)) {
			continue
		}
		n, err := r.drain()
		switch {
		case err != nil:
			return err
		case n == 0 && ready.hangup:
			// The kernel would have said so itself; but this must not go in circles.
			return notify.ErrUnmounted
		case n == 0 && ready.broken:
			return errors.New("poll reader: the descriptor is in error")
		case n >= fullBatch:
			sleep, next = false, now
		default:
			// From before the drain: a long round is pause enough.
			sleep, next = n == 0, now.Add(r.cfg.Pause)
		}
	}
}

// drain moves one batch from the kernel to the clients.
func (r *relay) drain() (n int, err error) {
	n, dropped, err := r.src.Drain(r.buf)
	if dropped != r.count.kernelDropped {
		r.pub.dirty = true
		r.count.kernelDropped = dropped
	}
	if err != nil || n == 0 {
		return 0, err
	}
	batch := r.buf[:n*notify.RecordSize]
	r.pub.dirty = true
	r.count.records += uint64(n)
	r.count.batches++
	if n == notify.RingRecords {
		r.count.fullBatches++
	}
	// The first field of the last record.
	r.count.lastSeq = binary.NativeEndian.Uint64(batch[len(batch)-notify.RecordSize:])
	// Who was connected when these accesses were made gets them: accept after
	// the drain, not only when poll says so.
	r.accept(true)
	r.broadcast(batch)
	return n, nil
}

func (r *relay) broadcast(batch []byte) {
	for _, c := range r.clients {
		sent, packets, lost, behind := c.records, c.packets, c.lost, c.behind.on
		err := c.send(batch)
		r.count.sent += c.records - sent
		r.count.packets += c.packets - packets
		r.count.lost += c.lost - lost
		if c.behind.on && !behind {
			r.count.episodes++
		}
		if err != nil {
			r.leave(c, "hung up")
		}
	}
	r.reap()
}

// lastDrain delivers what was recorded before the relay was told to stop: one
// ring, for more could go on for ever.
func (r *relay) lastDrain() error {
	for left := notify.RingRecords; left > 0; {
		n, err := r.drain()
		if err != nil || n == 0 {
			return err
		}
		left -= n
	}
	return nil
}

// awaitStop waits until stop is written.
func (r *relay) awaitStop() {
	fds := []unix.PollFd{{Fd: int32(r.stop), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(fds, -1); n > 0 || err != unix.EINTR {
			return
		}
	}
}

func (r *relay) totals() []any {
	return []any{"records", r.count.records, "dropped_by_kernel", r.count.kernelDropped,
		"sent", r.count.sent, "lost_by_clients", r.count.lost}
}
