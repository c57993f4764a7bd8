// SPDX-License-Identifier: GPL-2.0-only

package tally

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// By is what to add up by.
type By int

// What there is to add up by.
const (
	ByFile By = iota
	ByDirectory
	ByUser
	ByProcess
	ByCommand
)

var byNames = []string{"file", "directory", "user", "process", "command"}

// String returns the name, as in "file".
func (b By) String() string { return byNames[b] }

// Order is what comes first in a table.
type Order int

// The orders, each with the largest first.
const (
	Bytes Order = iota
	Reads
	Opens
	Events
)

var orderNames = []string{"bytes", "reads", "opens", "events"}

// String returns the name, as in "bytes".
func (o Order) String() string { return orderNames[o] }

// of returns what counts in an order.
func (o Order) of(c Count) uint64 {
	switch o {
	case Reads:
		return c.Reads
	case Opens:
		return c.Opens
	case Events:
		return c.Events()
	}
	return c.Bytes
}

// Query says which table is wanted.
type Query struct {
	By     By
	Order  Order
	Total  bool   // since the start, not of the last interval
	Filter string // only rows with this in their name or number, in whatever case
	Skip   int    // rows to leave out at the top
	Rows   int    // at most
}

// Row is a line of a table.
type Row struct {
	ID      uint64    // inode, user or process number; 0 for directories and commands
	Name    string    // path, user or command; "" if it is not known
	UID     uint32    // of a process
	User    string    // of a process; "" if it is not known
	Count             // in the time that the table is about
	History []float64 // in the intervals up to the last, events or bytes a second as the order is
}

// Moment is what there was in an interval, in a second.
type Moment struct {
	Events, Bytes float64
	Lost          bool // something, or maybe
}

// Table is what there is to see.
type Table struct {
	Start   time.Time // of the sum
	Since   time.Time // of the interval that goes on
	Seconds float64   // that the table is about
	First   bool      // the first interval goes on, and this is what it has so far

	// Waiting says why nothing comes: how the last stream ended, or why there was none yet.
	// It is "" while there is one.
	Waiting string

	Rows  []Row
	Found int   // rows that match the query
	Keys  int   // rows that there are without the filter
	Rest  Count // of what there was no room for

	All       Count
	Moments   []Moment // intervals up to the last, oldest first
	Loss      Loss     // in the time that the table is about
	TotalLoss Loss     // since the start
}

// Look makes a table of the last interval that is over, or of what is there if the first
// goes on.
func (t *Tally) Look(q Query, now time.Time) Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := look{t: t, q: q, first: t.interval == 1}
	v := Table{
		Start: t.start, Since: t.since, Seconds: t.seconds, First: l.first,
		Waiting: t.waiting, Loss: t.loss.last, TotalLoss: t.loss.total, Moments: slices.Clone(t.moments), All: l.count(&t.all),
	}
	switch {
	case q.Total:
		v.Seconds, v.Loss = max(now.Sub(t.start).Seconds(), 1e-3), t.loss.total
	case l.first:
		v.Seconds, v.Loss = max(now.Sub(t.since).Seconds(), 1e-3), t.loss.current
	}
	rest := &t.files.rest
	switch q.By {
	case ByFile:
		for ino, e := range t.files.rows {
			l.add(Row{ID: ino, Name: e.name}, e)
		}
	case ByDirectory:
		for dir, e := range l.directories() {
			l.add(Row{Name: dir}, e)
		}
	case ByUser:
		rest = &t.users.rest
		for uid, e := range t.users.rows {
			l.add(Row{ID: uid, Name: e.name}, e)
		}
	case ByProcess:
		rest = &t.processes.rest
		for pid, e := range t.processes.rows {
			l.add(Row{ID: pid, Name: e.name, UID: e.uid, User: e.user}, e)
		}
	case ByCommand:
		rest = &t.commands.rest
		for name, e := range t.commands.rows {
			l.add(Row{Name: name}, e)
		}
	}
	v.Rest = l.count(rest)
	v.Keys, v.Found = l.keys, len(l.found)
	v.Rows = l.rows()
	return v
}

// look is a call of Look.
type look struct {
	t     *Tally
	q     Query
	first bool
	keys  int
	found []found
}

type found struct {
	Row
	e *entry
}

func (l *look) count(e *entry) Count {
	switch {
	case l.q.Total:
		return e.total
	case l.first:
		return e.current
	}
	return e.last
}

// directories adds up files by the folder that they are in, "" for those of which it is
// not known.
func (l *look) directories() map[string]*entry {
	sums := make(map[string]*entry)
	for _, e := range l.t.files.rows {
		dir := e.name
		if dir != "" {
			dir = path.Dir(dir)
		}
		sum := sums[dir]
		if sum == nil {
			sum = new(entry)
			sums[dir] = sum
		}
		sum.current.plus(e.current)
		sum.last.plus(e.last)
		sum.total.plus(e.total)
		for i, r := range e.rates {
			sum.rates[i].events += r.events
			sum.rates[i].bytes += r.bytes
		}
	}
	return sums
}

// add adds a row if it matches. Those without an access in the time are none.
func (l *look) add(r Row, e *entry) {
	r.Count = l.count(e)
	if r.Events() == 0 {
		return
	}
	l.keys++
	if l.q.Filter != "" && !l.matches(r) {
		return
	}
	l.found = append(l.found, found{r, e})
}

func (l *look) matches(r Row) bool {
	text := r.Name
	switch l.q.By {
	case ByFile, ByUser:
		text = fmt.Sprintf("%s\x00%d", r.Name, r.ID)
	case ByProcess:
		text = fmt.Sprintf("%s\x00%d\x00%s\x00%d", r.Name, r.ID, r.User, r.UID)
	}
	return strings.Contains(strings.ToLower(text), strings.ToLower(l.q.Filter))
}

// rows returns the rows that are wanted, in order.
func (l *look) rows() []Row {
	slices.SortFunc(l.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(l.q.Order.of(b.Count), l.q.Order.of(a.Count)), cmp.Compare(b.Bytes, a.Bytes),
			cmp.Compare(b.Events(), a.Events()), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	from := min(max(l.q.Skip, 0), len(l.found))
	to := min(from+max(l.q.Rows, 0), len(l.found))
	rows := make([]Row, 0, to-from)
	for _, f := range l.found[from:to] {
		f.History = l.history(f.e)
		rows = append(rows, f.Row)
	}
	return rows
}

// history returns the rates of an entry, oldest first.
func (l *look) history(e *entry) []float64 {
	n := min(l.t.interval-1, History)
	h := make([]float64, 0, n)
	for i := l.t.interval - n; i < l.t.interval; i++ {
		r := e.rates[i%History]
		if l.q.Order == Bytes {
			h = append(h, float64(r.bytes))
		} else {
			h = append(h, float64(r.events))
		}
	}
	return h
}
