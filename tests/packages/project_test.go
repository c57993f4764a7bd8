// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

func TestNoSource(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.stage(t.Context(), p.releases[0], t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "SCOUTFS_SRC is not set") {
		t.Errorf("error %v", err)
	}
}
