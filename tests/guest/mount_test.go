// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMachine checks the machine itself.
func TestMachine(t *testing.T) {
	inGuest(t)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s", unix.ByteSliceToString(u.Release[:]))
	cmdline, err := os.ReadFile("/proc/1/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	// The kernel passes unknown parameters of its command line to init.
	if got, _, _ := strings.Cut(string(cmdline), "\x00"); got != "/init" {
		t.Errorf("PID 1 is %q, not /init", got)
	}
	if os.Geteuid() != 0 {
		t.Errorf("effective user %d, not root", os.Geteuid())
	}
}

// TestMount checks the file system without a reader: a failure here is not the
// ring's fault.
func TestMount(t *testing.T) {
	f := setup(t)
	f.create("file", 8192)
	want, err := os.ReadFile(f.path("file"))
	if err != nil {
		t.Fatal(err)
	}
	emitted, dropped := f.counters()
	if emitted != 0 || dropped != 0 || f.counter("notify_reader_attached") != 0 {
		t.Errorf("counters without a reader: %d emitted, %d dropped", emitted, dropped)
	}
	stdout, _, status := run(t, "scoutfs", "statfs", "-s", "fsid", "-p", f.dir)
	if got := strings.TrimSpace(stdout); status != 0 || got != f.FSID.String() {
		t.Errorf("scoutfs statfs says fsid %q with status %d, the ioctl says %v", got, status, f.FSID)
	}
	f.umount()
	f.mount()
	if !isScoutFS() {
		return // the stand-in keeps nothing
	}
	got, err := os.ReadFile(f.path("file"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes read after a remount, error %v, not the %d written", len(got), err, len(want))
	}
}
