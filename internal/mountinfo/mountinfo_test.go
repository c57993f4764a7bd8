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
39 21 0:44 / /mnt/x rw shared:2 master:1 - tmpfs tmpfs rw`)
	want := []Mount{{"/", "ext4"}, {"/mnt/a b\tc\\d", "scoutfs"}, {"/mnt/x", "tmpfs"}}
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
