// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMetrics(t *testing.T) {
	n := &index.Node{
		Since: 1700000000123, Told: 1700000100000, Connected: true, Records: 1 << 60, Excluded: 3, Lost: 2,
		Gaps: make([]index.Gap, 2), Steps: make([]index.Step, 1),
	}
	got := formatMetrics(0x123456789abcdef, "1", n, []index.Segment{{Entries: 10, Size: 100}, {Entries: 5, Size: 50}})
	const golden = "testdata/metrics.prom"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("metrics:\n%s", got)
	}
}

// A collector that is not root can read the file, also below the unit's umask, and finds
// nothing else.
func TestWriteMetrics(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	runDir := t.TempDir()
	path := metricsPath(runDir, 0xabc)
	for _, text := range []string{"first\n", "second\n"} {
		if err := writeMetrics(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("wrote %q, reads %q, %v", text, got, err)
		}
	}
	for name, want := range map[string]os.FileMode{path: 0o644, filepath.Dir(path): 0o755 | os.ModeDir} {
		if fi, err := os.Stat(name); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	// the exporter's pattern
	found, err := filepath.Glob(filepath.Join(runDir, "*", "*"))
	if err != nil || len(found) != 1 || found[0] != path {
		t.Errorf("there are %q, %v", found, err)
	}

	if err := writeMetrics(metricsPath(filepath.Join(runDir, "nonesuch"), 0xabc), nil); err == nil {
		t.Error("a run directory that is not there: no error")
	}
	// A write that fails leaves nothing.
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeMetrics(path, nil); err == nil {
		t.Error("a folder in the way: no error")
	}
	if found, _ := filepath.Glob(filepath.Join(runDir, "*", "*")); len(found) != 1 {
		t.Errorf("left %q", found)
	}
}
