// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
)

// mountTable is the kernel's list of mounts, or a test's.
type mountTable interface {
	// poll returns what poll(2) is to wait for until the table changes.
	poll() unix.PollFd

	// read returns mountinfo. It uses buf if that is large enough.
	read(buf []byte) ([]byte, error)

	close()
}

// kernelMounts is mountinfo. poll(2) reports a change once, to whoever has it open.
type kernelMounts struct{ fd int }

func openMounts() (mountTable, error) {
	const path = "/proc/self/mountinfo"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return kernelMounts{fd}, nil
}

func (m kernelMounts) poll() unix.PollFd { return unix.PollFd{Fd: int32(m.fd), Events: unix.POLLPRI} }

func (m kernelMounts) close() { unix.Close(m.fd) }

func (m kernelMounts) read(buf []byte) ([]byte, error) {
	const least = 16 << 10
	text := buf[:0]
	if _, err := unix.Seek(m.fd, 0, unix.SEEK_SET); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	for {
		if cap(text)-len(text) < least {
			text = append(make([]byte, 0, 2*cap(text)+least), text...)
		}
		n, err := unix.Read(m.fd, text[len(text):cap(text)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, fmt.Errorf("read mountinfo: %w", err)
		case n == 0:
			return text, nil
		default:
			text = text[:len(text)+n]
		}
	}
}

const (
	// readShare keeps reading the table to a twentieth of the time, however often it
	// changes and however long it is.
	readShare = 20

	// maxReadPause is the longest that a change is left unread for that.
	maxReadPause = time.Second

	// unstableReads is how often a table that changes while it is read may look as if
	// nothing were mounted before that is believed.
	unstableReads = 5
)

// mountWatch knows what is mounted at one path. It never touches the path itself: that
// could mount something, or keep it from being unmounted.
type mountWatch struct {
	table mountTable
	path  string
	buf   []byte

	stale    bool      // the table has changed since it was read
	readAt   time.Time // when it may be read again
	unstable int       // reads in a row that found nothing in a table that changed
	changes  int       // that poll(2) has reported
}

// polled takes what poll(2) reports of the table.
func (w *mountWatch) polled(revents int16) {
	if revents != 0 {
		w.stale = true
		w.changes++
	}
}

// pollFd is what to poll for: nothing while it is known that the table has changed.
func (w *mountWatch) pollFd() unix.PollFd {
	if w.stale {
		return unix.PollFd{Fd: -1}
	}
	return w.table.poll()
}

// due is when look has something to read, zero for not until the table changes.
func (w *mountWatch) due() time.Time {
	if w.stale {
		return w.readAt
	}
	return time.Time{}
}

// look reads what a path leads into, and whether it is mounted exactly there. ok is
// false if that cannot be told now: look again when it is due.
func (w *mountWatch) look() (m mountinfo.Mount, there, ok bool, err error) {
	start := time.Now()
	// Reports of changes before now are not news afterwards.
	if err := w.poll(); err != nil {
		return m, false, false, err
	}
	w.stale = false
	if w.buf, err = w.table.read(w.buf); err != nil {
		return m, false, false, err
	}
	m, there = mountinfo.At(w.buf, w.path)
	if err := w.poll(); err != nil {
		return m, false, false, err
	}
	w.readAt = start.Add(min(maxReadPause, readShare*time.Since(start)))
	// The kernel writes the table in pieces. When it changes between two of them, a
	// mount can be missing that is there.
	if w.unstable++; there || !w.stale || w.unstable >= unstableReads {
		w.unstable = 0
		return m, there, true, nil
	}
	return m, false, false, nil
}

// poll asks poll(2) whether the table has changed since the last poll.
func (w *mountWatch) poll() error {
	fds := [1]unix.PollFd{w.table.poll()}
	for {
		_, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll mountinfo: %w", err)
		}
		w.polled(fds[0].Revents)
		return nil
	}
}
