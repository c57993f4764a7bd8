// SPDX-License-Identifier: GPL-2.0-only

// Package tally adds up accesses by file, user, process and command, in intervals and since
// the start, in bounded memory.
package tally

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// MaxRows is how many files, processes and so on are told apart. When there are more,
	// those are kept that have most in all and those that were accessed last; what is left
	// out is added up, see [Table.Rest].
	MaxRows = 1 << 16

	// History is how many intervals are kept of each row.
	History = 16

	// LongHistory is how many intervals are kept of the sum.
	LongHistory = 256
)

// Count is how often files were opened and read, and how many bytes.
type Count struct {
	Opens uint64 `json:"opens"`
	Reads uint64 `json:"reads"`
	Bytes uint64 `json:"bytes"`
}

// Events is the number of opens and reads.
func (c Count) Events() uint64 { return c.Opens + c.Reads }

func (c *Count) plus(d Count) {
	c.Opens += d.Opens
	c.Reads += d.Reads
	c.Bytes += d.Bytes
}

// count is what a record adds.
func count(r *notify.Record) Count {
	switch r.Type {
	case notify.TypeOpen:
		return Count{Opens: 1}
	case notify.TypeRead:
		return Count{Reads: 1, Bytes: r.Length}
	}
	return Count{}
}

// Loss adds up what was lost. The zero value is nothing.
type Loss struct {
	Count   uint64       `json:"count"`
	AtMost  bool         `json:"at_most"`
	Unknown bool         `json:"unknown"`
	Cause   notify.Cause `json:"cause"`
}

func (l *Loss) add(ev *notify.Lost) {
	l.Count += ev.Count
	l.Cause |= ev.Cause
	l.AtMost = l.AtMost || ev.AtMost
	l.Unknown = l.Unknown || ev.Unknown
}

// Any tells whether something was lost, or may have been.
func (l Loss) Any() bool { return l.Count > 0 || l.Unknown }

// String says it for people, as [notify.Lost] does, or "lost nothing".
func (l Loss) String() string {
	if !l.Any() {
		return "lost nothing"
	}
	return (&notify.Lost{Count: l.Count, AtMost: l.AtMost, Unknown: l.Unknown, Cause: l.Cause}).String()
}

// Names say what the numbers in records stand for. Each is asked for the first record of a
// file, process or user in an interval, from within [Tally.Add], and "" means that it is not
// known. A function that is nil knows nothing.
type Names struct {
	Path    func(ino uint64) string // of a file, from the root of the file system
	Command func(*notify.Record) string
	User    func(uid uint32) string
}

// entry is what is added up under one key.
type entry struct {
	name string // path, user or command; "" if it is not known
	uid  uint32 // of a process's last access
	user string // the name to it
	rest bool   // this is what there was no room for

	current Count // interval
	last    Count // interval that is over
	total   Count
	rates   [History]rate // of intervals that are over, at their number modulo History
	active  int           // number of the interval of the last access
	named   int           // number of the interval in which the name was asked for
}

// rate is what there was in a second of an interval.
type rate struct{ events, bytes float32 }

// Tally is a sum. Its methods are safe for concurrent use.
type Tally struct {
	mu    sync.Mutex
	names Names

	files, users, processes table[uint64]
	commands                table[string]

	all      entry
	moments  []Moment
	interval int // number of the current one, from 1
	start    time.Time
	since    time.Time // when the current interval began
	seconds  float64   // that the last one took
	loss     struct{ current, last, total Loss }
	waiting  string // see Table
}

// New starts a sum, and its first interval.
func New(now time.Time, names Names) *Tally {
	return newTally(now, names, MaxRows)
}

func newTally(now time.Time, names Names, rows int) *Tally {
	return &Tally{
		names: names, start: now, since: now, interval: 1,
		files: newTable[uint64](rows), users: newTable[uint64](rows), processes: newTable[uint64](rows), commands: newTable[string](rows),
	}
}

// Add adds an access or a loss, or notes whether there is a stream. It keeps nothing of the
// event. Only one goroutine may call it at a time; it waits for names without keeping
// others from looking.
func (t *Tally) Add(ev notify.Event) {
	switch ev := ev.(type) {
	case *notify.Record:
		t.record(ev)
	case *notify.Lost:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.loss.current.add(ev)
		t.loss.total.add(ev)
	case *notify.Hello:
		t.wait("")
	case *notify.End:
		t.wait(ev.Reason.String())
	case *notify.Waiting:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.waiting = cmp.Or(t.waiting, ev.Err.Error())
	}
}

func (t *Tally) wait(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = why
}

func (t *Tally) record(r *notify.Record) {
	c := count(r)
	t.mu.Lock()
	defer t.mu.Unlock()
	file, user, process := t.files.get(r.Ino), t.users.get(uint64(r.UID)), t.processes.get(uint64(r.PID))
	// Not when the table is made: many processes have ended by then.
	// A path that is not found in time is still the one that it was.
	t.name(file, t.names.Path != nil, func() string { return cmp.Or(t.names.Path(r.Ino), file.name) })
	t.name(user, t.names.User != nil, func() string { return t.names.User(r.UID) })
	t.name(process, t.names.Command != nil, func() string { return t.names.Command(r) })
	process.uid, process.user = r.UID, user.name
	for _, e := range []*entry{&t.all, file, user, process, t.commands.get(process.name)} {
		e.add(c, t.interval)
	}
}

// name asks for the name of an entry, once in an interval. t.mu is locked, and is not
// while it asks.
func (t *Tally) name(e *entry, known bool, ask func() string) {
	if !known || e.named == t.interval || e.rest {
		return
	}
	e.named = t.interval
	t.mu.Unlock()
	name := ask()
	t.mu.Lock()
	e.name = name
}

func (e *entry) add(c Count, interval int) {
	e.current.plus(c)
	e.total.plus(c)
	e.active = interval
}

// Next ends an interval and starts another one.
func (t *Tally) Next(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A clock that was set back ends an interval, too.
	t.seconds = max(now.Sub(t.since).Seconds(), 1e-3)
	t.all.next(t.interval, t.seconds)
	t.files.next(t.interval, t.seconds)
	t.users.next(t.interval, t.seconds)
	t.processes.next(t.interval, t.seconds)
	t.commands.next(t.interval, t.seconds)
	if len(t.moments) == LongHistory {
		t.moments = slices.Delete(t.moments, 0, 1)
	}
	t.moments = append(t.moments, Moment{
		Events: float64(t.all.last.Events()) / t.seconds, Bytes: float64(t.all.last.Bytes) / t.seconds, Lost: t.loss.current.Any(),
	})
	t.loss.last, t.loss.current = t.loss.current, Loss{}
	t.since = now
	t.interval++
}

func (e *entry) next(interval int, seconds float64) {
	e.rates[interval%History] = rate{float32(float64(e.current.Events()) / seconds), float32(float64(e.current.Bytes) / seconds)}
	e.last, e.current = e.current, Count{}
}

// Reset forgets all that was added up, and starts anew.
func (t *Tally) Reset(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := newTally(now, t.names, t.files.max)
	t.files, t.users, t.processes, t.commands = fresh.files, fresh.users, fresh.processes, fresh.commands
	t.all, t.moments, t.loss = fresh.all, nil, fresh.loss
	t.interval, t.start, t.since, t.seconds = fresh.interval, now, now, 0
}
