// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	restore  func() (restored bool, err error) // makes what is missing in the run directory
	check    time.Duration                     // between calls of restore, at most; 0 for only before news

	news   bool      // there is something to publish
	due    time.Time // when it may be published
	failed bool      // the last attempt failed, and was logged

	manager      *sdNotify
	watchdog     time.Duration // between signs of life, 0 for none
	watchdogNext time.Time
	checkNext    time.Time

	buf bytes.Buffer
}

// start publishes the beginning and tells the manager that the daemon is ready. A full
// disk is no reason not to serve.
func (p *publisher) start() error {
	st := p.snapshot()
	if err := p.write(st); err != nil {
		p.fail(err)
	}
	now := time.Now()
	p.due = now.Add(p.interval)
	p.checks(now)
	if p.watchdog = p.manager.watchdog(); p.watchdog > 0 {
		p.watchdogNext = now.Add(p.watchdog)
	}
	p.manager.relaying(true)
	return p.manager.ready(status(st))
}

// next returns when tick is to be called, zero for not until there is news. news
// says that there is some since the last call of next or tick.
func (p *publisher) next(news bool) time.Time {
	p.news = p.news || news
	next := earlier(p.watchdogNext, p.checkNext)
	if p.news {
		return earlier(next, p.due)
	}
	return next
}

// tick does what is due. news is as for next.
func (p *publisher) tick(now time.Time, news bool) {
	p.news = p.news || news
	if !p.watchdogNext.IsZero() && !now.Before(p.watchdogNext) {
		p.watchdogNext = now.Add(p.watchdog)
		if err := p.manager.send(alive); err != nil {
			// Soon enough for a manager that is only busy.
			p.watchdogNext = now.Add(min(p.watchdog, p.interval))
			p.fail(err)
		}
	}
	check := !p.checkNext.IsZero() && !now.Before(p.checkNext)
	if !check && (!p.news || now.Before(p.due)) {
		return
	}
	// What the files are in may be gone, or somebody else's by now.
	p.checks(now)
	restored, err := p.restoreTold()
	if p.news = p.news || restored; !p.news && err == nil {
		return
	}
	p.news = false
	p.due = now.Add(p.interval)
	if err == nil {
		st := p.snapshot()
		err = errors.Join(p.write(st), p.manager.send(status(st)))
	}
	if err != nil {
		p.fail(err)
	} else {
		p.failed = false
	}
}

// restoreTold restores, and logs it if there was anything to do.
func (p *publisher) restoreTold() (restored bool, err error) {
	restored, err = p.restore()
	if restored {
		p.log.Warn("made anew what was removed from the run directory", "directory", p.dir.dir)
	}
	return restored, err
}

// checks sets when to look at the run directory even if there is no news.
func (p *publisher) checks(now time.Time) {
	if p.check > 0 {
		p.checkNext = now.Add(p.check)
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

// stopping tells the manager that the daemon is about to end, if it is.
func (p *publisher) stopping() {
	if p.manager != nil && !p.manager.stays {
		p.manager.send("STOPPING=1")
	}
}

// close removes the files.
func (p *publisher) close() {
	p.manager.relaying(false)
	if p.dir.ours() {
		p.dir.removeFile(notify.StateName)
		p.dir.removeFile(notify.MetricsName)
	}
}

// write writes the files, and once more if what they are in was removed meanwhile.
func (p *publisher) write(st *notify.State) error {
	err := p.writeFiles(st)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, restoreErr := p.restoreTold(); restoreErr != nil {
		return errors.Join(err, restoreErr)
	}
	return p.writeFiles(st)
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

// status quotes the mount point, in which a new line would end the message.
func status(st *notify.State) string {
	return fmt.Sprintf("STATUS=serving %q: %d clients, %d records, %d dropped by the kernel, %d lost by clients",
		st.MountPoint, len(st.Clients), st.Records, st.KernelDropped, st.LostRecords)
}
