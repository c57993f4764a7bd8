// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// waiter serves the ScoutFS that is mounted at the mount point, whichever that is,
// whenever there is one. It watches mountinfo; another goroutine relays. What it relays
// is known by the device number, which is the file system's alone for as long as the
// reader lives, and the reader says when that has ended.
type waiter struct {
	cfg   *config
	sys   system
	watch *mountWatch
	wake  int // eventfd: the context is done, or the relay has ended

	looked  bool            // the rest is known
	mounted mountinfo.Mount // the ScoutFS at the mount point, zero if there is none
	other   string          // the type of another file system there
	serving *attempt        // nil if nothing is served

	// While what is mounted cannot be served. An episode ends when it is served, or
	// something else is mounted.
	failure error // the last one, nil if there was none
	since   time.Time
	logged  bool
	delay   time.Duration
	retry   time.Time // zero for when the table changes
	fsid    notify.ID // of what could not be served, if known
	hasty   int       // failures in a row that a change of mounts may explain

	status       string // as last told to the manager
	waiting      bool   // it was logged that nothing is mounted
	watchdogNext time.Time
}

// attempt is a relay that starts, works or ends in a goroutine of its own.
type attempt struct {
	server
	start   time.Time
	changes int // of the mounts, before it
	stop    context.CancelCauseFunc
	done    chan struct{}
	err     error // set when done is closed
}

// maxHasty is how often to try again at once, and without a word, after something was
// mounted or unmounted during an attempt that failed.
const maxHasty = 3

// waitAndServe serves one mount after the other until the context is done. Errors that
// may pass are logged once and tried again.
func waitAndServe(ctx context.Context, cfg *config, sys system) error {
	table, err := sys.Mounts()
	if err != nil {
		return err
	}
	defer table.close()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make event descriptor: %w", err)
	}
	defer unix.Close(wake)
	w := &waiter{cfg: cfg, sys: sys, wake: wake, watch: &mountWatch{table: table, path: cfg.mountPoint, stale: true}}
	if every := cfg.manager.watchdog(); every > 0 {
		w.watchdogNext = time.Now().Add(every)
	}
	woken := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		w.wakeUp()
		close(woken)
	})
	defer func() {
		if !unregister() {
			<-woken
		}
	}()
	return w.run(ctx)
}

func (w *waiter) wakeUp() { unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1)) }

func (w *waiter) run(ctx context.Context) error {
	defer func() {
		if w.serving != nil {
			w.serving.stop(errStopping) // a cause that the context has already stays
			<-w.serving.done
		}
	}()
	if err := w.resolve(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := w.step(ctx); err != nil {
			return err
		}
		if err := w.tell(); err != nil {
			return err
		}
		if err := w.sleep(); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows symbolic links, which mountinfo has not, unless that could mount
// something.
func (w *waiter) resolve() error {
	m, there, ok, err := w.watch.look()
	if err != nil {
		return err
	}
	w.watch.stale, w.watch.readAt = true, time.Time{} // look again
	if !ok || there || m.Type == "autofs" {
		return nil
	}
	if path, err := filepath.EvalSymlinks(w.cfg.mountPoint); err == nil {
		w.cfg.mountPoint, w.watch.path = path, path
	}
	return nil
}

// step does what there is to do now.
func (w *waiter) step(ctx context.Context) error {
	if w.serving != nil {
		select {
		case <-w.serving.done:
			if err := w.ended(); err != nil {
				return err
			}
		default:
		}
	}
	now := time.Now()
	if w.watch.stale && !now.Before(w.watch.readAt) {
		if err := w.look(); err != nil {
			return err
		}
	}
	switch {
	case w.serving == nil && w.mounted.Type != "" && w.due(now):
		w.serve(ctx)
	case w.serving == nil || w.watch.stale: // perhaps what is known is old
	case w.mounted.Type == "" || device(w.mounted) != w.serving.dev:
		w.serving.stop(notify.ErrUnmounted)
	}
	return nil
}

// due tells whether to serve what is mounted now, at the first or another attempt.
func (w *waiter) due(now time.Time) bool {
	return w.failure == nil || !w.retry.IsZero() && !now.Before(w.retry)
}

// look finds out what is mounted.
func (w *waiter) look() error {
	m, there, ok, err := w.watch.look()
	if err != nil || !ok {
		return err
	}
	w.looked, w.other = true, ""
	if !there || m.Type != notify.FSType {
		if there {
			w.other = m.Type
		}
		m = mountinfo.Mount{}
	}
	if m != w.mounted {
		w.mounted = m
		w.forgive()
	} else if w.failure != nil {
		// It looks the same, but may have been mounted anew.
		soon := time.Now().Add(8 * w.cfg.retry)
		if errors.Is(w.failure, notify.ErrNotSupported) {
			soon = time.Now().Add(maxRetry)
		}
		if w.retry.IsZero() || soon.Before(w.retry) {
			w.retry = soon
		}
	}
	return nil
}

// forgive ends an episode of failures.
func (w *waiter) forgive() {
	w.failure, w.delay, w.retry, w.fsid, w.hasty = nil, 0, time.Time{}, 0, 0
}

func device(m mountinfo.Mount) notify.Device { return notify.Device{Major: m.Major, Minor: m.Minor} }

// serve starts to serve what is mounted.
func (w *waiter) serve(ctx context.Context) {
	ctx, stop := context.WithCancelCause(ctx)
	a := &attempt{
		server: server{dev: device(w.mounted), fsid: w.fsid},
		start:  time.Now(), changes: w.watch.changes, stop: stop, done: make(chan struct{}),
	}
	w.serving, w.waiting = a, false
	go func() {
		a.err = a.serve(ctx, w.cfg, w.sys)
		stop(nil)
		close(a.done)
		w.wakeUp()
	}()
}

// ended deals with the end of an attempt. It returns the errors that do not pass.
func (w *waiter) ended() error {
	a := w.serving
	w.serving, w.status = nil, ""
	before := w.mounted
	w.watch.stale, w.watch.readAt = true, time.Time{}
	if err := w.look(); err != nil {
		return err
	}
	switch {
	case errors.Is(a.err, os.ErrPermission):
		return a.err
	case a.err == nil, errors.Is(a.err, context.Canceled), w.mounted != before:
		// Something else is to be served now, or nothing.
		if time.Since(a.start) > maxRetry {
			w.forgive()
		}
		return nil
	case w.failure == nil && w.watch.changes != a.changes && w.hasty < maxHasty:
		// What was to be served may have been unmounted, and something mounted that
		// looks the same.
		w.hasty++
		return nil
	}
	w.failed(a)
	return nil
}

// failed plans another attempt. Only one failure of an episode is logged: the first, or,
// while somebody else has the file system, who may be about to leave it, one that comes
// later.
func (w *waiter) failed(a *attempt) {
	if w.failure == nil || time.Since(a.start) > maxRetry {
		w.since, w.logged, w.delay = time.Now(), false, 0
	}
	others := errors.Is(a.err, notify.ErrBusy) || errors.Is(a.err, errServed)
	if !w.logged && (!others || time.Since(w.since) >= 4*w.cfg.retry) {
		w.logged = true
		_, hint := explain(a.err)
		attrs := []any{"mount_point", w.cfg.mountPoint, "error", a.err}
		if hint != "" {
			attrs = append(attrs, "hint", hint)
		}
		w.cfg.log.Error("cannot serve what is mounted: trying again until it works", attrs...)
	}
	w.failure, w.fsid = a.err, a.fsid
	w.delay = min(max(2*w.delay, w.cfg.retry), maxRetry)
	w.retry = time.Now().Add(w.delay)
	if errors.Is(a.err, notify.ErrNotSupported) {
		w.retry = time.Time{} // not before another module is loaded, so mounted anew
	}
}

// tell tells log and manager what the daemon waits for, when that changes.
func (w *waiter) tell() error {
	if w.serving != nil || !w.looked {
		return nil // the relay tells, or there is nothing to tell yet
	}
	status := fmt.Sprintf("STATUS=waiting for a ScoutFS at %q", w.cfg.mountPoint)
	if w.failure != nil {
		status = fmt.Sprintf("STATUS=cannot serve %q, trying again: %q", w.cfg.mountPoint, w.failure.Error())
	}
	if w.mounted.Type == "" && !w.waiting {
		w.waiting = true
		attrs := []any{"mount_point", w.cfg.mountPoint}
		if w.other != "" {
			attrs = append(attrs, "mounted_there", w.other)
		}
		w.cfg.log.Info("waiting for a ScoutFS to be mounted", attrs...)
	}
	if status == w.status {
		return nil
	}
	w.status = status
	return w.cfg.manager.ready(status)
}

// sleep waits until there is something to do.
func (w *waiter) sleep() error {
	until := w.watch.due()
	if w.serving == nil && w.mounted.Type != "" && w.failure != nil {
		until = earlier(until, w.retry)
	}
	relays := w.cfg.manager != nil && w.cfg.manager.relays.Load()
	if !relays {
		until = earlier(until, w.watchdogNext)
	}
	fds := [2]unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}, w.watch.pollFd()}
	var timeout *unix.Timespec
	if !until.IsZero() {
		ts := unix.NsecToTimespec(int64(max(0, time.Until(until))))
		timeout = &ts
	}
	switch _, err := unix.Ppoll(fds[:], timeout, nil); {
	case err == unix.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("poll: %w", err)
	}
	if fds[0].Revents != 0 {
		var count [8]byte
		unix.Read(w.wake, count[:])
	}
	w.watch.polled(fds[1].Revents)
	w.signOfLife(relays)
	return nil
}

// signOfLife tells the manager that the daemon lives, unless the relay does.
func (w *waiter) signOfLife(relays bool) {
	now := time.Now()
	if w.watchdogNext.IsZero() || now.Before(w.watchdogNext) {
		return
	}
	w.watchdogNext = now.Add(w.cfg.manager.watchdog())
	if !relays {
		w.cfg.manager.send(alive)
	}
}
