// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"flag"
	"os"
	"testing"

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
