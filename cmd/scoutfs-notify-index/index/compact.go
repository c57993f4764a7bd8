// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// Segments are merged so that there are few of them, each entry is copied seldom, and
// what happened in a stretch of time can be told from the rest for as long as somebody
// asks for it: flushes within an hour by eights, then hours, then days, then all that is
// older.

const (
	fanIn       = 8
	hoursPerDay = 24
	grace       = 2 * time.Minute // for a flush that began in the hour before
)

// job is a merge of some segments into one.
type job struct {
	from []Segment // by age
	into Segment   // Span, Tier and Hour
}

// times are what a merge goes by.
type times struct {
	now    Millis // as the clock shows it
	steady Millis // not later than that, and not moved by a clock that is set: see Clock.Ahead
	node   Node   // the steps of its clock
}

// times is for the goroutine that writes.
func (s *Store) times() times {
	now := s.now()
	t := times{now: MillisOf(now), node: s.log.node.clone()}
	t.steady = t.now
	if !s.looked.IsZero() {
		// The clock may have been set since. What has passed is told by another.
		t.steady = min(t.now, s.shown.plus(now.Sub(s.looked)))
	}
	t.steady = t.steady.plus(-max(0, t.node.Clock.ahead(t.steady)))
	return t
}

// plan returns the merge that is due, if one is.
func plan(segments []Segment, t *times, l *Limits) (job, bool) {
	groups := make(map[Segment][]Segment) // by what they would become
	for _, s := range segments {
		if into, ok := target(&s, t, l); ok {
			groups[into] = append(groups[into], s)
		}
	}
	// The newest first: they are small, and many.
	order := make([]Segment, 0, len(groups))
	for into := range groups {
		order = append(order, into)
	}
	slices.SortFunc(order, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.Span, b.Span), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Hour, b.Hour))
	})
	for _, into := range order {
		j := job{from: groups[into], into: into}
		if into.Span == SpanFlush && len(j.from) < fanIn {
			continue
		}
		if into.Span > SpanFlush {
			// Of one that is there already, there is to be one.
			for _, s := range segments {
				if s.Span == into.Span && s.Hour == into.Hour {
					j.from = append(j.from, s)
				}
			}
		}
		slices.SortFunc(j.from, func(a, b Segment) int { return cmp.Compare(a.ID, b.ID) })
		return j, true
	}
	return job{}, false
}

// target returns the span, tier and hour of the segment into which one is to be merged.
// Below an hour nothing is told apart by time, so the clock will do; what would be lost for
// good waits for the steady one.
func target(s *Segment, t *times, l *Limits) (into Segment, ok bool) {
	age := func(now Millis, hours int64) time.Duration {
		return now.minus(Millis((s.Hour + hours) * time.Hour.Milliseconds()))
	}
	day := s.Hour - s.Hour%hoursPerDay
	switch {
	case s.Span == SpanFlush && age(t.now, 1) < grace:
		return Segment{Tier: s.Tier + 1, Hour: s.Hour}, true
	case s.Span == SpanFlush:
		return Segment{Span: SpanHour, Hour: s.Hour}, true
	case s.Span == SpanHour && age(t.steady, hoursPerDay) > l.Hours:
		return Segment{Span: SpanDay, Hour: day}, true
	case s.Span == SpanDay && age(t.steady, hoursPerDay) > l.Days:
		return Segment{Span: SpanAll}, true
	}
	return Segment{}, false
}

// compact merges what is due, in the background.
func (s *Store) compact() {
	if !s.merging.TryLock() {
		return // it is under way
	}
	ctx, t := s.ctx, s.times()
	s.mergers.Add(1)
	go func() {
		defer s.mergers.Done()
		defer s.merging.Unlock()
		for ctx.Err() == nil {
			segments := s.Segments()
			j, ok := plan(segments, &t, &s.limits)
			if !ok {
				j, ok = s.planVacuum(segments)
			}
			if !ok {
				return
			}
			if err := s.run(&j, &t); err != nil {
				if !errors.Is(err, context.Canceled) {
					s.failed.Store(&err)
				}
				return
			}
		}
	}()
}

// run merges segments and replaces them by the result.
func (s *Store) run(j *job, t *times) error {
	readers, err := openSegments(s.dir, s.fsid, j.from)
	defer closeAll(readers)
	if err != nil {
		return err
	}
	sources := make([]source, len(readers))
	for i, r := range readers {
		sources[i] = r
	}
	d, err := s.newDropper(j.into.Span, t)
	if err != nil {
		return err
	}
	defer d.close()
	seg, err := s.writeSegment(sources, d.keep)
	if err != nil {
		return err
	}
	s.point("merged segment")
	seg.Span, seg.Tier, seg.Hour = j.into.Span, j.into.Tier, j.into.Hour
	merged := func(g Segment) bool { return slices.ContainsFunc(j.from, func(f Segment) bool { return f.ID == g.ID }) }
	err = s.commit(func(m *manifest) {
		m.Segments = append(slices.DeleteFunc(m.Segments, merged), seg)
		d.note(m, t.now)
	})
	if err != nil {
		os.Remove(segmentPath(s.dir, seg.ID))
		return err
	}
	s.point("merge")
	old := make([]string, len(j.from))
	for i, g := range j.from {
		old[i] = segmentPath(s.dir, g.ID)
	}
	s.discard(old)
	return d.done()
}
