// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// publisher tells the world how the relay is: the state and metrics files, and
// the service manager. It does so when there is news, at most once an interval,
// so that nothing is done for a single record and the last word is exact.
type publisher struct {
	dirty    bool // there is news
	interval time.Duration
	due      time.Time // when news may be published next
	failed   bool      // said that publishing fails

	manager      *sdNotify
	watchdog     time.Duration // between signs of life, 0 for none
	watchdogNext time.Time

	buf bytes.Buffer
}

// start publishes the beginning and tells the manager that the daemon is ready.
func (p *publisher) start(r *relay) error {
	p.interval = r.cfg.Interval
	manager, err := openNotify()
	if err != nil {
		return err
	}
	p.manager = manager
	if err := p.writeFiles(r); err != nil {
		return err
	}
	now := time.Now()
	p.due = now.Add(p.interval)
	if p.watchdog = watchdogInterval(); p.manager != nil && p.watchdog > 0 {
		p.watchdogNext = now.Add(p.watchdog)
	}
	return p.manager.sendPatiently("READY=1", p.status(r))
}

// next says when tick wants to be called, zero for not until there is news.
func (p *publisher) next() time.Time {
	t := p.watchdogNext
	if p.dirty {
		t = earlier(t, p.due)
	}
	return t
}

// tick does what is due.
func (p *publisher) tick(r *relay, now time.Time) {
	if !p.watchdogNext.IsZero() && !now.Before(p.watchdogNext) {
		p.watchdogNext = now.Add(p.watchdog)
		if err := p.manager.send("WATCHDOG=1"); err != nil {
			// Soon enough for a manager that is only busy.
			p.watchdogNext = now.Add(min(p.watchdog, p.interval))
			p.complain(r, err)
		}
	}
	if !p.dirty || now.Before(p.due) {
		return
	}
	p.dirty = false
	p.due = now.Add(p.interval)
	if err := errors.Join(p.writeFiles(r), p.manager.send(p.status(r))); err != nil {
		p.complain(r, err)
	} else {
		p.failed = false
	}
}

// complain logs the first of a row of failures, after which the relaying goes
// on and the news wait for the next time.
func (p *publisher) complain(r *relay, err error) {
	p.dirty = true
	if !p.failed {
		p.failed = true
		r.log.Error("cannot publish state", "error", err)
	}
}

// stopping tells the manager that the daemon is about to end.
func (p *publisher) stopping() { p.manager.send("STOPPING=1") }

// close removes the files.
func (p *publisher) close(r *relay) {
	r.dir.removeFile(notify.StateName)
	r.dir.removeFile(notify.MetricsName)
	p.manager.close()
}

func (p *publisher) writeFiles(r *relay) error {
	st := r.state()
	p.buf.Reset()
	writeMetrics(&p.buf, st)
	if err := r.dir.replaceFile(notify.MetricsName, p.buf.Bytes()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	// Last: who sees new state finds metrics that are no older.
	p.buf.Reset()
	e := json.NewEncoder(&p.buf)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(st); err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := r.dir.replaceFile(notify.StateName, p.buf.Bytes()); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (p *publisher) status(r *relay) string {
	return fmt.Sprintf("STATUS=%d clients, %d records, %d dropped by the kernel, %d lost by clients",
		len(r.clients), r.count.records, r.count.kernelDropped, r.count.lost)
}

// state takes a snapshot.
func (r *relay) state() *notify.State {
	n := &r.count
	st := &notify.State{
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
		Clients:       make([]notify.ClientState, 0, len(r.clients)),
	}
	for _, c := range r.clients {
		st.Clients = append(st.Clients, notify.ClientState{
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
