// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sdNotify tells the service manager how the daemon is doing, as sd_notify(3)
// describes. A nil *sdNotify does nothing: there is no manager that wants to know. Its
// methods are safe for concurrent use, but for ready.
type sdNotify struct {
	fd   int
	name string // of the manager's socket

	stays   bool        // the end of the relay is not the daemon's
	started bool        // READY=1 was sent
	relays  atomic.Bool // the relay gives the signs of life
}

// openNotify reads NOTIFY_SOCKET. A leading @ names an abstract socket. stays says that
// the daemon goes on when a relay ends.
func openNotify(stays bool) (*sdNotify, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return nil, fmt.Errorf("open NOTIFY_SOCKET %q: neither a path nor an abstract name", name)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open NOTIFY_SOCKET %q: %w", name, err)
	}
	return &sdNotify{fd: fd, name: name, stays: stays}, nil
}

// alive is a sign of life.
const alive = "WATCHDOG=1"

// ready tells the manager, the first time, that the daemon is ready, which must get
// through, and each time its status, which the next one replaces. It is a sign of life,
// too: a relay gives its first one only after a while, and where mounts are made and
// unmounted all the time none lives that long.
func (s *sdNotify) ready(status string) error {
	if s == nil || s.started {
		s.send(status, alive)
		return nil
	}
	if err := s.sendPatiently("READY=1", status, alive); err != nil {
		return err
	}
	s.started = true
	return nil
}

// relaying says whether the relay sends WATCHDOG=1. Otherwise whoever waits for a mount
// does.
func (s *sdNotify) relaying(yes bool) {
	if s != nil {
		s.relays.Store(yes)
	}
}

// send sends lines such as READY=1. It does not wait for the manager.
func (s *sdNotify) send(lines ...string) error {
	if s == nil {
		return nil
	}
	msg := []byte(strings.Join(lines, "\n"))
	addr := unix.SockaddrUnix{Name: s.name} // which takes the @ for abstract itself
	for {
		err := unix.Sendto(s.fd, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &addr)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("notify service manager at %s: %w", s.name, err)
		}
	}
}

// sendPatiently is send for what must get through: it gives a busy manager some
// seconds.
func (s *sdNotify) sendPatiently(lines ...string) error {
	const patience, pause = 10 * time.Second, 20 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err := s.send(lines...)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return err
		}
	}
}

func (s *sdNotify) close() {
	if s != nil {
		unix.Close(s.fd)
	}
}

// watchdog is how often to send WATCHDOG=1, 0 for never.
func (s *sdNotify) watchdog() time.Duration {
	if s == nil {
		return 0
	}
	return watchdogInterval()
}

// watchdogInterval returns how often to send WATCHDOG=1: twice in the time that
// the manager waits for it, or 0 if it does not wait.
func watchdogInterval() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
