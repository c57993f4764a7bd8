// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shortWait is the longest wait that the Go scheduler is not told of: longer ones are
// without hurry.
const shortWait = 2 * time.Millisecond

// pollShortly is ppoll(2) for a wait that ends soon by itself. The Go scheduler is not
// told: it would take the processor away from a thread that waits for more than 20
// microseconds, wake another one for it, and wake both again at the end.
func pollShortly(fds []unix.PollFd, timeout *unix.Timespec) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)),
		uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// turn is how the relay's thread gets its turn on a processor.
//
// Woken by an access out of a sleep, it waits until the processor has nothing better to
// do, at most for a tick of the timer (SCHED_BATCH): otherwise it would often take the
// processor from the very access, which then lasts as long as all that the relay does. If
// another processor is idle, it starts there at once. While records keep coming in, it is
// woken by its own timer, and then takes the processor (SCHED_OTHER), or the ring would
// overflow while others compute.
//
// If the thread's policy is neither, somebody has chosen it, and it stays.
type turn struct {
	ours  bool // to choose the policy
	some  bool // the last drain found records
	eager bool
}

// take ties the caller to its thread and starts with the policy of a sleeper. The function
// that it returns undoes that.
func (t *turn) take() (undo func()) {
	runtime.LockOSThread()
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	t.ours = errno == 0 && policy == unix.SCHED_NORMAL && t.set(unix.SCHED_BATCH)
	t.some, t.eager = false, false
	// A pause is to end when it ends, not 50 microseconds later.
	const slack = 1000 // nanoseconds
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0)
	return func() {
		if t.ours {
			t.set(unix.SCHED_NORMAL)
		}
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default
		runtime.UnlockOSThread()
	}
}

// drained tells how many records a drain has found. After one that found none, the relay
// goes to sleep.
func (t *turn) drained(n int) {
	switch {
	case !t.ours:
	case n > 0 && t.some && !t.eager:
		t.eager = t.set(unix.SCHED_NORMAL)
	case n == 0 && t.eager:
		t.eager = !t.set(unix.SCHED_BATCH)
	}
	t.some = n > 0
}

// set sets the thread's policy, and says whether it may.
func (t *turn) set(policy uintptr) bool {
	var priority int32 // struct sched_param
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&priority)))
	return errno == 0
}
