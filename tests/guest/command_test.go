// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// stat agrees with the kernel's counters, with and without a daemon.
func TestStat(t *testing.T) {
	f := setup(t)
	f.create("a", 10)
	type stat struct {
		FSID    string
		Running bool
		Daemon  *struct{ Records uint64 }
		Kernel  *struct {
			Emitted        uint64
			ReaderAttached uint64 `json:"reader_attached"`
		}
	}
	get := func(want int) stat {
		t.Helper()
		stdout, stderr, status := run(t, Command, "stat", "-json", f.dir)
		var s stat
		if err := json.Unmarshal([]byte(stdout), &s); status != want || err != nil {
			t.Fatalf("stat -json: status %d, error %v, %s%s", status, err, stdout, stderr)
		}
		return s
	}
	if s := get(1); s.Running || s.Daemon != nil || s.Kernel == nil || s.FSID != f.FSID.String() {
		t.Errorf("without a daemon: %+v", s)
	}
	f.startDaemon()
	for range 3 {
		f.touch("a")
	}
	f.settled(3, 0)
	s := get(0)
	if !s.Running || s.Daemon == nil || s.Daemon.Records != 3 || s.Kernel.Emitted != 3 || s.Kernel.ReaderAttached != 1 {
		t.Errorf("after three opens: %+v", s)
	}
	stdout, stderr, status := run(t, Command, "stat", f.dir)
	t.Logf("%s%s", stdout, stderr)
	if status != 0 || !strings.Contains(stdout, f.FSID.String()) {
		t.Errorf("stat ended with %d", status)
	}
}

// top shows which file is read.
func TestTop(t *testing.T) {
	f := setup(t)
	ino := f.create("a", 10)
	f.startDaemon()
	stop := f.keepTouching("a")
	stdout, stderr, status := run(t, Command, "top", "-n", "2", "-interval", "500ms", f.dir)
	stop()
	t.Logf("%s%s", stdout, stderr)
	if status != 0 || !strings.Contains(stdout, strconv.FormatUint(ino, 10)) {
		t.Errorf("top ended with %d and does not show inode %d", status, ino)
	}
}
