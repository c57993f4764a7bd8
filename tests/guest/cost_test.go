// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"math"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// What a read costs with and without a reader, in instructions. A daemon that is stopped
// or hangs must not tax every read: a full ring costs less than half of a record.
func TestCost(t *testing.T) {
	inGuest(t)
	if os.Getenv(EnvCounted) == "" {
		t.Skip("needs a machine that counts instructions, which TestCost of tests/boot starts")
	}
	f := setup(t)
	f.create("a", 4096)
	fd, err := unix.Open(f.path("a"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	none := instructions(t, fd, func() {})
	r := f.attach()
	room := instructions(t, fd, func() { drain(t, r) })
	drain(t, r)
	for range notify.RingRecords {
		f.touch("a")
	}
	full := instructions(t, fd, func() {})
	if _, dropped := f.counters(); dropped == 0 {
		t.Error("the ring was not full")
	}
	record, drop := room-none, full-none
	t.Logf("a cached pread of 4096 bytes takes %d instructions, %d more with a record, %d more when the ring is full", none, record, drop)
	if drop > record/2 {
		t.Errorf("a record that is dropped costs %d instructions, over half of the %d for one that is kept", drop, record)
	}
}

// instructions returns how many it takes to read from a file, in the machine that counts
// them as time: the least of several tries, before each of which prepare is called, since
// whatever else runs only adds to it.
func instructions(t *testing.T, fd int, prepare func()) int {
	t.Helper()
	const reads = 500
	buf := make([]byte, 4096)
	best := time.Duration(math.MaxInt64)
	for range 21 {
		prepare()
		runtime.GC() // not meanwhile
		start := time.Now()
		for range reads {
			// Raw: the scheduler is not told, which would have it run.
			n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
			if int(n) != len(buf) || errno != 0 {
				t.Fatalf("pread: %d bytes, error %v", int(n), errno)
			}
		}
		best = min(best, time.Since(start))
	}
	return int(best) / reads
}
