// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// publisher tells the world how the daemon is doing: the state and metrics files,
// and the service manager. It does so when there is news, at most once an interval,
// so that a single record costs nothing and the last word is exact.
type publisher struct {
	log      *slog.Logger
	dir      *runDir
	interval time.Duration
	snapshot func() *notify.State

	news   bool      // there is something to publish
	due    time.Time // when it may be published
	failed bool      // the last attempt failed, and was logged

	manager      *sdNotify
	watchdog     time.Duration // between signs of life, 0 for none
	watchdogNext time.Time

	buf bytes.Buffer
}

// start publishes the beginning and tells the manager that the daemon is ready.
func (p *publisher) start() (err error) {
	if p.manager, err = openNotify(); err != nil {
		return err
	}
	st := p.snapshot()
	if err := p.writeFiles(st); err != nil {
		return err
	}
	now := time.Now()
	p.due = now.Add(p.interval)
	if p.watchdog = watchdogInterval(); p.manager != nil && p.watchdog > 0 {
		p.watchdogNext = now.Add(p.watchdog)
	}
	return p.manager.sendPatiently("READY=1", status(st))
}

// next returns when tick is to be called, zero for not until there is news. news
// says that there is some since the last call of next or tick.
func (p *publisher) next(news bool) time.Time {
	p.news = p.news || news
	if p.news {
		return earlier(p.watchdogNext, p.due)
	}
	return p.watchdogNext
}

// tick does what is due. news is as for next.
func (p *publisher) tick(now time.Time, news bool) {
	p.news = p.news || news
	if !p.watchdogNext.IsZero() && !now.Before(p.watchdogNext) {
		p.watchdogNext = now.Add(p.watchdog)
		if err := p.manager.send("WATCHDOG=1"); err != nil {
			// Soon enough for a manager that is only busy.
			p.watchdogNext = now.Add(min(p.watchdog, p.interval))
			p.fail(err)
		}
	}
	if !p.news || now.Before(p.due) {
		return
	}
	p.news = false
	p.due = now.Add(p.interval)
	st := p.snapshot()
	if err := errors.Join(p.writeFiles(st), p.manager.send(status(st))); err != nil {
		p.fail(err)
	} else {
		p.failed = false
	}
}

// fail puts the news off until the next time. It logs only the first of several
// failures in a row.
func (p *publisher) fail(err error) {
	p.news = true
	if !p.failed {
		p.failed = true
		p.log.Error("cannot publish state", "error", err)
	}
}

// stopping tells the manager that the daemon is about to end.
func (p *publisher) stopping() { p.manager.send("STOPPING=1") }

// close removes the files.
func (p *publisher) close() {
	p.dir.removeFile(notify.StateName)
	p.dir.removeFile(notify.MetricsName)
	p.manager.close()
}

func (p *publisher) writeFiles(st *notify.State) error {
	p.buf.Reset()
	writeMetrics(&p.buf, st)
	if err := p.dir.replaceFile(notify.MetricsName, p.buf.Bytes()); err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	// Last, so that whoever sees new state finds metrics that are no older.
	p.buf.Reset()
	e := json.NewEncoder(&p.buf)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(st); err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := p.dir.replaceFile(notify.StateName, p.buf.Bytes()); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func status(st *notify.State) string {
	return fmt.Sprintf("STATUS=%d clients, %d records, %d dropped by the kernel, %d lost by clients",
		len(st.Clients), st.Records, st.KernelDropped, st.LostRecords)
}
