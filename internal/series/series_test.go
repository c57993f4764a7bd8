// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layout makes a folder of series from files; "*" stands for a patch's text.
func layout(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "patches")
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if text == "" {
			continue // just the folder
		}
		if err := os.WriteFile(name, []byte(strings.Replace(text, "*", mail, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// addSeries adds a good series for each version to files, which it returns.
func addSeries(files map[string]string, versions ...string) map[string]string {
	for _, v := range versions {
		files[v+"/base.txt"] = v + "\n"
		files[v+"/0001-a.patch"] = "*"
	}
	return files
}

// layouts are folders of series, good and bad. apply.sh must agree on each.
var layouts = []struct {
	name     string
	files    map[string]string
	versions string // oldest first, separated by spaces
	err      string // part of the error; "" if the layout is good
}{
	{"by number, not by name", addSeries(map[string]string{}, "v1.9", "v1.30", "v1.100", "v2.0"), "v1.9 v1.30 v1.100 v2.0", ""},
	{"others' files", addSeries(map[string]string{"RELEASE": "1\n", "main/base.txt": "0123abc\n", "README.md": "x", "v.txt": "x",
		"v1.1/kernels.txt": "x", "v1.1/notes.txt": "x"}, "v1.1"), "v1.1", ""},
	{"base.txt without an end", addSeries(map[string]string{"v1.1/0001-a.patch": "*", "v1.1/base.txt": "v1.1"}), "v1.1", ""},
	{"no series", map[string]string{"RELEASE": "1\n"}, "", "has no folder named vX.YY"},
	{"an empty folder", addSeries(map[string]string{"v1.34/x": ""}, "v1.1"), "", "v1.34/base.txt: no such file"},
	{"three numbers", addSeries(map[string]string{}, "v1.1", "v1.33.1"), "", "v1.33.1: ScoutFS's releases are named vX.YY"},
	{"a leading zero", addSeries(map[string]string{}, "v1.01"), "", "v1.01: ScoutFS's releases are named vX.YY"},
	{"a candidate", addSeries(map[string]string{}, "v1.34-rc1"), "", "v1.34-rc1: ScoutFS's releases are named vX.YY"},
	{"a file", addSeries(map[string]string{"v1.34": "x"}, "v1.1"), "", "v1.34/base.txt: not a directory"},
	{"another base", map[string]string{"v1.1/base.txt": "v1.2\n", "v1.1/0001-a.patch": "*"}, "", `base.txt holds "v1.2"`},
	{"no patches", map[string]string{"v1.1/base.txt": "v1.1\n"}, "", "holds no *.patch"},
	{"a number missing", map[string]string{"v1.1/base.txt": "v1.1\n", "v1.1/0002-b.patch": "*"}, "", "0002-b.patch: its name must start with 0001-"},
	{"a patch without a number", addSeries(map[string]string{"v1.1/fix.patch": "*"}, "v1.1"), "", "fix.patch: its name must start with 0002-"},
}

func TestVersions(t *testing.T) {
	for _, tt := range layouts {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Versions(layout(t, tt.files))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, without %q", err, tt.err)
				}
				return
			}
			if err != nil || strings.Join(got, " ") != tt.versions {
				t.Errorf("releases %v, %v", got, err)
			}
		})
	}
}

// apply.sh, which does not need Go, accepts and rejects the same folders as this
// package.
func TestApplyAgrees(t *testing.T) {
	script, err := os.ReadFile("../../apply.sh")
	if err != nil {
		t.Fatal(err)
	}
	checkout := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "x"}} {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", checkout}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	for _, tt := range layouts {
		t.Run(tt.name, func(t *testing.T) {
			dir := layout(t, tt.files)
			sh := filepath.Join(filepath.Dir(dir), "apply.sh")
			if err := os.WriteFile(sh, script, 0o755); err != nil {
				t.Fatal(err)
			}
			// The checkout is at none of the releases: the error lists them.
			out, err := exec.CommandContext(t.Context(), sh, "v0.0", checkout).CombinedOutput()
			want := "The supported releases are " + tt.versions + "."
			if tt.err != "" {
				want = strings.ReplaceAll(tt.err, `"v1.2"`, "'v1.2'")
			}
			if err == nil || !strings.Contains(strings.ToLower(string(out)), strings.ToLower(want)) {
				t.Errorf("error %v, without %q: %s", err, want, out)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	dir := layout(t, addSeries(map[string]string{}, "v1.9", "v1.30"))
	for _, tt := range []struct{ names, want, err string }{
		{"", "v1.9 v1.30", ""},
		{"v1.30", "v1.30", ""},
		{"v1.30 v1.9", "v1.30 v1.9", ""},
		{"1.30", "", `no series for "1.30": the supported releases are v1.9 v1.30`},
		{"../v1.9", "", "no series for"},
	} {
		all, err := Select(dir, strings.Fields(tt.names)...)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, without %q", tt.names, err, tt.err)
			}
			continue
		}
		var got []string
		for _, s := range all {
			got = append(got, s.Version)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q: %v, %v", tt.names, got, err)
		}
	}
	if s, err := Newest(dir); err != nil || s.Version != "v1.30" {
		t.Errorf("the newest is %v, %v", s, err)
	}
}

func TestOpenBadPatch(t *testing.T) {
	dir := layout(t, addSeries(map[string]string{"v1.1/0002-b.patch": "not a patch\n"}, "v1.1"))
	if _, err := Open(dir, "v1.1"); err == nil || !strings.Contains(err.Error(), "open the series for v1.1: parse 0002-b.patch") {
		t.Errorf("error %v", err)
	}
}

func TestOpenMain(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef01234567"
	for _, tt := range []struct {
		base string
		err  string // part of the error; "" if it is good
	}{
		{id + "\n", ""},
		{id[:12] + "\n", "it must hold the id of a commit"},
		{"main\n", "it must hold the id of a commit"},
		{"v1.1\n", "it must hold the id of a commit"},
	} {
		dir := layout(t, addSeries(map[string]string{"main/base.txt": tt.base, "main/0001-a.patch": "*"}, "v1.1"))
		s, err := OpenMain(dir)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, without %q", tt.base, err, tt.err)
			}
			continue
		}
		if err != nil || s.Version != Main || s.Rev() != id || len(s.Patches) != 1 {
			t.Errorf("%q: %+v, %v", tt.base, s, err)
		}
		// It is no release.
		if all, err := Versions(dir); err != nil || !slices.Equal(all, []string{"v1.1"}) {
			t.Errorf("the releases are %v, %v", all, err)
		}
		for name, open := range map[string]func() error{
			"Select": func() error { _, err := Select(dir, Main); return err },
			"Open":   func() error { _, err := Open(dir, Main); return err },
		} {
			if err := open(); err == nil {
				t.Errorf("%s takes main for a release", name)
			}
		}
	}
	if _, err := OpenMain(layout(t, addSeries(map[string]string{}, "v1.1"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without one: %v", err)
	}
}

func TestCommonHeader(t *testing.T) {
	dir := layout(t, map[string]string{
		"v1.1/base.txt": "v1.1\n", "v1.1/0001-a.patch": "*",
		"v1.2/base.txt": "v1.2\n", "v1.2/0001-a.patch": strings.Replace(mail, "NR 25", "NR 26", 1),
		"v1.3/base.txt": "v1.3\n", "v1.3/0001-a.patch": strings.ReplaceAll(mail, "notify_ioctl.h", "other.h"),
	})
	for _, tt := range []struct{ names, err string }{
		{"v1.1", ""},
		{"v1.1 v1.2", "differs between the series for v1.1 and v1.2"},
		{"v1.3", "v1.3 does not add"},
	} {
		all, err := Select(dir, strings.Fields(tt.names)...)
		if err != nil {
			t.Fatal(err)
		}
		text, err := CommonHeader(all)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || err == nil && text != "#define NR 25\n\n" {
			t.Errorf("%s: %q, %v", tt.names, text, err)
		}
	}
}

func TestCompare(t *testing.T) {
	list := []string{"v1.30", "v2.0", "main", "v1.9", "v1.28", "RELEASE"}
	slices.SortFunc(list, Compare)
	if want := []string{"RELEASE", "main", "v1.9", "v1.28", "v1.30", "v2.0"}; !slices.Equal(list, want) {
		t.Errorf("sorted %v, not %v", list, want)
	}
}

// Checks the project's own series as far as possible without ScoutFS's source; make
// series-check does more.
func TestProject(t *testing.T) {
	all, err := Select("../../patches")
	if err != nil {
		t.Fatal(err)
	}
	next, err := OpenMain("../../patches")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, next)
	if _, err := CommonHeader(all); err != nil {
		t.Error(err)
	}
	for _, s := range all {
		for i, p := range s.Patches {
			if first := all[0].Patches; i >= len(first) || !slices.Equal(p.Message(), first[i].Message()) {
				t.Errorf("%s: %s has another message than in %s", s.Version, p.Name, all[0].Version)
			}
		}
	}
}
