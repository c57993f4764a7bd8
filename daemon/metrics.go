// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"fmt"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// metricsPrefix starts the name of every metric.
const metricsPrefix = "scoutfs_notify_"

// writeMetrics appends the state as metrics in the Prometheus text format.
func writeMetrics(b *bytes.Buffer, st *notify.State) {
	w := &metricsWriter{Buffer: b, fsid: st.FSID}

	w.family("info", "gauge", "The daemon that serves the file system; always 1.")
	w.sample(1, "rid", st.RID.String(), "mount_point", st.MountPoint, "version", st.Version)
	w.gauge("start_time_seconds", "When the daemon started, since the Unix epoch.",
		fmt.Sprintf("%d.%03d", st.Start.Unix(), st.Start.Nanosecond()/1e6))

	w.gauge("attached_time_seconds", "When the daemon became the mount's reader, since the Unix epoch.",
		fmt.Sprintf("%d.%03d", st.Attached.Unix(), st.Attached.Nanosecond()/1e6))
	w.counter("records_total", "Records drained from the kernel.", st.Records)
	w.counter("kernel_dropped_records_total", "Records the kernel dropped because its ring was full.", st.KernelDropped)
	w.gauge("last_seq", "Number of the last record drained from the kernel.", st.LastSeq)
	w.counter("batches_total", "Drains of the kernel that found records.", st.Batches)
	w.counter("full_batches_total", "Drains that found as many records as the kernel's ring holds.", st.FullBatches)

	w.gauge("clients", "Clients connected.", len(st.Clients))
	w.gauge("max_clients", "Clients that may be connected at once.", st.MaxClients)
	w.counter("clients_accepted_total", "Clients that were let in.", st.Accepted)
	w.family("clients_refused_total", "counter", "Connections the daemon closed, by reason.")
	w.sample(st.Refused.MaxClients, "reason", "max_clients")
	w.sample(st.Refused.Credentials, "reason", "credentials")
	w.sample(st.Refused.Resources, "reason", "resources")
	w.sample(st.Refused.Protocol, "reason", "protocol")

	w.gauge("queue_limit_bytes", "Memory that all clients' queues may take together.", st.QueueLimit)
	w.counter("queue_cuts_total", "Times that a client's queue was kept from growing because of that.", st.QueueCuts)
	w.counter("sent_records_total", "Records sent, added up over all clients.", st.SentRecords)
	w.counter("sent_packets_total", "Packets sent, added up over all clients.", st.SentPackets)
	w.counter("sent_bytes_total", "Bytes sent, added up over all clients.", st.SentRecords*notify.RecordSize)
	w.counter("lost_records_total", "Records lost by clients that were behind, added up over all clients.", st.LostRecords)
	w.counter("lost_episodes_total", "Times that a client began to lose records.", st.LostEpisodes)

	w.family("client_sent_records_total", "counter", "Records sent to a connected client.")
	for _, c := range st.Clients {
		w.sample(c.Records, clientLabels(c)...)
	}
	w.family("client_lost_records_total", "counter", "Records lost by a connected client that was behind.")
	for _, c := range st.Clients {
		w.sample(c.Lost, clientLabels(c)...)
	}
}

func clientLabels(c notify.ClientState) []string {
	return []string{"client", fmt.Sprint(c.ID), "pid", fmt.Sprint(c.PID)}
}

// metricsWriter writes metrics in the Prometheus text format. Each sample names
// the file system, because a collector merges the files of several daemons.
type metricsWriter struct {
	*bytes.Buffer
	fsid notify.ID
	name string
}

// family starts a metric.
func (w *metricsWriter) family(name, kind, help string) {
	w.name = metricsPrefix + name
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", w.name, help, w.name, kind)
}

// sample adds a value to the metric; labels alternate name and value.
func (w *metricsWriter) sample(value any, labels ...string) {
	fmt.Fprintf(w, "%s{fsid=\"%v\"", w.name, w.fsid)
	for i := 0; i+1 < len(labels); i += 2 {
		fmt.Fprintf(w, ",%s=\"%s\"", labels[i], escapeLabel(labels[i+1]))
	}
	fmt.Fprintf(w, "} %v\n", value)
}

func (w *metricsWriter) gauge(name, help string, value any) {
	w.family(name, "gauge", help)
	w.sample(value)
}

func (w *metricsWriter) counter(name, help string, value uint64) {
	w.family(name, "counter", help)
	w.sample(value)
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// escapeLabel makes any string a valid label value, which is UTF-8.
func escapeLabel(s string) string {
	return labelEscaper.Replace(strings.ToValidUTF8(s, "\uFFFD"))
}
