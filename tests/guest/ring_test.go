// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// readNotify is struct scoutfs_ioctl_read_notify, to fill with values that the
// package notify does not allow.
type readNotify struct {
	recordsPtr uint64
	recordsNr  uint32
	flags      uint32
	dropped    uint64
	reserved   uint64
}

func ioctl(fd int, cmd uint, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(arg))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func (f *fs) openDir() int {
	f.t.Helper()
	fd, err := unix.Open(f.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return fd
}

// A ring that nobody drains keeps the first records and counts the others in
// four places, which agree. No access fails or waits for a reader.
func TestRingFull(t *testing.T) {
	f := setup(t)
	const accesses = 5000
	const kept = notify.RingRecords
	const lost = accesses - kept
	f.create("a", 1)

	r := f.attach()
	emitted0, dropped0 := f.counters()
	for range accesses {
		f.touch("a")
	}
	if got := poll(t, r.Fd()); got != unix.POLLIN {
		t.Errorf("poll of a full ring: %#x, not POLLIN", got)
	}
	buf := make([]byte, kept*notify.RecordSize)
	n, dropped, err := r.Drain(buf)
	if err != nil || n != kept {
		t.Fatalf("drained %d records and error %v, not %d", n, err, kept)
	}
	recs, err := notify.Decode(nil, buf)
	if err != nil {
		t.Fatal(err)
	}
	for i, rec := range recs {
		if rec.Seq != uint64(i)+1 {
			t.Fatalf("record %d has seq %d; a mount's first has 1", i, rec.Seq)
		}
	}

	f.touch("a")
	next := drain(t, r)
	if len(next) != 1 {
		t.Fatalf("%d records after the drain, not 1", len(next))
	}
	emitted, droppedCounter := f.counters()
	info := fdinfo(t, r.Fd())
	t.Logf("%d accesses: %d kept, %d lost, fdinfo %v", accesses, n, lost, info)
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"gap in seq", next[0].Seq - recs[kept-1].Seq - 1, lost},
		{"dropped of the ioctl", dropped, lost},
		{"counter notify_dropped_ring_full", droppedCounter - dropped0, lost},
		{"counter notify_emitted", emitted - emitted0, kept + 1},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, not %d", c.name, c.got, c.want)
		}
	}
	for name, want := range map[string]string{
		"fsid": f.FSID.String(), "rid": f.RID.String(),
		"dropped": strconv.Itoa(lost), "emitted": strconv.Itoa(kept + 1),
		"next_seq": strconv.FormatUint(next[0].Seq+1, 10), "state": "alive",
	} {
		if info[name] != want {
			t.Errorf("fdinfo says %s is %q, not %q", name, info[name], want)
		}
	}
}

// Draining in pieces keeps the order across the end of the ring.
func TestRingWraps(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	buf := make([]byte, 700*notify.RecordSize)
	var gaps notify.Gaps
	for range 5 {
		for range 700 {
			f.touch("a")
		}
		n, _, err := r.Drain(buf)
		if err != nil || n != 700 {
			t.Fatalf("drained %d records and error %v, not 700", n, err)
		}
		recs, err := notify.Decode(nil, buf[:n*notify.RecordSize])
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range recs {
			if lost, ok := gaps.Observe(rec.Seq); lost != 0 || !ok {
				t.Fatalf("seq %d does not continue from the previous record", rec.Seq)
			}
		}
	}
	if gaps.Last() != 5*700 {
		t.Errorf("last seq is %d, not %d", gaps.Last(), 5*700)
	}
}

func TestAttachErrors(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	dir := f.openDir()
	defer unix.Close(dir)

	for name, rn := range map[string]readNotify{
		"records_ptr": {recordsPtr: 1},
		"records_nr":  {recordsNr: 1},
		"flags":       {flags: 1},
		"dropped":     {dropped: 1},
		"reserved":    {reserved: 1},
	} {
		if fd, err := ioctl(dir, notify.IoctlReadNotify, unsafe.Pointer(&rn)); err != unix.EINVAL {
			t.Errorf("attach with %s 1: %d, error %v, not EINVAL", name, fd, err)
		}
	}
	if _, err := ioctl(dir, notify.IoctlReadNotify, nil); err != unix.EFAULT {
		t.Errorf("attach with a bad pointer: %v, not EFAULT", err)
	}

	// any descriptor of the file system will do
	file, err := unix.Open(f.path("a"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var rn readNotify
	fd, err := ioctl(file, notify.IoctlReadNotify, unsafe.Pointer(&rn))
	if err != nil {
		t.Fatalf("attach through a file: %v", err)
	}
	unix.Close(file)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the reader descriptor is not close-on-exec (%#x, error %v)", flags, err)
	}
	if _, err := notify.Attach(f.dir); !errors.Is(err, notify.ErrBusy) {
		t.Errorf("second attach: %v, not ErrBusy", err)
	}
	attached := f.counter("notify_reader_attached")
	unix.Close(fd)
	r := f.attach()
	if got := f.counter("notify_reader_attached"); got != attached+1 {
		t.Errorf("counter notify_reader_attached went from %d to %d", attached, got)
	}
	r.Close()
}

// Only root of the initial user namespace can attach.
func TestAttachPrivilege(t *testing.T) {
	f := setup(t)
	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	for name, attr := range map[string]*syscall.SysProcAttr{
		"another user": {Credential: &syscall.Credential{Uid: 1000, Gid: 1000}},
		"root of another user namespace": {
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: root, GidMappings: root,
		},
	} {
		cmd := worker(roleAttach, f.dir, attr)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		t.Logf("%s: %s", name, stderr.Bytes())
		if err == nil || !strings.Contains(stderr.String(), unix.EPERM.Error()) {
			t.Errorf("%s: attach ended with %v, not EPERM", name, err)
		}
	}
	if got := f.counter("notify_reader_attached"); got != 0 {
		t.Errorf("%d readers were attached", got)
	}
}

func TestDrainErrors(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()

	// two pages of which only the first can be written
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if err := unix.Mprotect(m[page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	half := uint64(uintptr(unsafe.Pointer(&m[page-notify.RecordSize])))

	for range 3 {
		f.touch("a")
	}
	good := uint64(uintptr(unsafe.Pointer(&m[0])))
	for _, c := range []struct {
		name string
		cmd  uint
		rn   *readNotify
		err  error
	}{
		{"no room", notify.IoctlReadNotify, &readNotify{recordsPtr: good}, unix.EINVAL},
		{"flags", notify.IoctlReadNotify, &readNotify{recordsPtr: good, recordsNr: 1, flags: 1}, unix.EINVAL},
		{"reserved", notify.IoctlReadNotify, &readNotify{recordsPtr: good, recordsNr: 1, reserved: 1}, unix.EINVAL},
		{"records_ptr 0", notify.IoctlReadNotify, &readNotify{recordsNr: 3}, unix.EFAULT},
		{"records_ptr in the kernel", notify.IoctlReadNotify, &readNotify{recordsPtr: 0xffffffff81000000, recordsNr: 3}, unix.EFAULT},
		{"records_ptr with room for one of three", notify.IoctlReadNotify, &readNotify{recordsPtr: half, recordsNr: 3}, unix.EFAULT},
		{"pointer 0", notify.IoctlReadNotify, nil, unix.EFAULT},
		{"another command", 0xc020e818, &readNotify{recordsPtr: good, recordsNr: 1}, unix.ENOTTY},
	} {
		if n, err := ioctl(r.Fd(), c.cmd, unsafe.Pointer(c.rn)); err != c.err {
			t.Errorf("%s: %d, error %v, not %v", c.name, n, err, c.err)
		}
	}

	// records are not consumed if the result cannot be written
	*(*readNotify)(unsafe.Pointer(&m[0])) = readNotify{recordsPtr: good + 64, recordsNr: 3}
	if err := unix.Mprotect(m[:page], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	if n, err := ioctl(r.Fd(), notify.IoctlReadNotify, unsafe.Pointer(&m[0])); err != unix.EFAULT {
		t.Errorf("structure that can't be written: %d, error %v, not EFAULT", n, err)
	}
	if err := unix.Mprotect(m[:page], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}

	rn := readNotify{recordsPtr: good, recordsNr: ^uint32(0)}
	if n, err := ioctl(r.Fd(), notify.IoctlReadNotify, unsafe.Pointer(&rn)); n != 3 || err != nil {
		t.Fatalf("after the errors %d records are left, error %v, not 3", n, err)
	}
	for i := range uint64(3) {
		if seq := binary.LittleEndian.Uint64(m[i*notify.RecordSize:]); seq != i+1 {
			t.Errorf("record %d has seq %d", i, seq)
		}
	}
	if recs := drain(t, r); len(recs) != 0 {
		t.Errorf("%d records were read twice", len(recs))
	}
	for _, fd := range []int{r.Fd()} {
		b := make([]byte, 64)
		if _, err := unix.Read(fd, b); err == nil {
			t.Error("read(2) of a reader descriptor works")
		}
		if _, err := unix.Write(fd, b); err == nil {
			t.Error("write(2) to a reader descriptor works")
		}
	}
}

// SCOUTFS_IOC_INJECT_TOTL_DELTA of v1.31 has the same number.
func TestNumberIsShared(t *testing.T) {
	f := setup(t)
	dir := f.openDir()
	defer unix.Close(dir)
	r := f.attach()
	var arg [40]byte
	if _, err := ioctl(r.Fd(), 0x4028e819, unsafe.Pointer(&arg)); err != unix.ENOTTY {
		t.Errorf("the command of v1.31 on a reader descriptor: %v, not ENOTTY", err)
	}
	if _, err := ioctl(r.Fd(), notify.IoctlReadNotify&^0xff00|0xe900, unsafe.Pointer(&arg)); err != unix.ENOTTY {
		t.Errorf("the number of another driver: %v, not ENOTTY", err)
	}
}

// A program with 32 bits attaches through directory and file, and drains.
func TestBits32(t *testing.T) {
	f := setup(t)
	ino := f.create("a", 100)
	for _, attachTo := range []string{f.dir, f.path("a")} {
		cmd := exec.Command(Bits32, attachTo, f.path("a"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if errors.Is(err, unix.ENOEXEC) {
			t.Skip("this kernel runs no programs with 32 bits")
		}
		if err != nil {
			t.Fatalf("attach through %s: %v\n%s", attachTo, err, stderr.Bytes())
		}
		recs, err := notify.Decode(nil, out)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) != 2 || recs[0].Type != notify.TypeOpen || recs[1].Type != notify.TypeRead ||
			recs[0].Ino != ino || recs[1].Ino != ino || recs[1].Length != 100 {
			t.Errorf("attached through %s it got %+v, not an open and a read of 100 bytes", attachTo, recs)
		}
	}
}

func TestPoll(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	if got := poll(t, r.Fd()); got != 0 {
		t.Errorf("poll of an empty ring: %#x", got)
	}
	woken := make(chan int16)
	go func() { woken <- pollFor(t, r.Fd(), patience) }()
	f.touch("a")
	if got := <-woken; got != unix.POLLIN {
		t.Errorf("a record woke poll with %#x, not POLLIN", got)
	}
	if n := len(drain(t, r)); n != 1 {
		t.Errorf("%d records, not 1", n)
	}
	if got := poll(t, r.Fd()); got != 0 {
		t.Errorf("poll of a drained ring: %#x", got)
	}

	// unmount with an undrained record and a sleeping poller
	go func() { woken <- pollFor(t, r.Fd(), patience) }()
	f.touch("a")
	if got := <-woken; got != unix.POLLIN {
		t.Errorf("a record woke poll with %#x, not POLLIN", got)
	}
	f.umount()
	if got := poll(t, r.Fd()); got != unix.POLLIN|unix.POLLHUP {
		t.Errorf("poll after umount with a record left: %#x, not POLLIN|POLLHUP", got)
	}
	if n := len(drain(t, r)); n != 1 {
		t.Errorf("%d records left after umount, not 1", n)
	}
	if got := poll(t, r.Fd()); got != unix.POLLHUP {
		t.Errorf("poll after umount: %#x, not POLLHUP", got)
	}
	if _, err := tryDrain(r); !errors.Is(err, notify.ErrUnmounted) {
		t.Errorf("drain after umount: %v, not ErrUnmounted", err)
	}
	if info := fdinfo(t, r.Fd()); info["fsid"] != f.FSID.String() || info["rid"] != f.RID.String() || info["state"] != "unmounted" {
		t.Errorf("fdinfo after umount: %v", info)
	}
	if err := unix.DeleteModule("scoutfs", unix.O_NONBLOCK); err == nil {
		t.Fatal("the module could be removed while a reader descriptor is open")
	}
	r.Close()
}

// An edge-triggered poller is woken by the first record, by a drain that leaves records,
// and for each quarter of the ring that nobody drains, and by nothing else.
func TestPollEdges(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(r.Fd())}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, r.Fd(), &ev); err != nil {
		t.Fatal(err)
	}
	edges := func(after string, want int) {
		t.Helper()
		// The kernel queues edges at once: do not wait.
		n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 1), 0)
		if err != nil || n != want {
			t.Errorf("after %s: %d edges, error %v, not %d", after, n, err, want)
		}
	}
	drainN := func(room, want int) {
		t.Helper()
		if n, _, err := r.Drain(make([]byte, room*notify.RecordSize)); err != nil || n != want {
			t.Errorf("drained %d records and error %v, not %d", n, err, want)
		}
	}
	edges("attach", 0)
	f.touch("a")
	edges("a record", 1)
	f.touch("a")
	f.touch("a")
	edges("two more records", 0)
	drainN(1, 1)
	edges("a drain that left two", 1)
	drainN(1, 1)
	edges("a drain that left one", 1)
	drainN(10, 1)
	edges("a drain that left none", 0)
	f.touch("a")
	edges("a record", 1)
	drainN(1, 1)

	// A reader that was woken and has not come is woken for each quarter of the ring.
	const quarter = notify.RingRecords / 4
	for n := range notify.RingRecords + 2*quarter {
		f.touch("a")
		want := 0
		if n%quarter == 0 && n < notify.RingRecords {
			want = 1
		}
		edges(fmt.Sprintf("%d undrained records", n+1), want)
	}
}

// umount wakes a sleeping poller.
func TestUmountWakes(t *testing.T) {
	f := setup(t)
	r := f.attach()
	woken := make(chan int16)
	go func() { woken <- pollFor(t, r.Fd(), patience) }()
	f.umount()
	if got := <-woken; got != unix.POLLHUP {
		t.Errorf("umount woke poll with %#x, not POLLHUP", got)
	}
	r.Close()
}

// Numbers continue over an attach, which skips one.
func TestReattach(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	r := f.attach()
	f.touch("a")
	f.touch("a")
	first := drain(t, r)
	f.touch("a") // lost with the ring
	r.Close()
	f.touch("a") // not recorded
	r = f.attach()
	f.touch("a")
	second := drain(t, r)
	if len(first) != 2 || len(second) != 1 {
		t.Fatalf("%d and %d records, not 2 and 1", len(first), len(second))
	}
	if first[0].Seq != 1 || first[1].Seq != 2 || second[0].Seq != 5 {
		t.Errorf("seq %d, %d and %d, not 1, 2 and (one lost, one skipped) 5", first[0].Seq, first[1].Seq, second[0].Seq)
	}
}

// Attach, emit, drain, detach and unmount race. The kernel must log no trouble, and
// numbers must never repeat or go back.
func TestRaces(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	rounds := 20
	if isScoutFS() {
		rounds = 4 // its mount is slow
	}
	var records, attaches atomic.Int64
	for range rounds {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		forever := func(do func()) {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						do()
					}
				}
			})
		}
		forever(func() { f.touch("a") })
		forever(func() { f.touch("a") })

		// The one that attaches passes its reader to the drainers.
		var last atomic.Uint64
		var held *notify.Reader
		for range 2 {
			forever(func() {
				r, err := notify.Attach(f.dir)
				if errors.Is(err, notify.ErrBusy) {
					return
				}
				if err != nil {
					t.Errorf("attach: %v", err)
					return
				}
				attaches.Add(1)
				var inner sync.WaitGroup
				inner.Go(func() { poll(t, r.Fd()) })
				for range 50 {
					recs, err := tryDrain(r)
					if err != nil {
						t.Errorf("drain: %v", err)
					}
					for _, rec := range recs {
						if was := last.Swap(rec.Seq); rec.Seq <= was {
							t.Errorf("seq %d follows %d", rec.Seq, was)
						}
					}
					records.Add(int64(len(recs)))
				}
				inner.Wait()
				r.Close()
			})
		}
		time.Sleep(200 * time.Millisecond) // let them race
		close(stop)
		wg.Wait()

		// detach races with unmount
		held = f.attach()
		f.touch("a")
		wg.Go(func() { held.Close() })
		f.umount()
		wg.Wait()
		f.mount()
		if !isScoutFS() {
			f.create("a", 1)
		}
	}
	t.Logf("%d rounds, %d attaches, %d records", rounds, attaches.Load(), records.Load())
	if attaches.Load() == 0 || records.Load() == 0 {
		t.Error("nothing raced")
	}
}

func ioctlReadNotify(fd int, rn *readNotify) (int, error) {
	return ioctl(fd, notify.IoctlReadNotify, unsafe.Pointer(rn))
}
