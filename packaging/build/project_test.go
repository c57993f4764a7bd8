// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeFiles makes files below a new folder.
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

func TestReadSeries(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"v1.30/base.txt": "v1.30\n", "v1.30/0002-b.patch": "", "v1.30/0001-a.patch": "", "v1.30/kernels.txt": "x",
		"v1.9/base.txt": "v1.9", "v1.9/0001-a.patch": "", "v1.9/notes.patch": "",
		"RELEASE": "3\n", "README": "", "vX.YY/base.txt": "",
	})
	all, err := readSeries(dir, "/default")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].name() != "v1.9" || all[1].name() != "v1.30" {
		t.Fatalf("series %+v, want v1.9 and v1.30", all)
	}
	if got := len(all[0].patches); got != 1 {
		t.Errorf("v1.9 has %d patches, want 1", got)
	}
	if got := all[1].patches; len(got) != 2 || filepath.Base(got[0]) != "0001-a.patch" {
		t.Errorf("v1.30 has patches %v", got)
	}
	if all[0].kernels != "/default" || all[1].kernels != filepath.Join(dir, "v1.30", "kernels.txt") {
		t.Errorf("kernels %s and %s", all[0].kernels, all[1].kernels)
	}
}

func TestReadSeriesErrors(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"holds no series":           {"RELEASE": "1"},
		"names tag \"v1.3\"":        {"v1.30/base.txt": "v1.3\n", "v1.30/0001-a.patch": ""},
		"holds no numbered patch":   {"v1.30/base.txt": "v1.30\n"},
		"no such file or directory": {"v1.30/0001-a.patch": ""},
	} {
		if _, err := readSeries(writeFiles(t, files), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v lacks %q", files, err, want)
		}
	}
}

func TestReadRelease(t *testing.T) {
	for text, want := range map[string]int{"1\n": 1, "12": 12, "0": 0, "-1": 0, "": 0, "1.0": 0} {
		n, err := readRelease(filepath.Join(writeFiles(t, map[string]string{"RELEASE": text}), "RELEASE"))
		if n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

// The repository that this test is part of is one that the program can read, and
// its release number and changelog agree.
func TestOpenProject(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if p.changes[0].release != p.release {
		t.Errorf("packaging/changelog begins with release %d, patches/RELEASE says %d", p.changes[0].release, p.release)
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
		t.Errorf("the environment was not taken: %+v", p)
	}
	env["SOURCE_DATE_EPOCH"] = "yesterday"
	if _, err := openProject("../..", func(name string) string { return env[name] }, io.Discard); err == nil {
		t.Error("SOURCE_DATE_EPOCH=yesterday was taken")
	}
}

// Every series of the repository carries the same header.
func TestHeader(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "notify_ioctl.h")
	if err := p.header(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"struct scoutfs_notify_record {", "#define SCOUTFS_IOC_READ_NOTIFY"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the header lacks %q", want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"notifyd", "x"}, {"stage", "v1.30"}, {"mock"}} {
		t.Chdir("../..")
		err := run(t.Context(), args, io.Discard)
		if _, ok := err.(usageError); !ok {
			t.Errorf("%v: %v is no usage error", args, err)
		}
		t.Chdir("packaging/build")
	}
}

func TestNoSource(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.stage(t.Context(), p.series[0], t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "SCOUTFS_SRC is not set") {
		t.Errorf("error %v", err)
	}
}
