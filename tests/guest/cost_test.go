// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// The most instructions that the hooks may add.
const (
	// While nobody listens: to a cached pread a load, a test and a branch, and to an open
	// the call of a function with the same in it.
	mostIdleRead     = 4
	mostIdleOpenRead = 30

	// Records, in addition.
	mostRead     = 120 // to a cached pread
	mostOpenRead = 210 // to that with an open before and a close after it: two records
	mostDropped  = 60  // to a cached pread, while the ring is full

	// Each record, in addition, in a kernel that can preempt itself, as EL9's: there locks
	// and RCU count how deep they are, and RCU's are calls.
	mostPreempt = 20
)

// What accesses cost with and without a reader, in instructions. A daemon that is stopped
// or hangs hardly taxes the reads.
func TestCost(t *testing.T) {
	inGuest(t)
	if os.Getenv(EnvCounted) == "" {
		t.Skip("needs a machine that counts instructions, which TestCost of tests/boot starts")
	}
	before, openBefore := without(t)
	f := setup(t)
	read, openRead, end := f.reads()
	defer end()
	nothing := func() {}

	none, openNone := instructions(t, read, nothing), instructions(t, openRead, nothing)
	t.Logf("while nobody listens, a pread takes %d instructions, %d more than without the series, and open, pread and close %d, %d more",
		none, none-before, openNone, openNone-openBefore)
	if none-before > mostIdleRead || openNone-openBefore > mostIdleOpenRead {
		t.Errorf("the hooks add %d instructions to a pread and %d to open, pread and close, over %d and %d",
			none-before, openNone-openBefore, mostIdleRead, mostIdleOpenRead)
	}
	r := f.attach()
	free := func() { drain(t, r) }
	room, openRoom := instructions(t, read, free), instructions(t, openRead, free)
	free()
	for range notify.RingRecords {
		f.touch("a")
	}
	full := instructions(t, read, nothing)
	if _, dropped := f.counters(); dropped == 0 {
		t.Error("the ring was not full")
	}
	record, openRecord, drop := room-none, openRoom-openNone, full-none
	t.Logf("a cached pread of 4096 bytes takes %d instructions, %d more with a record, %d more when the ring is full", none, record, drop)
	t.Logf("open, the same pread and close take %d, %d more with two records", openNone, openRecord)
	preempt := 0
	if preempts(t) {
		preempt = mostPreempt
	}
	if record > mostRead+preempt || openRecord > mostOpenRead+2*preempt {
		t.Errorf("records cost %d instructions for a pread and %d for open, pread and close, over %d and %d",
			record, openRecord, mostRead+preempt, mostOpenRead+2*preempt)
	}
	if drop > mostDropped+preempt {
		t.Errorf("a record that is dropped costs %d instructions, over %d", drop, mostDropped+preempt)
	}
}

// preempts says whether the kernel can preempt itself.
func preempts(t *testing.T) bool {
	t.Helper()
	version, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(version), " PREEMPT")
}

// without returns how many instructions accesses take without the series.
func without(t *testing.T) (pread, openRead int) {
	t.Helper()
	insmod(t, Unpatched)
	defer rmmod(t)
	f := mountFS(t)
	defer f.umount()
	dir := f.openDir()
	defer unix.Close(dir)
	if _, err := ioctlReadNotify(dir, &readNotify{}); err != unix.ENOTTY {
		t.Fatalf("attach to an unpatched module: %v, not ENOTTY: it is none to compare with", err)
	}
	read, open, end := f.reads()
	defer end()
	nothing := func() {}
	return instructions(t, read, nothing), instructions(t, open, nothing)
}

// reads returns functions that read a file, one that is open until end and one that opens
// it for each.
func (f *fs) reads() (read, openRead func() error, end func()) {
	f.t.Helper()
	f.create("a", 4096)
	fd, err := unix.Open(f.path("a"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	return reading(fd), openReading(f.t, f.path("a")), func() { unix.Close(fd) }
}

// reading returns a function that reads 4096 bytes of an open file. Raw: the scheduler is
// not told, which would have it run.
func reading(fd int) func() error {
	buf := make([]byte, 4096)
	return func() error {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if int(n) != len(buf) || errno != 0 {
			return fmt.Errorf("pread: %d bytes, error %w", int(n), errno)
		}
		return nil
	}
}

// openReading is reading with an open before and a close after it.
func openReading(t *testing.T, path string) func() error {
	t.Helper()
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	return func() error {
		at := unix.AT_FDCWD
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("open: %w", errno)
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if int(n) != len(buf) || errno != 0 {
			return fmt.Errorf("pread: %d bytes, error %w", int(n), errno)
		}
		unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		return nil
	}
}

// instructions returns how many an access takes in the machine that counts them as time:
// the least of many tries, before each of which prepare is called, since whatever else runs
// only adds to it. Each is shorter than the time between two timer interrupts.
func instructions(t *testing.T, access func() error, prepare func()) int {
	t.Helper()
	const accesses = 100
	best := time.Duration(math.MaxInt64)
	for range 51 {
		prepare()
		runtime.GC() // not meanwhile
		start := time.Now()
		for range accesses {
			if err := access(); err != nil {
				t.Fatal(err)
			}
		}
		best = min(best, time.Since(start))
	}
	return int(best) / accesses
}
