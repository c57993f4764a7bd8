// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// metricsPath returns the file of a file system's metrics: beside the daemons', because the
// store is root's alone, and where the node exporter finds it with the same pattern.
func metricsPath(runDir string, fsid notify.ID) string {
	return filepath.Join(cmp.Or(runDir, notify.RunDir), ".node_exporter", "index-"+fsid.String()+".prom")
}

// writeMetrics replaces the file of the metrics in the Prometheus text format. Anybody may
// read it, whatever the umask. It makes the folder if it is not there.
func writeMetrics(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o755); err == nil {
		err = os.Chmod(dir, 0o755)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	// Collectors take names that end in .prom, and look at any time.
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	return err
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
