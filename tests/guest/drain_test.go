// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// ringPages is the number of pages that a whole ring fills.
var ringPages = notify.RingRecords * notify.RecordSize / os.Getpagesize()

// slowPages is memory that the test puts in place a page at a time, while whoever
// touches a page that is not there waits, the kernel included.
type slowPages struct {
	t    *testing.T
	mem  []byte
	uffd int
}

// newSlowPages returns memory of which no page is there.
func newSlowPages(t *testing.T, pages int) *slowPages {
	t.Helper()
	uffd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno == unix.ENOSYS {
		t.Skip("this kernel has no userfaultfd")
	}
	if errno != 0 {
		t.Fatalf("userfaultfd: %v", errno)
	}
	s := &slowPages{t: t, uffd: int(uffd)}
	t.Cleanup(func() { unix.Close(s.uffd) })
	var err error
	s.mem, err = unix.Mmap(-1, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(s.mem) })
	// From linux/userfaultfd.h: UFFDIO_API with UFFD_API, then UFFDIO_REGISTER with
	// the range and UFFDIO_REGISTER_MODE_MISSING.
	s.control("UFFDIO_API", 0xc018aa3f, &[4]uint64{0xaa})
	s.control("UFFDIO_REGISTER", 0xc020aa00, &[4]uint64{s.addr(0), uint64(len(s.mem)), 1})
	return s
}

func (s *slowPages) addr(page int) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.mem)))) + uint64(page*os.Getpagesize())
}

func (s *slowPages) control(name string, cmd uint, arg *[4]uint64) {
	s.t.Helper()
	if _, err := ioctl(s.uffd, cmd, unsafe.Pointer(arg)); err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
}

// wanted waits until somebody waits for a page and returns which.
func (s *slowPages) wanted() int {
	s.t.Helper()
	if got := pollFor(s.t, s.uffd, patience); got != unix.POLLIN {
		s.t.Fatalf("nobody touched a page in %v (poll says %#x)", patience, got)
	}
	var msg [32]byte // struct uffd_msg
	if n, err := unix.Read(s.uffd, msg[:]); n != len(msg) || err != nil {
		s.t.Fatalf("read userfaultfd: %d bytes, error %v", n, err)
	}
	return int(binary.NativeEndian.Uint64(msg[16:])-s.addr(0)) / os.Getpagesize()
}

// give puts pages in place, from the first up to but not including the last.
func (s *slowPages) give(first, last int) {
	s.t.Helper()
	s.control("UFFDIO_ZEROPAGE", 0xc020aa04, &[4]uint64{s.addr(first), uint64((last - first) * os.Getpagesize())})
}

// drained is what a drain returned.
type drained struct {
	n       int
	dropped uint64
	err     error
}

// drainRaw drains without the package notify, which remembers what was dropped.
func drainRaw(r *notify.Reader, mem []byte, room int) drained {
	rn := readNotify{
		recordsPtr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))),
		recordsNr:  uint32(room), dropped: 1 << 40,
	}
	n, err := ioctlReadNotify(r.Fd(), &rn)
	runtime.KeepAlive(mem)
	return drained{n, rn.dropped, err}
}

// goDrain is drainRaw in the background.
func goDrain(r *notify.Reader, mem []byte, room int) <-chan drained {
	c := make(chan drained, 1)
	go func() { c <- drainRaw(r, mem, room) }()
	return c
}

// await returns what a drain in the background returned.
func await(t *testing.T, c <-chan drained) drained {
	t.Helper()
	select {
	case d := <-c:
		return d
	case <-time.After(patience):
		t.Fatal("the drain did not return")
		return drained{}
	}
}

func (f *fs) touchTimes(name string, n int) {
	f.t.Helper()
	for range n {
		f.touch(name)
	}
}

// What is dropped while records are copied, and followed by nothing but unmount, is told.
func TestDropsDuringLastDrain(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	const lost = 10
	f.touchTimes("a", notify.RingRecords)
	slow := newSlowPages(t, ringPages)
	c := goDrain(r, slow.mem, notify.RingRecords)
	if page := slow.wanted(); page != 0 {
		t.Fatalf("the copy began with page %d", page)
	}
	f.touchTimes("a", lost) // the ring is full
	f.umount()
	slow.give(0, ringPages)
	if d := await(t, c); d.n != notify.RingRecords || d.err != nil {
		t.Fatalf("the drain returned %+v", d)
	}
	for range 2 { // it is told as often as it is asked
		if d := drainRaw(r, slow.mem, 1); d.err != unix.ENODEV || d.dropped != lost {
			t.Errorf("the last drain returned %+v, not ENODEV and that %d were dropped", d, lost)
		}
	}
	// An answer that cannot be written is not lost either.
	*(*readNotify)(unsafe.Pointer(&slow.mem[0])) = readNotify{recordsPtr: slow.addr(1), recordsNr: 1}
	if err := unix.Mprotect(slow.mem, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if n, err := ioctl(r.Fd(), notify.IoctlReadNotify, unsafe.Pointer(&slow.mem[0])); err != unix.EFAULT {
		t.Errorf("the last drain into a structure that can't be written: %d, error %v, not EFAULT", n, err)
	}
	if _, dropped, err := r.Drain(slow.mem); dropped != lost || !errors.Is(err, notify.ErrUnmounted) {
		t.Errorf("the reader says that %d were dropped, error %v; not %d and ErrUnmounted", dropped, err, lost)
	}
}
