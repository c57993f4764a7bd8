// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"fmt"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// maxColumns is how many columns time is divided into at most.
	maxColumns = 1024

	// minColumn is how long a column is at least.
	minColumn = time.Millisecond
)

// timeline divides the time of a stream into columns. When they run out their length
// doubles, and pairs of them become one.
type timeline struct {
	fold func() // joins what is in columns 2n and 2n+1 in column n

	begin time.Time // of column 0
	each  time.Duration
	last  time.Time // that was told
	lost  [maxColumns]bool

	loss         notify.Lost // in all
	records      uint64
	opens, reads uint64 // of these
}

// add takes an event into account. For an access it returns its column, for others -1.
func (t *timeline) add(ev notify.Event) (column int) {
	switch ev := ev.(type) {
	case *notify.Record:
		t.records++
		switch ev.Type {
		case notify.TypeOpen:
			t.opens++
		case notify.TypeRead:
			t.reads++
		}
		column = t.column(ev.Time())
		t.told(ev.Time())
		return column
	case *notify.Lost:
		t.lose(ev)
	case *notify.Idle:
		t.column(ev.Time)
		t.told(ev.Time)
	case *notify.Hello:
		// What was missed before it is told right after it.
		if t.each == 0 && !ev.Time.IsZero() {
			t.column(ev.Time)
			t.told(ev.Time)
		}
	}
	return -1
}

func (t *timeline) told(at time.Time) {
	if at.After(t.last) {
		t.last = at
	}
}

// lose marks the time in which records are missing: from the last that was told until it
// was noticed.
func (t *timeline) lose(l *notify.Lost) {
	from := t.last
	if from.IsZero() {
		from = l.Time
	}
	to := t.column(l.Time)
	for c := min(t.column(from), to); c <= to; c++ {
		t.lost[c] = true
	}
	t.told(l.Time)
	t.loss.Count += l.Count
	t.loss.Cause |= l.Cause
	t.loss.AtMost = t.loss.AtMost || l.AtMost
	t.loss.Unknown = t.loss.Unknown || l.Unknown
}

// column returns the column of a time. Before the first one, if the clock was set back, is
// the first one.
func (t *timeline) column(at time.Time) int {
	if t.each == 0 {
		t.begin, t.each = at, minColumn
	}
	for at.Sub(t.begin) >= maxColumns*t.each {
		if t.each > 1<<61 {
			return maxColumns - 1 // 36 years a column
		}
		t.each *= 2
		for c := range maxColumns / 2 {
			t.lost[c] = t.lost[2*c] || t.lost[2*c+1]
		}
		clear(t.lost[maxColumns/2:])
		if t.fold != nil {
			t.fold()
		}
	}
	return int(max(at.Sub(t.begin), 0) / t.each)
}

// columns is how many are in use.
func (t *timeline) columns() int {
	if t.each == 0 {
		return 0
	}
	return t.column(t.last) + 1
}

// losses says what was lost.
func (t *timeline) losses() string {
	if t.loss.Count == 0 && !t.loss.Unknown {
		return "lost nothing"
	}
	return t.loss.String()
}

// about says which time a picture is of, and what of.
func (t *timeline) about(what string) string {
	if t.records == 0 {
		return "no accesses; " + t.losses()
	}
	begin, end := t.begin.Local(), t.last.Local()
	format := time.TimeOnly
	if y, m, d := begin.Date(); end.Before(time.Date(y, m, d, 0, 0, 0, 0, begin.Location())) || !sameDay(begin, end) {
		format = time.DateTime
	}
	return fmt.Sprintf("%s to %s (%v), %s, %s", begin.Format(time.DateTime), end.Format(format+" MST"),
		roundTime(end.Sub(begin)), what, t.losses())
}

func sameDay(a, b time.Time) bool {
	return a.Format(time.DateOnly) == b.Format(time.DateOnly)
}

// roundTime leaves out of a time what nobody wants to know.
func roundTime(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond} {
		if d >= 100*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Millisecond)
}

// drawLost hatches the columns in which records are missing.
func (t *timeline) drawLost(c *canvas) {
	n := t.columns()
	w := plotWidth / float64(max(n, 1))
	for from := 0; from < n; from++ {
		if !t.lost[from] {
			continue
		}
		to := from
		for to < n && t.lost[to] {
			to++
		}
		// A narrow one has to be seen, too.
		wide := max(float64(to-from)*w, 3)
		c.rect("lost", min(plotLeft+float64(from)*w, plotLeft+plotWidth-wide), plotTop, wide, plotHeight, "records are missing here")
		from = to
	}
}

// drawTime draws the axis of time.
func (t *timeline) drawTime(c *canvas) {
	span := t.each * time.Duration(t.columns())
	if span == 0 {
		return
	}
	step := timeStep(span)
	format := "15:04:05"
	switch {
	case step >= 24*time.Hour:
		format = "Jan 2"
	case span >= 24*time.Hour:
		format = "Jan 2 15:04"
	case step >= time.Minute:
		format = "15:04"
	case step < time.Second:
		format = "05.000"
	}
	begin := t.begin.Local()
	midnight := time.Date(begin.Year(), begin.Month(), begin.Day(), 0, 0, 0, 0, begin.Location())
	at := midnight.Add(begin.Sub(midnight).Truncate(step))
	for ; at.Sub(begin) <= span; at = at.Add(step) {
		if at.Before(begin) {
			continue
		}
		x := plotLeft + plotWidth*float64(at.Sub(begin))/float64(span)
		c.line("grid", x, plotTop+plotHeight, x, plotTop+plotHeight+5)
		c.text("mid", x, plotTop+plotHeight+20, at.Format(format))
	}
	c.text("dim end", plotLeft+plotWidth, plotTop+plotHeight+38, "time")
}

// timeStep is the time between two marks of an axis.
func timeStep(span time.Duration) time.Duration {
	for _, s := range []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	} {
		if span/s <= 9 {
			return s
		}
	}
	step := 24 * time.Hour
	for span/step > 9 {
		step *= 2
	}
	return step
}
