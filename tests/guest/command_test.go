// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
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
		Module struct{ Loaded string }
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
	if s.Module.Loaded == "" {
		t.Error("the loaded module is not known")
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

// top names a process that read for a second and has ended when the table is shown.
func TestTopProcess(t *testing.T) {
	f := setup(t)
	f.create("a", 10)
	f.startDaemon()
	cmd := exec.Command(Command, "top", "-by", "process", "-n", "1", "-interval", "5s", f.dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	state := filepath.Join(filepath.Dir(notify.SocketPath(f.FSID)), notify.StateName)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		st, err := notify.ReadState(state)
		if err == nil && len(st.Clients) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("top does not connect: %+v, %v", st, err)
		}
	}
	reader := worker(roleReadOn, f.path("a"), nil)
	if err := reader.Run(); err != nil {
		t.Fatalf("the reader: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("top: %v", err)
	}
	if row := fmt.Sprintf(`(?m) %d  \S+ +exe$`, reader.Process.Pid); !regexp.MustCompile(row).MatchString(out.String()) {
		t.Errorf("there is no row %q in\n%s", row, out.String())
	}
}
