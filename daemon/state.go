// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// StateName is the name of the state file in the file system's directory.
const StateName = "state.json"

// State is a snapshot of the daemon: who serves the file system and how it
// goes. The state file holds it as JSON, the metrics file as metrics. Numbers
// count since Start.
type State struct {
	Version    string    `json:"version"`
	MountPoint string    `json:"mount_point"`
	FSID       notify.ID `json:"fsid"`
	RID        notify.ID `json:"rid"`
	PID        int       `json:"pid"`
	Start      time.Time `json:"start"`
	Updated    time.Time `json:"updated"`
	Socket     string    `json:"socket"`

	Records       uint64 `json:"records"`        // drained from the kernel
	LastSeq       uint64 `json:"last_seq"`       // of the last one, 0 if there is none
	KernelDropped uint64 `json:"kernel_dropped"` // records, since the daemon attached
	Batches       uint64 `json:"batches"`        // drains that found records
	FullBatches   uint64 `json:"full_batches"`   // drains that found the ring full

	SentRecords  uint64 `json:"sent_records"`  // to all clients, as are the next
	SentPackets  uint64 `json:"sent_packets"`  //
	LostRecords  uint64 `json:"lost_records"`  // by clients that were behind
	LostEpisodes uint64 `json:"lost_episodes"` // times that a client began to lose records

	MaxClients int           `json:"max_clients"`
	Accepted   uint64        `json:"accepted"` // clients
	Refused    RefusedState  `json:"refused"`  // connections
	Clients    []ClientState `json:"clients"`  // connected now
}

// RefusedState counts connections that the daemon closed, by reason.
type RefusedState struct {
	MaxClients  uint64 `json:"max_clients"` // there were too many
	Credentials uint64 `json:"credentials"` // not the host's root
	Resources   uint64 `json:"resources"`   // descriptors or memory ran out
	Protocol    uint64 `json:"protocol"`    // a bad request packet
}

// ClientState is one client that is connected.
type ClientState struct {
	ID        uint64    `json:"id"` // never used again
	PID       int32     `json:"pid"`
	Since     time.Time `json:"since"`
	PerPacket int       `json:"records_per_packet"`
	Records   uint64    `json:"records"` // sent
	Packets   uint64    `json:"packets"` // sent
	Lost      uint64    `json:"lost"`    // records
	Behind    bool      `json:"behind"`  // is losing records
}

// ReadState reads a state file. The error is os.ErrNotExist when no daemon
// serves the file system. A daemon that was killed leaves its file.
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

// WriteJSON writes what the state file holds.
func (st *State) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(st)
}

// state takes a snapshot.
func (r *relay) state() *State {
	n := &r.count
	st := &State{
		Version:       r.cfg.Version,
		MountPoint:    r.cfg.MountPoint,
		FSID:          r.mount.FSID,
		RID:           r.mount.RID,
		PID:           os.Getpid(),
		Start:         r.start.Round(0),
		Updated:       time.Now().Round(0),
		Socket:        r.ln.path,
		Records:       n.records,
		LastSeq:       n.lastSeq,
		KernelDropped: n.kernelDropped,
		Batches:       n.batches,
		FullBatches:   n.fullBatches,
		SentRecords:   n.sent,
		SentPackets:   n.packets,
		LostRecords:   n.lost,
		LostEpisodes:  n.episodes,
		MaxClients:    r.cfg.MaxClients,
		Accepted:      n.accepted,
		Refused:       n.refused,
		Clients:       make([]ClientState, 0, len(r.clients)),
	}
	for _, c := range r.clients {
		st.Clients = append(st.Clients, ClientState{
			ID:        c.id,
			PID:       c.pid,
			Since:     c.since.Round(0),
			PerPacket: c.perPacket,
			Records:   c.records,
			Packets:   c.packets,
			Lost:      c.lost,
			Behind:    c.behind.on,
		})
	}
	return st
}
