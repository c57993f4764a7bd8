// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The index's instance follows the daemon's: it starts with it, as it is hardened, takes
// its flags from a drop-in, survives a kill, keeps the mount from nothing, and is stopped.
func TestIndexUnit(t *testing.T) {
	f := newFS(t, "idx", 0x1d)
	x := &fs{t: t, dir: f.dir, unit: "scoutfs-notify-index@mnt-idx.service", fsid: f.fsid}
	dropIn := "/etc/systemd/system/" + x.unit + ".d"
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", x.unit)
			t.Logf("journal:\n%s", out)
		}
		_, _ = try("systemctl", "stop", x.unit)
		_, _ = try("systemctl", "disable", x.unit)
		os.RemoveAll(dropIn)
		os.RemoveAll("/var/lib/scoutfs-notify")
	})
	if err := os.MkdirAll(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "[Service]\nEnvironment=\"OPTIONS=-flush 1s -exclude uid=993,cgroup=/system.slice/backup.service\"\n"
	if err := os.WriteFile(filepath.Join(dropIn, "flags.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "enable", x.unit)
	run(t, "systemctl", "daemon-reload")
	f.mount()
	run(t, "systemctl", "start", f.unit)
	f.serves()
	following := func() bool { return strings.HasPrefix(x.property("StatusText"), "following "+f.dir) }
	until(t, "the daemon's instance has started the index's", following)

	file := filepath.Join(f.dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	last := func() string {
		out, err := try("scoutfs-notify", "last", f.dir, file)
		if err != nil {
			t.Logf("last: %v\n%s", err, out)
		}
		return out
	}
	until(t, "the read is known", func() bool { return strings.Contains(last(), "last read") })
	run(t, "systemctl", "kill", "-s", "KILL", x.unit)
	until(t, "the index was started again", func() bool { return x.property("NRestarts") == "1" && following() })
	if out := last(); !strings.Contains(out, "last read") || !strings.Contains(out, "1 reads") {
		t.Errorf("after a kill: %s", out)
	}
	metrics := "/run/scoutfs/.node_exporter/index-" + f.fsid + ".prom"
	if fi, err := os.Stat(metrics); err != nil || fi.Mode() != 0o644 {
		t.Errorf("metrics: %v, %v", fi, err)
	}
	f.umount()
	run(t, "systemctl", "stop", x.unit)
	x.await("inactive")
	if got := x.property("Result"); got != "success" {
		t.Errorf("the index ended with result %s", got)
	}
	if fi, err := os.Stat("/var/lib/scoutfs-notify"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the stores: %v, %v", fi, err)
	}
	if _, err := os.Stat(metrics); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the metrics stayed: %v", err)
	}
}
