// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// writeMetrics replaces the file of the metrics in the Prometheus text format.
func writeMetrics(path string, fsid notify.ID, version string, n *index.Node, segments []index.Segment) error {
	b := formatMetrics(fsid, version, n, segments)
	tmp := path + ".new"
	// Not secret, and for a collector that is not root: but the folder is root's alone,
	// unless the admin opens it.
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func formatMetrics(fsid notify.ID, version string, n *index.Node, segments []index.Segment) []byte {
	var b bytes.Buffer
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP scoutfs_notify_index_%s %s\n# TYPE scoutfs_notify_index_%[1]s %[3]s\n", name, help, kind)
	}
	sample := func(name, kind, help string, value any) {
		family(name, kind, help)
		fmt.Fprintf(&b, "scoutfs_notify_index_%s{fsid=\"%v\"} %v\n", name, fsid, value)
	}
	family("info", "gauge", "The index of the file system; always 1.")
	fmt.Fprintf(&b, "scoutfs_notify_index_info{fsid=\"%v\",version=%q} 1\n", fsid, version)
	seconds := func(m index.Millis) string { return fmt.Sprintf("%d.%03d", m/1000, m%1000) }
	connected := 0
	if n.Connected {
		connected = 1
	}
	sample("connected", "gauge", "Whether scoutfs-notifyd serves the mount, 1 or 0.", connected)
	sample("since_time_seconds", "gauge", "When observation began, since the Unix epoch.", seconds(n.Since))
	sample("told_time_seconds", "gauge", "Up to when all was told, since the Unix epoch.", seconds(n.Told))
	sample("records_total", "counter", "Accesses that were taken.", n.Records)
	sample("excluded_records_total", "counter", "Accesses that were left out.", n.Excluded)
	sample("lost_records_total", "counter", "Accesses that were counted as missed.", n.Lost)
	sample("gaps", "gauge", "Times in which accesses may have been missed.", len(n.Gaps))
	sample("clock_steps", "gauge", "Times that the clock was set.", len(n.Steps))
	var entries uint64
	var size int64
	for _, s := range segments {
		entries += s.Entries
		size += s.Size
	}
	sample("segments", "gauge", "Files of inodes.", len(segments))
	sample("entries", "gauge", "Inodes in these files, each in as many as it was accessed in.", entries)
	sample("size_bytes", "gauge", "Size of these files.", size)
	return b.Bytes()
}
