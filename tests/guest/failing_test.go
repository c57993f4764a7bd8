// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// failures is where a kernel with fault injection is told which allocations, and which
// copies between the kernel and a process, may fail.
const failures = "/sys/kernel/debug/"

// injectFailures lets any allocation fail, also one that may wait for memory, without a
// trace of each in the kernel's log.
func injectFailures(t *testing.T) {
	t.Helper()
	for file, text := range map[string]string{
		"failslab/ignore-gfp-wait":           "N",
		"fail_page_alloc/ignore-gfp-wait":    "N",
		"fail_page_alloc/ignore-gfp-highmem": "N",
		"fail_page_alloc/min-order":          "0",
		"failslab/verbose":                   "0",
		"fail_page_alloc/verbose":            "0",
		"fail_usercopy/verbose":              "0",
	} {
		err := os.WriteFile(failures+file, []byte(text), 0)
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("skipped: this kernel has no fault injection")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Every allocation and every copy of attach, drain, poll and close fails in turn, and
// then nothing is left of the attempt: the next one succeeds.
func TestFailingAllocations(t *testing.T) {
	f := setup(t)
	injectFailures(t)
	f.create("a", 1)
	cmd := worker(roleFail, f.dir, nil)
	// A signal's frame is a copy that can fail, too, which would kill the process.
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the process whose allocations fail: %v\n%s", err, out)
	}
	var failed map[string][]string
	if err := json.Unmarshal(out, &failed); err != nil {
		t.Fatalf("parse %q: %v", out, err)
	}
	t.Logf("%v", failed)
	for _, call := range []string{"attach", "drain", "epoll"} {
		if len(failed[call]) == 0 {
			t.Errorf("%s never failed", call)
		}
	}
	// The mount is as good as before.
	r := f.attach()
	f.touch("a")
	if recs := drain(t, r); len(recs) != 1 || recs[0].Type != notify.TypeOpen {
		t.Errorf("%d records of one open", len(recs))
	}
	r.Close()
	wantNoLeaks(t)
	tellLockdep(t)
}

// failing is a thread in which the n-th chance to fail is taken.
type failing struct {
	fd  int // of fail-nth
	buf [16]byte
}

// newFailing makes this goroutine's thread, which it stays on, one.
func newFailing() (*failing, error) {
	runtime.LockOSThread()
	fd, err := unix.Open(fmt.Sprintf("/proc/self/task/%d/fail-nth", unix.Gettid()), unix.O_RDWR|unix.O_CLOEXEC, 0)
	return &failing{fd: fd}, err
}

// arm has the n-th allocation or copy from now on fail.
func (f *failing) arm(n int) {
	text := strconv.AppendInt(f.buf[:0], int64(n), 10)
	unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(f.fd), uintptr(unsafe.Pointer(&f.buf[0])), uintptr(len(text)), 0, 0, 0)
}

// disarm reports whether it has failed: fail-nth is what is left of n.
func (f *failing) disarm() bool {
	n, _, _ := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(f.fd), uintptr(unsafe.Pointer(&f.buf[0])), uintptr(len(f.buf)), 0, 0, 0)
	failed := n > 0 && f.buf[0] == '0'
	f.arm(0)
	return failed
}

// runFailing makes each call fail at its first chance, its second and so on, until it
// has none left, and returns the errors of each call in that order.
func runFailing(dir string) (map[string][]string, error) {
	f, err := newFailing()
	if err != nil {
		return nil, err
	}
	mount, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ep)

	// All that the calls need is in memory before: page faults can fail as well.
	mem := make([]byte, notify.RingRecords*notify.RecordSize)
	attach, drain := new(readNotify), new(readNotify)
	event := &unix.EpollEvent{Events: unix.EPOLLIN}
	failed := map[string][]string{}
	try := func(call string, do func() unix.Errno, undo func()) error {
		for n := 1; n < 1000; n++ {
			f.arm(n)
			errno := do()
			hit := f.disarm()
			if !hit {
				if errno != 0 {
					return fmt.Errorf("%s without a failure: %w", call, errno)
				}
				return nil
			}
			if errno != 0 && errno != unix.ENOMEM && errno != unix.EFAULT && errno != unix.ENFILE {
				return fmt.Errorf("%s whose chance %d failed: %w", call, n, errno)
			}
			failed[call] = append(failed[call], fmt.Sprint(errno))
			if errno == 0 { // it can do without what failed
				undo()
			}
		}
		return fmt.Errorf("%s fails without end", call)
	}
	nothing := func() {}
	reader := -1
	err = try("attach", func() unix.Errno {
		fd, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(mount), notify.IoctlReadNotify, uintptr(unsafe.Pointer(attach)))
		reader = int(fd)
		return errno
	}, func() { unix.Close(reader) })
	if err != nil {
		return nil, err
	}
	file, err := unix.Open(dir+"/a", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	unix.Close(file)
	for _, call := range []struct {
		name string
		do   func() unix.Errno
		undo func()
	}{
		{"drain", func() unix.Errno {
			*drain = readNotify{recordsPtr: uint64(uintptr(unsafe.Pointer(&mem[0]))), recordsNr: notify.RingRecords}
			_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(reader), notify.IoctlReadNotify, uintptr(unsafe.Pointer(drain)))
			return errno
		}, nothing},
		{"epoll", func() unix.Errno {
			_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(ep), unix.EPOLL_CTL_ADD, uintptr(reader), uintptr(unsafe.Pointer(event)), 0, 0)
			return errno
		}, func() { unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, reader, nil) }},
		{"close", func() unix.Errno {
			_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(reader), 0, 0)
			if errno == unix.EBADF { // the attempt before has closed it
				errno = 0
			}
			return errno
		}, nothing},
	} {
		if err := try(call.name, call.do, call.undo); err != nil {
			return nil, err
		}
	}
	return failed, nil
}
