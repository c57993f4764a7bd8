// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/scoutfs"
)

// Errors of a Reader, to be tested for with [errors.Is].
var (
	// ErrNotSupported: the loaded ScoutFS module was built without the notify
	// series.
	ErrNotSupported = errors.New("the loaded ScoutFS module has no notify support")

	// ErrBusy: another reader is attached to the mount.
	ErrBusy = errors.New("another reader is attached")

	// ErrUnmounted: the file system is unmounted and its last record drained.
	ErrUnmounted = errors.New("file system is unmounted")

	// ErrClosed: the Reader or Client was closed.
	ErrClosed = os.ErrClosed
)

// Reader is the one reader of a mount's records in the kernel. It does not keep
// the file system from being unmounted.
//
// Its methods are safe for concurrent use; concurrent drains take turns.
type Reader struct {
	mount Mount

	mu   sync.Mutex // guards what follows
	fd   int        // -1 once closed
	args readNotifyArgs
	buf  []byte // see Drain
}

// Attach makes the caller the reader of the ScoutFS mounted at a directory.
// The kernel makes records from then on, until Close or the end of the process.
// Like [Statfs] it can block for as long as the cluster's server is away; see
// [AttachContext].
//
// The error is [ErrNotScoutFS], [ErrNotSupported], [ErrBusy],
// [os.ErrPermission] without CAP_SYS_ADMIN in the initial user namespace, or
// the system's.
func Attach(dir string) (*Reader, error) {
	mfd, mount, err := openMount(dir)
	if err != nil {
		return nil, err
	}
	// An open directory would keep the file system mounted.
	defer unix.Close(mfd)

	r := &Reader{mount: mount}
	if err := r.attach(mfd); err != nil {
		return nil, fmt.Errorf("attach to %s: %w", dir, err)
	}
	return r, nil
}

// attach makes the Reader that of the mount on which a directory is open.
func (r *Reader) attach(dir int) (err error) {
	r.fd, err = scoutfs.Ioctl(dir, IoctlReadNotify, unsafe.Pointer(&r.args))
	switch err {
	case unix.ENOTTY:
		return ErrNotSupported
	case unix.EBUSY:
		return ErrBusy
	}
	return err
}

// AttachContext is [Attach], but waits no longer than the context lasts and returns
// its error then. The system call goes on in the background, and a Reader that it
// yields late is closed.
func AttachContext(ctx context.Context, dir string) (*Reader, error) {
	return await(ctx, "attach to "+dir, func() (*Reader, error) { return Attach(dir) }, func(late *Reader) { late.Close() })
}

// Mount returns the mount that the Reader is attached to.
func (r *Reader) Mount() Mount { return r.mount }

// Fd returns the descriptor to wait for records on: poll(2) reports POLLIN
// while there are any and POLLHUP once the file system is unmounted. The first
// record after a drain wakes whoever sleeps in poll, at the cost of the process
// that reads the file. So prefer poll to epoll, whose registration counts as a
// sleeper all the time, and wait a moment between drains. The descriptor belongs
// to the Reader: do not close it. It is -1 after Close.
func (r *Reader) Fd() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fd
}

// Drain moves the oldest records out of the kernel into buf and returns how
// many there were, 0 if none wait. It never blocks for records and does not
// allocate. buf should have room for [RingRecords] records and must have room for
// one; bytes beyond the last whole record are not used. [Decode] takes
// buf[:n*RecordSize].
//
// dropped is how many records the kernel has dropped since Attach because the
// ring was full, up to the oldest record that is left in the ring, or all of them if
// none is left. With [ErrUnmounted] it is the final number, with another error the
// last value known.
//
// The error is [ErrUnmounted] when the file system is unmounted and no record
// is left, [ErrClosed] after Close, or the system's.
func (r *Reader) Drain(buf []byte) (n int, dropped uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return 0, r.args.Dropped, fmt.Errorf("drain records: %w", ErrClosed)
	}
	records := len(buf) / RecordSize
	if records == 0 {
		return 0, r.args.Dropped, fmt.Errorf("drain records: a buffer of %d bytes holds none", len(buf))
	}
	// The kernel gets buf's address as a number, which would not follow a stack
	// that moves. The Reader is on the heap, so what it refers to is there too.
	r.buf = buf
	before := r.args.Dropped
	r.args = readNotifyArgs{
		RecordsPtr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.buf)))),
		RecordsNr:  uint32(min(records, RingRecords)),
	}
	n, err = scoutfs.Ioctl(r.fd, IoctlReadNotify, unsafe.Pointer(&r.args))
	r.buf = nil
	if err != nil {
		// The kernel sets it only with ENODEV, and not if its module is older.
		r.args.Dropped = max(r.args.Dropped, before)
		if err == unix.ENODEV {
			err = ErrUnmounted
		}
		return 0, r.args.Dropped, fmt.Errorf("drain records: %w", err)
	}
	return n, r.args.Dropped, nil
}

// Range returns the numbers of all accesses since the Reader attached: from first up to,
// but not including, next. Together with the records that were drained it tells what was
// dropped. ok is false if the kernel does not say: its module is of an older series.
func (r *Reader) Range() (first, next uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return 0, 0, false
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", r.fd))
	if err != nil {
		return 0, 0, false
	}
	next, ok = fdinfoNumber(info, "next_seq")
	emitted, ok2 := fdinfoNumber(info, "emitted")
	dropped, ok3 := fdinfoNumber(info, "dropped")
	return next - emitted - dropped, next, ok && ok2 && ok3
}

// Close detaches the Reader; records that were not drained are lost. Closing it
// again returns [ErrClosed]. A goroutine that sleeps in poll(2) on the descriptor
// is not woken, and keeps the Reader attached until it is.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return fmt.Errorf("close reader: %w", ErrClosed)
	}
	err := unix.Close(r.fd)
	r.fd = -1
	return err
}
