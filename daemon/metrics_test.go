// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var update = flag.Bool("update", false, "update the golden files in testdata")

// TestMetrics compares the metrics with golden files. tests/daemon checks those with
// Prometheus's own parser, tests/docs compares them with the man page.
func TestMetrics(t *testing.T) {
	busy := &notify.State{
		Version: `1.0-"x"`, MountPoint: "/mnt/a \\ b\n\"c\" \xff ä", FSID: 0xabc, RID: 0xdef, PID: 42,
		Start: time.Unix(1700000000, 7_000_000), Attached: time.Unix(1700000001, 8_000_000),
		Records: 1000, LastSeq: 1017, KernelDropped: 17, Batches: 30, FullBatches: 2,
		SentRecords: 1 << 40, SentPackets: 950, LostRecords: 100, LostEpisodes: 3,
		QueueLimit: 1 << 24, QueueCuts: 6, MaxClients: 64, Accepted: 5,
		Refused: notify.Refusals{MaxClients: 1, Credentials: 2, Resources: 3, Protocol: 4},
		Clients: []notify.ClientState{
			{ID: 1, PID: 4242, Records: 1000, Lost: 0},
			{ID: 5, PID: 4242, Records: 900, Lost: 100},
		},
	}
	idle := *busy
	idle.Clients = nil
	for name, st := range map[string]*notify.State{"metrics.prom": busy, "metrics-idle.prom": &idle} {
		var got bytes.Buffer
		writeMetrics(&got, st)
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: run go test -update and look at the difference; got\n%s", golden, &got)
		}
	}
}
