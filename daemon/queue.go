// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// queue is the kernel's buffer of a client's socket, in which packets wait for it.
type queue struct {
	fresh uint64 // bytes of memory that packets since the last measurement take, at most
	bytes uint64 // at the last measurement
	cut   bool   // it may not grow
	other bool   // its size is not the configured one
}

// add counts packets of so many bytes in all. The kernel charges a packet's memory, which
// is less than this: 768 bytes for one record, and about what it holds for a large one.
func (q *queue) add(packets, size int) { q.fresh += 2*uint64(size) + 1024*uint64(packets) }

// measure finds out how much memory the queue takes.
func (q *queue) measure(fd int) {
	q.fresh = 0
	if n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ); err == nil {
		q.bytes = uint64(n)
	}
}

// stunt keeps the queue from growing, until a client has taken three quarters of it. It
// has minSendBuffer bytes at least: the kernel refuses packets larger than the queue.
func (q *queue) stunt(fd int) {
	if setSendBuffer(fd, int(q.bytes/2)) == nil {
		q.cut, q.other = true, true
	}
}

// restore undoes stunt and extend.
func (q *queue) restore(fd, size int) {
	if q.other && setSendBuffer(fd, size) == nil {
		q.cut, q.other = false, false
	}
}

// extraRoom is how much a queue grows for a packet that must be sent.
const extraRoom = 32 << 10

// extend makes room for some packets more.
func (q *queue) extend(fd int) {
	q.measure(fd)
	if setSendBuffer(fd, int(min(max(q.bytes/2, minSendBuffer/2)+extraRoom, maxSendBuffer))) == nil {
		q.other = true
	}
}

// sendBufferOption sets the size without regard to the system's limit, which takes
// CAP_NET_ADMIN. It is a variable for tests that run without that.
var sendBufferOption = unix.SO_SNDBUFFORCE

// setSendBuffer sets the size of a client's queue, which the kernel doubles.
func setSendBuffer(fd, size int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, sendBufferOption, size)
	if err == unix.EPERM {
		return fmt.Errorf("set the size of its queue: %w: CAP_NET_ADMIN is missing", os.ErrPermission)
	}
	if err != nil {
		return fmt.Errorf("set the size of its queue: %w", err)
	}
	return nil
}
