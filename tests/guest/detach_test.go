// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// The readers of other mounts that close at the same time.
const closers = 32

// Closing a reader takes a grace period, during which nobody else waits: a mount
// without a reader is unmounted, and a reader attaches, as if there was none.
func TestDetachHoldsNobodyUp(t *testing.T) {
	inGuest(t)
	if isScoutFS() {
		t.Skipf("needs %d mounts besides, which only the stand-in can have", closers)
	}
	f := setup(t)
	others := make([]string, closers)
	for i := range others {
		others[i] = filepath.Join(t.TempDir(), strconv.Itoa(i))
		mountOther(t, others[i], uint64(i+1)<<40)
	}

	const tries = 9
	times := make(map[string][]time.Duration)
	overlaps := 0
	alone := func(what string, do func()) { times[what] = append(times[what], timed(do)) }
	beside := func(what string, do func()) {
		wait, closing := closeAll(t, others)
		alone(what, do)
		if closing() {
			overlaps++
		}
		wait()
	}
	for range tries {
		for how, measure := range map[string]func(string, func()){" alone": alone, " beside": beside} {
			var r *notify.Reader
			measure("attach"+how, func() { r = f.attach() })
			r.Close()
			measure("umount"+how, f.umount)
			f.mount()
		}
	}
	for _, op := range []string{"attach", "umount"} {
		a, b := times[op+" alone"], times[op+" beside"]
		t.Logf("%s alone: %v", op, a)
		t.Logf("%s while %d readers close: %v", op, closers, b)
		// Noise only ever adds time, so the fastest try says what it takes.
		if alone, beside := slices.Min(a), slices.Min(b); beside > 2*alone {
			t.Errorf("%s takes %v while %d readers close, more than twice the %v alone", op, beside, closers, alone)
		}
	}
	if overlaps < tries {
		t.Errorf("in %d of %d measurements the readers were closed too early: they say nothing", 2*tries-overlaps, 2*tries)
	}
}

// mountOther mounts another stand-in until the test ends.
func mountOther(t *testing.T, dir string, fsid uint64) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "scoutfs", 0, fmt.Sprintf("fsid=%x", fsid)); err != nil {
		t.Fatalf("mount on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
}

// closeAll attaches a reader to each mount and has all of them closed, each by a thread
// of its own. It returns once every thread is about to. wait waits for them, and closing
// tells whether any is still at it.
func closeAll(t *testing.T, dirs []string) (wait func(), closing func() bool) {
	t.Helper()
	var all sync.WaitGroup
	var left atomic.Int32
	begin, begun := make(chan struct{}), make(chan struct{})
	for _, dir := range dirs {
		r, err := notify.Attach(dir)
		if err != nil {
			t.Fatal(err)
		}
		left.Add(1)
		all.Go(func() {
			<-begin
			begun <- struct{}{}
			r.Close()
			left.Add(-1)
		})
	}
	close(begin)
	for range dirs {
		<-begun
	}
	return all.Wait, func() bool { return left.Load() > 0 }
}

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}
