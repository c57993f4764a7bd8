// SPDX-License-Identifier: MIT OR GPL-2.0-only

package mountinfo

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got := Parse(`21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
36 21 0:42 / /mnt/a\040b\011c\134d rw,noatime - scoutfs /dev/vdb rw
short line
38 21 0:43 / - tmpfs tmpfs rw
39 21 0:44 / /mnt/x rw shared:2 master:1 - tmpfs tmpfs rw
40 21 0:45 / /mnt/` + "\r\v\u0085\u00a0\xff" + `\043\012 rw - tmpfs tmpfs rw
41 21 0 / /mnt/y rw - tmpfs tmpfs rw
42 x 0:46 / /mnt/y rw - tmpfs tmpfs rw`)
	want := []Mount{
		{21, 1, 8, 1, "/", "ext4"}, {36, 21, 0, 42, "/mnt/a b\tc\\d", "scoutfs"}, {39, 21, 0, 44, "/mnt/x", "tmpfs"},
		{40, 21, 0, 45, "/mnt/\r\v\u0085\u00a0\xff#\n", "tmpfs"},
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
	if m, ok := At(text, "/proc"); !ok || m.Type != "proc" {
		t.Errorf("at /proc: %v, %v", m, ok)
	}
}

// table is a mountinfo: "id parent point" of each mount, whose device is 0:id.
func table(mounts ...string) []byte {
	var text strings.Builder
	for _, m := range mounts {
		var id, parent int
		var point string
		fmt.Sscan(m, &id, &parent, &point)
		fmt.Fprintf(&text, "%d %d 0:%d / %s rw,relatime shared:1 - scoutfs none rw\n", id, parent, id, point)
	}
	return []byte(text.String())
}

func TestAt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mounts []string
		path   string
		want   int // ID, 0 if nothing is mounted there
	}{
		{"none", nil, "/mnt/a", 0},
		{"root only", []string{"1 0 /"}, "/mnt/a", 0},
		{"root", []string{"1 0 /", "2 1 /mnt"}, "/", 1},
		{"root on root", []string{"1 0 /", "2 1 /"}, "/", 2},
		{"mounted", []string{"1 0 /", "2 1 /mnt/a"}, "/mnt/a", 2},
		{"below", []string{"1 0 /", "2 1 /mnt/a", "3 2 /mnt/a/b"}, "/mnt/a", 2},
		{"above", []string{"1 0 /", "2 1 /mnt"}, "/mnt/a", 0},
		{"longer name", []string{"1 0 /", "2 1 /mnt/ab"}, "/mnt/a", 0},
		{"shorter name", []string{"1 0 /", "2 1 /mnt/a"}, "/mnt/ab", 0},
		{"topmost", []string{"1 0 /", "2 1 /mnt/a", "3 2 /mnt/a"}, "/mnt/a", 3},
		{"topmost, listed first", []string{"1 0 /", "3 2 /mnt/a", "2 1 /mnt/a"}, "/mnt/a", 3},
		{"topmost of three", []string{"1 0 /", "2 1 /mnt/a", "4 3 /mnt/a", "3 2 /mnt/a"}, "/mnt/a", 4},
		{"hidden by a mount above", []string{"1 0 /", "2 1 /mnt/a", "3 1 /mnt"}, "/mnt/a", 0},
		{"on the mount above", []string{"1 0 /", "2 1 /mnt/a", "3 1 /mnt", "4 3 /mnt/a"}, "/mnt/a", 4},
		{"hidden by a mount on the one above", []string{"1 0 /", "2 1 /mnt", "3 2 /mnt/a", "4 2 /mnt"}, "/mnt/a", 0},
		{"hidden by a root", []string{"1 0 /", "2 1 /mnt/a", "3 1 /"}, "/mnt/a", 0},
		{"chroot", []string{"2 1 /mnt/a", "3 2 /mnt/a/b"}, "/mnt/a/b", 3},
		{"escaped", []string{"1 0 /", `2 1 /mnt/a\040\012b`}, "/mnt/a \nb", 2},
		{"escaped above", []string{"1 0 /", `2 1 /mnt/a\040`, `3 2 /mnt/a\040/b`}, "/mnt/a /b", 3},
		{"circle", []string{"1 2 /mnt", "2 1 /mnt/a"}, "/mnt/a", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := At(table(tt.mounts...), tt.path)
			if ok != (tt.want != 0) || ok && m.ID != tt.want {
				t.Errorf("got %v, %v, want mount %d", m, ok, tt.want)
			}
		})
	}
}

// TestAtAllocations: other mounts cost no memory.
func TestAtAllocations(t *testing.T) {
	mounts := []string{"1 0 /", "2 1 /mnt/a"}
	for i := range 1000 {
		mounts = append(mounts, fmt.Sprintf("%d 1 /srv/containers/%d", i+10, i))
	}
	text := table(mounts...)
	few := table(mounts[:2]...)
	count := func(text []byte) float64 {
		return testing.AllocsPerRun(10, func() {
			if _, ok := At(text, "/mnt/a"); !ok {
				t.Fatal("not mounted")
			}
		})
	}
	if a, b := count(few), count(text); a != b {
		t.Errorf("%v allocations with two mounts, %v with 1,002", a, b)
	}
}

// FuzzAt: any text is understood the same way by At and Parse.
func FuzzAt(f *testing.F) {
	f.Add([]byte("21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n36 21 0:42 / /mnt/a\\040b rw - scoutfs none rw\n"), "/mnt/a b")
	f.Add(table("1 2 /mnt", "2 1 /mnt/a"), "/mnt/a")
	f.Add([]byte("1 1 0:1 / / - x"), "/")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		path = filepath.Clean("/" + path)
		m, ok := At(text, path)
		all := Parse(string(text))
		at := func(other Mount) bool { return other.Point == path }
		switch {
		case ok && (m.Point != path || !slices.Contains(all, m)):
			t.Errorf("%v is not mounted at %q", m, path)
		case !slices.ContainsFunc(all, at) && ok:
			t.Errorf("%v, but nothing is mounted at %q", m, path)
		}
	})
}

// TestFind: the mount that a path is on, which need not be mounted there.
func TestFind(t *testing.T) {
	mounts := Parse(string(table("1 0 /", "2 1 /", "3 2 /mnt", "4 3 /mnt/a", "5 4 /mnt/a", "6 3 /mnt/b/c", "7 3 /mnt/b", "8 2 /mnt/ab")))
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
