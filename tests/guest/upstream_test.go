// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// provoke skips a test that provokes a fault of ScoutFS's own, after which the machine
// is of no use.
func provoke(t *testing.T) {
	t.Helper()
	inGuest(t)
	if os.Getenv(EnvProvoke) == "" {
		t.Skip("skipped: it provokes a fault of ScoutFS's, see TestUpstream of tests/boot")
	}
}

// The kernel walks a path without references, under RCU, and asks d_revalidate about
// names that it has in memory. In a folder of ScoutFS's own it has stopped to do so
// before, because scoutfs_permission refuses; in a merged one whose upper layer is
// another file system it has not.
func TestUpstreamRevalidate(t *testing.T) {
	provoke(t)
	f := setup(t)
	if err := os.MkdirAll(f.path("lower/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.create("lower/b/c/d", 1)
	loadLater(t, "overlay")
	merged := t.TempDir()
	if err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+t.TempDir()+":"+f.path("lower")); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	defer unix.Unmount(merged, 0)
	for range 100 {
		if _, err := os.Stat(filepath.Join(merged, "b/c/d")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("d_revalidate was called under RCU %d times", f.counter("dentry_revalidate_rcu"))
}

// A mount runs out of memory at each place in turn.
func TestUpstreamSysfs(t *testing.T) {
	provoke(t)
	insmod(t, Module)
	injectFailures(t)
	if err := Mount(MountPoint); err != nil { // makes the file system
		t.Fatal(err)
	}
	if err := unix.Unmount(MountPoint, 0); err != nil {
		t.Fatal(err)
	}
	fail, err := newFailing()
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < 1000; n++ {
		fail.arm(n)
		err := Mount(MountPoint)
		hit := fail.disarm()
		t.Logf("mount whose chance %d fails: %v", n, err)
		if err == nil {
			if err := unix.Unmount(MountPoint, 0); err != nil {
				t.Fatal(err)
			}
		} else if errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		if !hit {
			return
		}
	}
}

// Now and then a mount does not return.
func TestUpstreamMount(t *testing.T) {
	provoke(t)
	insmod(t, Module)
	f := &fs{t: t, dir: MountPoint}
	for range 60 {
		f.mount() // ends the machine if it hangs
		f.umount()
	}
}
