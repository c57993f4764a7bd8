// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// socketMode is the socket's from the moment it exists.
const socketMode = 0o600

// backlog is how many connections may wait to be accepted.
const backlog = 128

// listener is the daemon's socket.
type listener struct {
	fd   int
	path string
	ours os.FileInfo // of the socket in the file system
}

// listen makes the socket, in the place of one that nobody listens on. The
// caller holds the directory's lock.
func listen(path string, sendBuffer int) (*listener, error) {
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		return nil, fmt.Errorf("listen on %s: the path is longer than the %d bytes that a socket's can have: choose a shorter run directory",
			path, len(unix.RawSockaddrUnix{}.Path)-1)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	ln := &listener{fd: fd, path: path}
	// Clients' sockets do not inherit the size. But what keeps it from being set
	// on them shall show now.
	err = setSendBuffer(fd, sendBuffer)
	if err == nil {
		err = ln.bind()
	}
	if err != nil {
		ln.close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

func (l *listener) bind() error {
	// bind gives the file the mode of the socket, so that it never has a wider
	// one: a umask belongs to the whole process, and a default ACL overrules it.
	if err := unix.Fchmod(l.fd, socketMode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := unix.Bind(l.fd, &unix.SockaddrUnix{Name: l.path}); err != nil {
		return err
	}
	fi, err := os.Lstat(l.path)
	if err != nil {
		return err
	}
	l.ours = fi
	if perm := fi.Mode().Perm(); perm&^socketMode != 0 {
		return fmt.Errorf("the socket came out with mode %#o instead of %#o", perm, os.FileMode(socketMode))
	}
	// A umask may have made it narrower.
	if err := os.Chmod(l.path, socketMode); err != nil {
		return err
	}
	return unix.Listen(l.fd, backlog)
}

// close ends listening and removes the socket, unless it is no longer ours.
func (l *listener) close() {
	if l.fd < 0 {
		return
	}
	// Removed first: nobody shall find it and be refused.
	if fi, err := os.Lstat(l.path); l.ours != nil && err == nil && os.SameFile(fi, l.ours) {
		os.Remove(l.path)
	}
	unix.Close(l.fd)
	l.fd = -1
}

var errInTheWay = errors.New("there is something else than a socket: remove it")

// removeStale removes what a killed daemon has left.
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
		return fmt.Errorf("try whether anybody listens: %w", err)
	}
	if live {
		// Its lock was taken away from it, or it is no scoutfs-notifyd.
		return fmt.Errorf("%w: somebody listens there", ErrServed)
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
