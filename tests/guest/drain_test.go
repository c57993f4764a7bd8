// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
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

// Records make room for others a page at a time, not only once all are copied.
func TestDrainMakesRoom(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	chunk := notify.RingRecords / ringPages
	f.touchTimes("a", notify.RingRecords)
	slow := newSlowPages(t, ringPages)
	c := goDrain(r, slow.mem, notify.RingRecords)
	if page := slow.wanted(); page != 0 {
		t.Fatalf("the copy began with page %d", page)
	}
	f.touch("a") // still full: dropped
	slow.give(0, 1)
	if page := slow.wanted(); page != 1 {
		t.Fatalf("the copy continued with page %d", page)
	}
	f.touchTimes("a", chunk)
	f.touch("a") // full again: dropped
	slow.give(1, ringPages)
	d := await(t, c)
	checkDrained(t, "the slow drain", d, slow.mem, seqs(1, notify.RingRecords), 1)
	d = drainRaw(r, slow.mem, notify.RingRecords)
	checkDrained(t, "the next", d, slow.mem, seqs(notify.RingRecords+2, chunk), 2)
	if emitted, dropped := f.counters(); emitted != uint64(notify.RingRecords+chunk) || dropped != 2 {
		t.Errorf("the counters say %d emitted, %d dropped", emitted, dropped)
	}
}

func seqs(first, n int) (s []uint64) {
	for i := range n {
		s = append(s, uint64(first+i))
	}
	return s
}

// checkDrained compares what a drain returned with numbers and with what was dropped.
func checkDrained(t *testing.T, what string, d drained, mem []byte, seqs []uint64, dropped uint64) {
	t.Helper()
	if d.n != len(seqs) || d.dropped != dropped || d.err != nil {
		t.Fatalf("%s returned %+v, not %d records and %d dropped", what, d, len(seqs), dropped)
	}
	for i, want := range seqs {
		if got := binary.NativeEndian.Uint64(mem[i*notify.RecordSize:]); got != want {
			t.Fatalf("%s: record %d has seq %d, not %d", what, i, got, want)
		}
	}
}

// ringModel is what the ring must do.
type ringModel struct {
	queue                     []uint64 // numbers of the records in the ring
	emitted, dropped, drained uint64
}

func (m *ringModel) emit() {
	if len(m.queue) == notify.RingRecords {
		m.dropped++
		return
	}
	m.emitted++
	m.queue = append(m.queue, m.emitted+m.dropped)
}

// drain returns the numbers of the records that a drain returns into an array of which
// only a part can be written, and how many it says were dropped.
func (m *ringModel) drain(room, writable int) (seqs []uint64, dropped uint64) {
	const chunk = 64
	n := min(room, len(m.queue))
	if n > writable {
		// A chunk is delivered as a whole or not. None goes over the ring's end.
		for n = 0; ; {
			next := min(chunk, notify.RingRecords-(int(m.drained)+n)%notify.RingRecords, len(m.queue)-n, room-n)
			if n+next > writable {
				break
			}
			n += next
		}
	}
	seqs = m.queue[:n]
	m.queue = m.queue[n:]
	m.drained += uint64(n)
	if len(m.queue) == 0 {
		return seqs, m.dropped
	}
	return seqs, m.queue[0] - 1 - m.drained
}

// Whatever is accessed, dropped, and drained into whatever room, of which a part may be
// unmapped: what was returned and what is said to be dropped add up to the number that
// is next.
func TestDrainModel(t *testing.T) {
	const ring = notify.RingRecords
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, ring*notify.RecordSize+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	end := len(mem) - page // of what can be written
	if err := unix.Mprotect(mem[end:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	f := setup(t)
	f.create("a", 1)
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 13))
	r := f.attach()
	var m ringModel
	var partial, faults, full int
	for step := range 200 {
		for range rnd.IntN(700) {
			f.touch("a")
			m.emit()
		}
		if len(m.queue) == ring {
			full++
		}
		room, writable := 1+rnd.IntN(ring), ring
		if rnd.IntN(2) == 0 {
			writable = rnd.IntN(room + 1)
		}
		last := len(m.queue)
		want, dropped := m.drain(room, writable)
		buf := mem[end-writable*notify.RecordSize:]
		d := drainRaw(r, buf, room)
		if len(want) == 0 && last > 0 {
			faults++
			if d.err != unix.EFAULT {
				t.Fatalf("seed %d, step %d: the drain returned %+v, not EFAULT", seed, step, d)
			}
			continue
		}
		if len(want) < min(room, last) {
			partial++
		}
		if next := 1 + m.drained + dropped; len(m.queue) > 0 && m.queue[0] != next {
			t.Fatalf("seed %d, step %d: the model is wrong: %d is next, not %d", seed, step, m.queue[0], next)
		}
		checkDrained(t, "the drain with seed "+strconv.FormatUint(seed, 10), d, buf, want, dropped)
	}
	t.Logf("seed %d: %d records, %d dropped, %d times full, %d drains cut short, %d EFAULT",
		seed, m.emitted, m.dropped, full, partial, faults)
	if m.dropped == 0 || partial == 0 || faults == 0 {
		t.Error("not everything happened")
	}
}
