// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketMode is the socket's mode from the moment it exists.
	socketMode = 0o600

	// backlog is how many connections may wait to be accepted.
	backlog = 128

	// pauseTime is how long connections are left waiting when not even turning
	// them away works, and polling for them would go in circles.
	pauseTime = time.Second
)

// listener is the daemon's socket, which takes connections.
type listener struct {
	fd          int // -1 once closed
	path        string
	ours        os.FileInfo    // of the socket's file
	spare       int            // a descriptor to give up for turning a connection away, or -1
	pausedUntil time.Time      // zero if it is not paused
	pollfd      [1]unix.PollFd // for pending, here to save an allocation
}

// boundName is the name that a socket is bound to until it takes connections. The
// kernel, and so ss(8), goes on showing that one.
func boundName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// maxPath is how long a socket's path can be.
var maxPath = len(unix.RawSockaddrUnix{}.Path) - 1 - (len(boundName("/x")) - len("/x"))

// listen makes the socket, and replaces one that nobody listens on. The caller
// holds the directory's lock.
func listen(path string, sendBuffer int) (*listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %s: the path is longer than the %d bytes that it can have: choose a shorter run directory", path, maxPath)
	}
	for _, name := range []string{path, boundName(path)} {
		if err := removeStale(name); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", name, err)
		}
	}

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	ln := &listener{fd: fd, path: path, spare: -1}
	// Clients' sockets do not inherit the size. But what would keep it from being
	// set on them is an error now rather than later.
	err = setSendBuffer(fd, sendBuffer)
	if err == nil {
		err = ln.keepSpare()
	}
	if err == nil {
		err = ln.bind()
	}
	if err != nil {
		ln.close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

// bind makes the socket appear once it takes connections: whoever finds it is not
// refused.
func (l *listener) bind() error {
	name := boundName(l.path)
	// bind gives the file the mode of the socket, so it never has a wider one. A
	// umask would not do: it belongs to the whole process, and a default ACL
	// overrules it.
	if err := unix.Fchmod(l.fd, socketMode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := unix.Bind(l.fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return fmt.Errorf("bind to %s: %w", name, err)
	}
	defer os.Remove(name)
	fi, err := os.Lstat(name)
	if err != nil {
		return err
	}
	l.ours = fi
	if perm := fi.Mode().Perm(); perm&^socketMode != 0 {
		return fmt.Errorf("the socket came out with mode %#o instead of %#o", perm, os.FileMode(socketMode))
	}
	// A umask may have made it narrower.
	if err := os.Chmod(name, socketMode); err != nil {
		return err
	}
	if err := unix.Listen(l.fd, backlog); err != nil {
		return err
	}
	// A link is never made over a file, as rename(2) would.
	return os.Link(name, l.path)
}

// close ends listening and removes the socket, unless it is no longer ours.
func (l *listener) close() {
	if l.fd < 0 {
		return
	}
	// Removed first, so that nobody finds it and is refused.
	if fi, err := os.Lstat(l.path); l.ours != nil && err == nil && os.SameFile(fi, l.ours) {
		os.Remove(l.path)
	}
	unix.Close(l.fd)
	unix.Close(l.spare)
	l.fd, l.spare = -1, -1
}

var errInTheWay = errors.New("something other than a socket is in the way: remove it")

// removeStale removes the socket of a daemon that was killed, and nothing else.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeSocket {
		return errInTheWay
	}
	live, err := answers(path)
	if err != nil {
		return fmt.Errorf("find out whether anybody listens: %w", err)
	}
	if live {
		// Somebody has removed its lock, or it is not a scoutfs-notifyd.
		return fmt.Errorf("%w: somebody listens there", errServed)
	}
	return os.Remove(path)
}

// answers tells whether anybody listens on a socket.
func answers(path string) (bool, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case nil, unix.EAGAIN, unix.EPROTOTYPE: // its backlog is full; it is of another type
		return true, nil
	case unix.ECONNREFUSED, unix.ENOENT:
		return false, nil
	default:
		return false, err
	}
}

func (l *listener) keepSpare() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("reserve a descriptor: %w", err)
	}
	l.spare = fd
	return nil
}

// pause leaves connections waiting for a while, or until resume.
func (l *listener) pause() { l.pausedUntil = time.Now().Add(pauseTime) }

func (l *listener) resume() { l.pausedUntil = time.Time{} }

// pollFd returns the descriptor to poll for connections, -1 during a pause.
func (l *listener) pollFd() int32 {
	if !l.pausedUntil.IsZero() {
		return -1
	}
	return int32(l.fd)
}

// pending tells whether a connection waits to be accepted. To ask is cheaper than an
// accept4(2) that finds none, for which the kernel first makes a socket.
func (l *listener) pending() bool {
	l.pollfd[0] = unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN}
	n, err := pollShortly(l.pollfd[:], &unix.Timespec{})
	return n > 0 || err != nil
}

// open tells whether to accept: not in a pause, always after one, and otherwise
// when poll says that the listener is ready.
func (l *listener) open(ready bool) bool {
	if l.pausedUntil.IsZero() {
		return ready
	}
	if time.Now().Before(l.pausedUntil) {
		return false
	}
	l.resume()
	return true
}

// acceptSpare accepts a connection with the spare descriptor, when there is no other to
// accept it with. giveBack ends it.
func (l *listener) acceptSpare() (int, error) {
	if l.spare < 0 {
		if err := l.keepSpare(); err != nil {
			return -1, err
		}
	}
	unix.Close(l.spare)
	l.spare = -1
	fd, err := l.accept()
	if err != nil {
		l.keepSpare()
	}
	return fd, err
}

// giveBack ends a connection that acceptSpare has accepted.
func (l *listener) giveBack(fd int) {
	unix.Close(fd)
	l.keepSpare()
}

// accept is accept4(2) without the address, which unix.Accept4 allocates.
func (l *listener) accept() (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(l.fd), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return -1, errno
		}
	}
}
