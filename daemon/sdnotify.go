// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sdNotify tells the service manager how the daemon is doing, as sd_notify(3)
// describes. A nil *sdNotify does nothing: there is no manager that wants to know.
type sdNotify struct {
	fd   int
	addr unix.SockaddrUnix
}

// openNotify reads NOTIFY_SOCKET. A leading @ names an abstract socket.
func openNotify() (*sdNotify, error) {
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
	// unix.SockaddrUnix takes the @ for abstract itself.
	return &sdNotify{fd: fd, addr: unix.SockaddrUnix{Name: name}}, nil
}

// send sends lines such as READY=1. It does not wait for the manager.
func (s *sdNotify) send(lines ...string) error {
	if s == nil {
		return nil
	}
	msg := []byte(strings.Join(lines, "\n"))
	for {
		err := unix.Sendto(s.fd, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, &s.addr)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("notify service manager at %s: %w", s.addr.Name, err)
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
