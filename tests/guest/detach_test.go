// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// The readers that close at the same time.
const closers = 16

// Closing a reader takes a grace period, during which nobody may wait: not another reader
// that closes, nor an attach or an unmount, which take the same lock. That readers wait for
// their grace periods side by side shows that none of them holds it. A machine that is busy
// elsewhere may miss the moment, hence the tries.
func TestDetachHoldsNobodyUp(t *testing.T) {
	inGuest(t)
	if isScoutFS() {
		t.Skipf("needs %d mounts besides, which only the stand-in can have", closers)
	}
	setup(t)
	mounts := make([]string, closers)
	for i := range mounts {
		mounts[i] = filepath.Join(t.TempDir(), strconv.Itoa(i))
		mountOther(t, mounts[i], uint64(i+1)<<40)
	}

	const tries = 100
	alone := 0
	for try := 1; try <= tries; try++ {
		c := closeAll(t, mounts)
		waiting, together := c.gracePeriods()
		c.all.Wait()
		if together {
			t.Logf("try %d: readers %d and %d wait at the same time", try, waiting[0], waiting[1])
			return
		}
		if len(waiting) > 0 {
			alone++
		}
	}
	t.Errorf("no two readers waited for a grace period at the same time, in %d tries; in %d of them one was seen to wait", tries, alone)
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

// A closing has readers closed, each by a thread of its own.
type closing struct {
	t       *testing.T
	threads [closers]struct {
		id     int
		closed atomic.Bool
	}
	all sync.WaitGroup
}

// closeAll attaches a reader to each mount and begins to close all of them.
func closeAll(t *testing.T, dirs []string) *closing {
	t.Helper()
	c := &closing{t: t}
	begin, begun := make(chan struct{}), make(chan struct{})
	for i, dir := range dirs {
		r, err := notify.Attach(dir)
		if err != nil {
			t.Fatal(err)
		}
		thread := &c.threads[i]
		c.all.Go(func() {
			runtime.LockOSThread() // never unlocked: nobody else gets the thread
			thread.id = unix.Gettid()
			begun <- struct{}{}
			<-begin
			r.Close()
			thread.closed.Store(true)
		})
	}
	for range dirs {
		<-begun
	}
	close(begin)
	return c
}

// gracePeriods looks at the threads until all are done or two wait for a grace period at
// the same time, and returns those that were seen to wait.
func (c *closing) gracePeriods() (waiting []int, together bool) {
	for done := 0; done < closers; {
		done = 0
		for i := range c.threads {
			switch {
			case c.threads[i].closed.Load():
				done++
			case slices.Contains(waiting, i) || !waitsForGracePeriod(c.t, c.threads[i].id):
			// Each waits once. So who waits still did so all the time since.
			case len(waiting) > 0 && waitsForGracePeriod(c.t, c.threads[waiting[0]].id):
				return []int{waiting[0], i}, true
			default:
				waiting = []int{i}
			}
		}
	}
	return waiting, false
}

// waitsForGracePeriod tells whether a thread of this process sleeps in synchronize_rcu. One
// that is gone does not.
func waitsForGracePeriod(t *testing.T, id int) bool {
	calls, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stack", id))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(calls, []byte("synchronize_rcu"))
}
