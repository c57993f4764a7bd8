// SPDX-License-Identifier: GPL-2.0-only

package mountinfo

import (
	"os"
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	got := Parse(`21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
36 21 0:42 / /mnt/a\040b\011c\134d rw,noatime - scoutfs /dev/vdb rw
short line
38 21 0:43 / - tmpfs tmpfs rw
39 21 0:44 / /mnt/x y rw shared:2 master:1 - tmpfs tmpfs rw`)
	want := []Mount{
		{21, 1, 8, 1, "/", "ext4"}, {36, 21, 0, 42, "/mnt/a b\tc\\d", "scoutfs"},
		{39, 21, 0, 44, "/mnt/x\u00a0y", "tmpfs"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseOwn(t *testing.T) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(Parse(string(text)), func(m Mount) bool { return m.Point == "/proc" && m.Type == "proc" }) {
		t.Errorf("no /proc among\n%s", text)
	}
}

// TestFind goes through mounts that hide others.
func TestFind(t *testing.T) {
	mounts := Parse(`1 0 0:1 / / rw - rootfs rootfs rw
2 1 8:1 / / rw - ext4 /dev/sda1 rw
3 2 0:3 / /mnt rw - tmpfs tmpfs rw
4 3 0:4 / /mnt/a rw - scoutfs a rw
5 4 0:5 / /mnt/a rw - scoutfs b rw
6 3 0:6 / /mnt/b/c rw - scoutfs c rw
7 3 0:7 / /mnt/b rw - tmpfs over-c rw
8 2 0:8 / /mnt/ab rw - scoutfs hidden-by-3 rw
`)
	for path, id := range map[string]int{
		"/": 2, "/etc": 2, "/mnt": 3, "/mnt/a": 5, "/mnt/a/b": 5, "/mnt/b": 7, "/mnt/b/c": 7, "/mnt/ab": 3, "/mnta": 2,
	} {
		if m, ok := Find(mounts, path); !ok || m.ID != id {
			t.Errorf("%s is on mount %+v, not %d", path, m, id)
		}
	}
	if m, ok := Find(nil, "/"); ok {
		t.Errorf("without mounts: %+v", m)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("36 21 0:42 / /mnt/a\\040b rw - scoutfs /dev/vdb rw\n", "/mnt")
	f.Add("1 1 0:1 / / rw - a b c\n2 1 0:2 / / rw - a b c\n1 2 0:3 / / rw - a b c", "/x")
	f.Fuzz(func(t *testing.T, text, path string) {
		mounts := Parse(text)
		m, ok := Find(mounts, path)
		if ok && !slices.Contains(mounts, m) {
			t.Errorf("%+v is not among the mounts", m)
		}
	})
}
