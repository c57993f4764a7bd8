// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// writeFiles writes files below a new folder, which it returns.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A kernels.txt beside a release's patches takes precedence.
func TestKernels(t *testing.T) {
	const patch = "Subject: x\n\ndiff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n"
	dir := writeFiles(t, map[string]string{
		"v1.30/base.txt": "v1.30\n", "v1.30/0001-a.patch": patch, "v1.30/kernels.txt": "x",
		"v1.9/base.txt": "v1.9\n", "v1.9/0001-a.patch": patch,
	})
	all, err := (&project{root: "/root", patchesDir: dir}).pick(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].kernels != "/root/dkms/kernels.txt" || all[1].kernels != filepath.Join(dir, "v1.30", "kernels.txt") {
		t.Errorf("releases %+v", all)
	}
}

// Which release is built for which kernel, as in upstream's release notes (RHEL 9.8 from
// v1.32 on, none of RHEL 10) and in the README's table.
func TestSupportedKernels(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	// From which release on; "" is none.
	since := map[string]string{
		"3.10.0-1160.119.1.el7.x86_64":      "",
		"4.18.0-553.66.1.el8_10.x86_64":     "v1.28",
		"5.10.0-32-amd64":                   "v1.28",
		"5.10.223":                          "v1.28",
		"5.14.0-70.13.1.el9_0.x86_64":       "v1.28",
		"5.14.0-427.42.1.el9_4.x86_64":      "v1.28",
		"5.14.0-427.42.1.el9_4.x86_64+rt":   "v1.28",
		"5.14.0-570.32.1.el9_6.x86_64":      "v1.28",
		"5.14.0-570.el9.x86_64":             "v1.28", // CentOS Stream
		"5.14.0-1.el9_8.x86_64":             "v1.32",
		"5.14.0-1.el9_10.x86_64":            "v1.32",
		"5.15.0-1.el9uek.x86_64":            "",
		"6.1.0-50-amd64":                    "",
		"6.12.0-55.24.1.el10_0.x86_64":      "",
		"6.12.0-1.5.14.0.el9_4.el10.x86_64": "",
	}
	for _, r := range p.releases {
		text, err := os.ReadFile(r.kernels)
		if err != nil {
			t.Fatal(err)
		}
		expr, isLine := strings.CutSuffix(string(text), "\n")
		re, err := regexp.CompilePOSIX(expr)
		if !isLine || strings.ContainsAny(expr, "\n\"$`\\") || err != nil {
			// stage.sh puts it into quotes
			t.Errorf("%s: %q is not one regular expression without \", $, ` or \\: %v", r.kernels, text, err)
			continue
		}
		for kernel, from := range since {
			if want := from != "" && series.Compare(r.Version, from) >= 0; re.MatchString(kernel) != want {
				t.Errorf("%s: built for kernel %s: %v, should be %v", r.Version, kernel, !want, want)
			}
		}
		el9 := "EL9"
		if !re.MatchString("5.14.0-1.el9_8.x86_64") {
			el9 = "EL9 up to 9.7"
		}
		if row := "\n| " + r.Version + " | EL8, " + el9 + " |"; !strings.Contains(string(readme), row) {
			t.Errorf("README.md's table has no row %q", row[1:])
		}
	}
}

func TestReadNumber(t *testing.T) {
	for text, want := range map[string]int{"1\n": 1, "12": 12, "0": 0, "-1": 0, "": 0, "1.0": 0} {
		n, err := readNumber(filepath.Join(writeFiles(t, map[string]string{"RELEASE": text}), "RELEASE"))
		if n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

// The program can read this repository, and its release number and changelog agree.
func TestOpenProject(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if p.changes[0].release != p.number {
		t.Errorf("packaging/changelog begins with release %d, patches/RELEASE says %d", p.changes[0].release, p.number)
	}
	if !p.epoch.Equal(p.changes[0].date) {
		t.Errorf("time stamp %v, newest change %v", p.epoch, p.changes[0].date)
	}

	env := map[string]string{"SOURCE_DATE_EPOCH": "1000", "DIST_DIR": "/d", "SCOUTFS_SRC": "up"}
	p, err = openProject("../..", func(name string) string { return env[name] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if p.epoch.Unix() != 1000 || p.dist != "/d" || p.upstream != filepath.Join(p.root, "up") {
		t.Errorf("the environment was ignored: %+v", p)
	}
	env["SOURCE_DATE_EPOCH"] = "yesterday"
	if _, err := openProject("../..", func(name string) string { return env[name] }, io.Discard); err == nil {
		t.Error("SOURCE_DATE_EPOCH=yesterday was accepted")
	}
}

// All series of the repository add the same header.
func TestHeader(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.commonHeader()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"struct scoutfs_notify_record {", "#define SCOUTFS_IOC_READ_NOTIFY"} {
		if !strings.Contains(text, want) {
			t.Errorf("the header lacks %q", want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"notifyd", "x"}, {"release", "x"}, {"mock"}} {
		err := execute(t.Context(), args, io.Discard)
		if _, ok := err.(usageError); !ok {
			t.Errorf("%v: %v is not a usage error", args, err)
		}
	}
}

// What is wrong with SCOUTFS_SRC is said in words of its own.
func TestSourceErrors(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	owned := filepath.Join(dir, "owned")
	if out, err := exec.Command("git", "init", "-q", owned).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name, src string
		want      string
		uid       int
	}{
		{name: "not set", want: "SCOUTFS_SRC is not set: it must name a ScoutFS checkout or bare repository with its tags; ScoutFS's source is published as versity/scoutfs"},
		{name: "nonexistent", src: "/nonexistent", want: "SCOUTFS_SRC: stat /nonexistent: no such file or directory"},
		{name: "relative", src: "no such folder", want: "SCOUTFS_SRC: stat " + root + "/no such folder: no such file or directory (relative paths start at the top of this repository, " + root + ")"},
		{name: "not a repository", src: dir, want: "is not a git repository: it must be a clone of ScoutFS, not an unpacked archive"},
		{name: "without tags", src: owned, want: "has no tag "},
		{name: "of another user", src: owned, uid: 12345, want: "SCOUTFS_SRC=" + owned + " belongs to another user, so git refuses to read it; if you trust it: git config --global --add safe.directory '" + owned + "'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.uid != 0 {
				if os.Getuid() != 0 {
					t.Skip("needs root to give a folder to another user")
				}
				if err := os.Chown(owned, c.uid, c.uid); err != nil {
					t.Fatal(err)
				}
			}
			p, err := openProject("../..", func(name string) string {
				return map[string]string{"SCOUTFS_SRC": c.src}[name]
			}, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.stage(t.Context(), p.releases[0], t.TempDir())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, without %q", err, c.want)
			}
		})
	}
}

// The user's settings of git do not change what is packaged.
func TestArchiveLineEnds(t *testing.T) {
	s := newScratch(t)
	s.write("file", "one\ntwo\n")
	s.commit()
	s.git("tag", "v1.30")
	p := &project{upstream: s.dir}
	r := release{Series: &series.Series{Version: "v1.30"}}
	want, err := p.archive(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[core]\n\tautocrlf = true\n\teol = crlf\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	got, err := p.archive(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got != want || strings.Contains(got, "\r") {
		t.Error("core.autocrlf changes the archive")
	}
}

// A release without the v is told what there is.
func TestPickErrors(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.pick([]string{"1.30"}); err == nil || !strings.Contains(err.Error(), `"1.30": the supported releases are v1.`) {
		t.Errorf("error %v", err)
	}
}
