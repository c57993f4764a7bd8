// SPDX-License-Identifier: GPL-2.0-only

// Package daemon_test checks the daemon's files with third-party parsers, on which
// the daemon's own module does not depend.
package daemon_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// golden returns a file with which the daemon's own tests compare its metrics.
func golden(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../daemon/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parse parses metrics as Prometheus does. It returns the samples' values by name and
// labels, without fsid.
func parse(t *testing.T, text string) (map[string]float64, map[string]*dto.MetricFamily) {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	samples := make(map[string]float64)
	for name, f := range families {
		for _, m := range f.GetMetric() {
			var fsid string
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() == "fsid" {
					fsid = l.GetValue()
					continue
				}
				labels = append(labels, fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue()))
			}
			slices.Sort(labels)
			id := name + strings.Join(labels, "")
			if fsid != "0000000000000abc" {
				t.Errorf("%s has fsid %q", id, fsid)
			}
			value := m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			if _, dup := samples[id]; dup {
				t.Errorf("%s is a duplicate", id)
			}
			samples[id] = value
		}
	}
	return samples, families
}

func TestMetrics(t *testing.T) {
	samples, families := parse(t, golden(t, "metrics.prom"))

	want := map[string]float64{
		"info mount_point=/mnt/a \\ b\n\"c\" \uFFFD ä rid=0000000000000def version=1.0-\"x\"": 1,
		"start_time_seconds":                          1700000000.007,
		"attached_time_seconds":                       1700000001.008,
		"queue_limit_bytes":                           1 << 24,
		"queue_cuts_total":                            6,
		"records_total":                               1000,
		"kernel_dropped_records_total":                17,
		"last_seq":                                    1017,
		"batches_total":                               30,
		"full_batches_total":                          2,
		"clients":                                     2,
		"max_clients":                                 64,
		"clients_accepted_total":                      5,
		"clients_refused_total reason=max_clients":    1,
		"clients_refused_total reason=credentials":    2,
		"clients_refused_total reason=resources":      3,
		"clients_refused_total reason=protocol":       4,
		"sent_records_total":                          1 << 40,
		"sent_packets_total":                          950,
		"sent_bytes_total":                            1 << 46,
		"lost_records_total":                          100,
		"lost_episodes_total":                         3,
		"client_sent_records_total client=1 pid=4242": 1000,
		"client_sent_records_total client=5 pid=4242": 900,
		"client_lost_records_total client=1 pid=4242": 0,
		"client_lost_records_total client=5 pid=4242": 100,
	}
	for id, v := range want {
		got, ok := samples["scoutfs_notify_"+id]
		if !ok || math.Abs(got-v) > 1e-6 {
			t.Errorf("%s is %v, want %v", id, got, v)
		}
		delete(samples, "scoutfs_notify_"+id)
	}
	for id, v := range samples {
		t.Errorf("unexpected: %s is %v", id, v)
	}

	// The conventions that promtool checks.
	for name, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		counter := f.GetType() == dto.MetricType_COUNTER
		if !counter && f.GetType() != dto.MetricType_GAUGE {
			t.Errorf("%s is of type %v", name, f.GetType())
		}
		if counter != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is of type %v", name, f.GetType())
		}
	}
}

// A family without samples is not an error for a parser.
func TestMetricsWithoutClients(t *testing.T) {
	if samples, _ := parse(t, golden(t, "metrics-idle.prom")); samples["scoutfs_notify_clients"] != 0 {
		t.Errorf("%v clients", samples["scoutfs_notify_clients"])
	}
}
