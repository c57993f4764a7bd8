// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const tracefs = "/sys/kernel/tracing"

// startTrace turns the module's trace events on until the test ends.
func startTrace(t *testing.T) {
	t.Helper()
	err := unix.Mount("tracefs", tracefs, "tracefs", 0, "")
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no tracefs")
	}
	if err != nil {
		t.Fatalf("mount tracefs on %s: %v", tracefs, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(tracefs, 0); err != nil {
			t.Errorf("umount %s: %v", tracefs, err)
		}
	})
	// Without this the kernel patches its running scheduler, to note the names of
	// tasks. A machine hung here once, both of its emulated processors busy.
	if err := os.WriteFile(filepath.Join(tracefs, "options/record-cmd"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"attach", "detach", "unmount"} {
		enable := filepath.Join(tracefs, "events/scoutfs/scoutfs_notify_"+event, "enable")
		if err := os.WriteFile(enable, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(enable, []byte("0"), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// traced returns the module's events as the kernel prints them, oldest first,
// without the task and the time.
func traced(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tracefs, "trace"))
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for line := range strings.Lines(string(text)) {
		if _, event, ok := strings.Cut(line, ": scoutfs_notify_"); ok {
			events = append(events, strings.TrimSpace(event))
		}
	}
	return events
}

// Every reader's life is traced: one that closes its descriptor, one whose mount
// goes first, and one that does not get to attach and so does not detach either.
func TestTrace(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	startTrace(t)

	first := f.attach()
	if _, err := notify.Attach(f.dir); !errors.Is(err, notify.ErrBusy) {
		t.Fatalf("second attach: %v, not ErrBusy", err)
	}
	f.touch("a")
	f.touch("a")
	first.Close()

	second := f.attach()
	const lost = 5
	for range notify.RingRecords + lost {
		f.touch("a")
	}
	f.umount()
	drain(t, second)
	second.Close()

	mount := fmt.Sprintf("f.%06x.r.%06x", uint64(f.FSID)>>40, uint64(f.RID)>>40)
	end := fmt.Sprintf("seq %d emitted %d dropped %d", 4+notify.RingRecords+lost, notify.RingRecords, lost)
	want := []string{
		"attach: " + mount + " seq 1 ret 0",
		"attach: " + mount + " seq 1 ret -16", // EBUSY, and whose seq that is
		"detach: " + mount + " seq 3 emitted 2 dropped 0",
		"attach: " + mount + " seq 4 ret 0",
		"unmount: " + mount + " " + end,
		"detach: " + mount + " " + end,
	}
	if got := traced(t); !slices.Equal(got, want) {
		t.Errorf("traced:\n%s\nnot:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
