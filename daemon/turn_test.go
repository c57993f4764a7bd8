// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func policy(t *testing.T) int {
	t.Helper()
	p, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	if errno != 0 {
		t.Fatalf("sched_getscheduler: %v", errno)
	}
	return int(p)
}

// TestTurn: asleep, the thread does not take the processor from others when it is woken;
// while records keep coming it does; a policy of somebody's own stays.
func TestTurn(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if policy(t) != unix.SCHED_NORMAL {
		t.Skip("the tests run with a policy of their own")
	}
	var tn turn
	undo := tn.take()
	for i, step := range []struct{ drained, want int }{
		{0, unix.SCHED_BATCH}, {1, unix.SCHED_BATCH}, {0, unix.SCHED_BATCH}, {notify.RingRecords, unix.SCHED_BATCH},
		{1, unix.SCHED_NORMAL}, {notify.RingRecords, unix.SCHED_NORMAL},
		{0, unix.SCHED_BATCH}, {1, unix.SCHED_BATCH}, {0, unix.SCHED_BATCH},
	} {
		tn.drained(step.drained)
		if got := policy(t); got != step.want {
			t.Errorf("step %d: policy %d after %d records, should be %d", i, got, step.drained, step.want)
		}
	}
	undo()
	if got := policy(t); got != unix.SCHED_NORMAL {
		t.Errorf("policy %d in the end", got)
	}

	// on a thread that ends with it: there may be no way back from this policy
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if !tn.set(unix.SCHED_IDLE) {
			t.Error("cannot set SCHED_IDLE")
		}
		var own turn
		defer own.take()()
		own.drained(1)
		own.drained(1)
		if got := policy(t); got != unix.SCHED_IDLE {
			t.Errorf("policy %d, should be as it was", got)
		}
	}()
	<-done
}

// TestPaceOfPauses: the more comes in, the sooner the next drain, so that the ring is never
// much fuller than a third, and never later than the pause.
func TestPaceOfPauses(t *testing.T) {
	const pause = time.Millisecond
	for _, tt := range []struct {
		records int
		since   time.Duration // the drain before
		want    time.Duration
	}{
		{0, time.Hour, pause}, {1, time.Microsecond, pause}, {goodBatch, pause, pause},
		{2 * goodBatch, pause, pause / 2}, {3 * goodBatch, pause, pause / 3}, {notify.RingRecords, pause, 0},
		{2 * goodBatch, 100 * time.Microsecond, 50 * time.Microsecond},
		{2 * goodBatch, time.Hour, pause}, // they may have come just now, but that nobody knows
	} {
		if got := nextPause(pause, tt.since, tt.records); got < tt.want-time.Microsecond || got > tt.want {
			t.Errorf("%d records in %v: a pause of %v, should be %v", tt.records, tt.since, got, tt.want)
		}
	}
}
