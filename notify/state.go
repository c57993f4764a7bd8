// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// RunDir is where the daemons of a node keep their files, in a directory for
// each file system that is named by its FSID.
const RunDir = "/run/scoutfs"

// Names of the daemon's files in the directory of a file system.
const (
	SocketName  = "notify.sock"  // clients connect to it
	StateName   = "state.json"   // a [State]
	MetricsName = "metrics.prom" // the same for Prometheus

	// LockName is the file that the daemon holds locked, with flock(2), for as
	// long as it runs. The other files can outlive a daemon that was killed.
	LockName = "notify.lock"
)

// SocketPath returns where the daemon that serves a file system listens:
// /run/scoutfs/<fsid>/notify.sock.
func SocketPath(fsid ID) string {
	return filepath.Join(RunDir, fsid.String(), SocketName)
}

// State is a snapshot of the daemon: which mount it serves, and its counts since
// Start. The daemon writes it to the state file, as JSON, when it has changed.
type State struct {
	Version    string    `json:"version"`
	MountPoint string    `json:"mount_point"`
	FSID       ID        `json:"fsid"`
	RID        ID        `json:"rid"`
	Device     Device    `json:"device"` // of the mount
	PID        int       `json:"pid"`
	Start      time.Time `json:"start"`
	Attached   time.Time `json:"attached"` // when the daemon became the mount's reader
	Updated    time.Time `json:"updated"`
	Socket     string    `json:"socket"`
	Protocol   int       `json:"protocol"` // the newest version that it speaks

	Records       uint64 `json:"records"`        // drained from the kernel
	LastSeq       uint64 `json:"last_seq"`       // of the last record, 0 if there is none
	KernelDropped uint64 `json:"kernel_dropped"` // records, since the daemon attached
	Batches       uint64 `json:"batches"`        // drains that found records
	FullBatches   uint64 `json:"full_batches"`   // drains that found the ring full

	// Sums over all clients, including those that have left.
	SentRecords  uint64 `json:"sent_records"`
	SentPackets  uint64 `json:"sent_packets"`
	LostRecords  uint64 `json:"lost_records"`  // by clients that were behind
	LostEpisodes uint64 `json:"lost_episodes"` // times that a client began to lose records

	QueueLimit uint64 `json:"queue_limit"` // bytes that all queues may take together
	QueueCuts  uint64 `json:"queue_cuts"`  // times that the longest was cut short for that

	MaxClients int           `json:"max_clients"`
	Accepted   uint64        `json:"accepted"` // clients
	Refused    Refusals      `json:"refused"`
	Clients    []ClientState `json:"clients"` // connected now
}

// Refusals counts the connections that the daemon closed, by reason.
type Refusals struct {
	MaxClients  uint64 `json:"max_clients"` // there were too many
	Credentials uint64 `json:"credentials"` // not the daemon's user
	Resources   uint64 `json:"resources"`   // out of descriptors or memory
	Protocol    uint64 `json:"protocol"`    // a bad request packet
}

// ClientState is one connected client.
type ClientState struct {
	ID        uint64    `json:"id"` // from 1, never reused
	PID       int32     `json:"pid"`
	Since     time.Time `json:"since"`
	Protocol  int       `json:"protocol"`           // version that it speaks
	Filtered  bool      `json:"filtered"`           // it does not want all records
	PerPacket int       `json:"records_per_packet"` // at most
	Records   uint64    `json:"records"`            // sent
	Packets   uint64    `json:"packets"`            // sent
	Lost      uint64    `json:"lost"`               // records, to its queue
	Behind    bool      `json:"behind"`             // is losing records
}

// ReadState reads a state file. The error is [os.ErrNotExist] if no daemon serves
// the file system. But a daemon that was killed leaves its file: only the lock on
// [LockName] tells whether it runs.
func ReadState(path string) (*State, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return &st, nil
}
