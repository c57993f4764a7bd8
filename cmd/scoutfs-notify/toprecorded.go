// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/screen"
	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// recorded shows a recording: tables for the intervals of its time if it is to be a series,
// and otherwise one of all, or on a terminal the live screen. What could be read is shown
// before the error.
func (t *top) recorded(ctx context.Context, series bool) error {
	r := replay{top: t, series: series && t.show != nil}
	err := r.read()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.sum == nil || r.done() {
		return err
	}
	if r.series {
		r.last = r.since.Add(r.interval)
	}
	r.sum.Next(r.last)
	var shown error
	if t.show != nil {
		shown = t.show(r.sum.Look(t.query, r.last), r.last)
	} else {
		shown = screen.Run(ctx, t.env.terminal, r.sum, screen.Options{
			Title: printable(t.mount), Query: t.query, ASCII: !utf8Locale(t.env.getenv), Recorded: r.last,
		})
	}
	if err == nil {
		err = shown
	}
	return err
}

// replay adds up the events of a recording, by their own time.
type replay struct {
	*top
	series bool
	sum    *tally.Tally // nil before the first event with a time
	since  time.Time    // when the interval began
	last   time.Time
	shown  uint64
}

// eventTime is when an event happened or was told; the zero time if it does not say.
func eventTime(ev notify.Event) time.Time {
	switch ev := ev.(type) {
	case *notify.Record:
		return ev.Time()
	case *notify.Lost:
		return ev.Time
	case *notify.Idle:
		return ev.Time
	}
	return time.Time{}
}

func (r *replay) done() bool { return r.count > 0 && r.shown == r.count }

func (r *replay) read() error {
	for ev, err := range r.events {
		if err != nil {
			return err
		}
		at := eventTime(ev)
		if at.IsZero() {
			continue
		}
		if r.sum == nil {
			r.sum, r.since, r.last = tally.New(at, r.names), at, at
		}
		if err := r.until(at); err != nil || r.done() {
			return err
		}
		r.last = at
		r.sum.Add(ev)
	}
	return nil
}

// until ends the intervals that are over at a time. A clock that was set back is waited
// for.
func (r *replay) until(at time.Time) error {
	if at.Sub(r.since) < r.interval {
		return nil
	}
	r.since = r.since.Add(r.interval)
	r.sum.Next(r.since)
	if r.series {
		r.shown++
		if err := r.show(r.sum.Look(r.query, r.since), r.since); err != nil || r.done() {
			return err
		}
	}
	// One long interval in which nothing happened, if there is one, is not shown.
	if gap := at.Sub(r.since).Truncate(r.interval); gap > 0 {
		r.since = r.since.Add(gap)
		r.sum.Next(r.since)
	}
	return nil
}
