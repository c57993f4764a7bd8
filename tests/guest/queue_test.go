// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// memoryGroup returns a control group whose processes may take so much memory, the
// kernel's for them included.
func memoryGroup(t *testing.T, bytes int) (dir string) {
	t.Helper()
	const root = "/sys/fs/cgroup"
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount %s: %v", root, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("umount %s: %v", root, err)
		}
	})
	if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, "daemon")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, "memory.max"), []byte(strconv.Itoa(bytes)), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Clients that do not read cannot have the daemon killed for the memory that their queues
// take: it keeps them short, and goes on to serve the others.
func TestQueueLimit(t *testing.T) {
	if _, err := os.Stat(kmemleak); err == nil {
		t.Skip("skipped: KASAN makes each object larger and keeps freed ones, all at the expense of the daemon's group")
	}
	f := setup(t)
	f.create("a", 1)
	end := f.create("end", 1)
	group := memoryGroup(t, 32<<20)
	// The daemon finds its limit when it starts.
	d := f.watchDaemon(exec.Command("sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(group, "cgroup.procs"), Daemon, f.dir))
	const stalled = 16
	var clients []*notify.Client
	for range stalled {
		// Packets of one record take most memory.
		c, err := (&notify.Dialer{MaxRecords: 1}).DialContext(t.Context(), f.dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	healthy := f.dial()
	got := uint64(0)
	// Each client's own limit would let it have 5,461 records.
	for range 12 {
		for range 500 {
			f.touch("a")
		}
		f.touch("end")
		got += uint64(len(receive(t, healthy, end)))
	}
	text, err := os.ReadFile(filepath.Join(group, "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, " "); name == "slab" || name == "anon" || name == "sock" {
			t.Log(strings.TrimSpace(line))
		}
	}
	peak, _ := os.ReadFile(filepath.Join(group, "memory.current"))
	m := f.settled(f.counter("notify_emitted"), stalled+1)
	t.Logf("the daemon's group takes %s bytes; %d queues were cut short", strings.TrimSpace(string(peak)), m["queue_cuts_total"])
	if m["queue_cuts_total"] == 0 {
		t.Error("no queue was cut short: this test is too short")
	}
	wantBalance(t, healthy, got)
	d.signal(unix.SIGTERM)
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d", status)
	}
	for i, c := range clients {
		n := uint64(0)
		for _, err := c.Next(); err == nil; _, err = c.Next() {
			n++
		}
		if c.End() == nil {
			t.Errorf("stalled client %d: no end", i)
		}
		wantBalance(t, c, n)
	}
}
