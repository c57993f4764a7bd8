// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// ErrTwice: what one node has seen would be counted twice.
var ErrTwice = errors.New("two stores have the same")

// Distinct returns [ErrTwice] if two of some stores have what the same node has seen since
// the same access: one store named twice, its copy, or what it was merged into. The place in
// the stream at which observation began tells that, for no two mounts have the same RID.
func Distinct(views []*View) error {
	seen := make(map[Place]*View)
	for _, v := range views {
		for i := range v.Nodes {
			n := &v.Nodes[i]
			if n.Since == 0 {
				continue // and has nothing
			}
			if o := seen[n.Start]; o != nil && o != v {
				return fmt.Errorf("%w: %s and %s, of %s", ErrTwice, o.Dir, v.Dir, cmp.Or(n.Host, "a node"))
			}
			seen[n.Start] = v
		}
	}
	return nil
}

// Merge makes a store in a new folder of what others have, which must be of one file
// system and [Distinct], and returns how many entries that has. It can be looked at, not
// written to.
func Merge(dir string, views []*View) (entries uint64, err error) {
	fsid := views[0].FSID
	m := manifest{Version: Version, FSID: fsid, Merged: true, Next: 1}
	for _, v := range views {
		if v.FSID != fsid {
			return 0, fmt.Errorf("%w: %s of %v, %s of %v", ErrForeign, views[0].Dir, fsid, v.Dir, v.FSID)
		}
		for i := range v.Nodes {
			n := v.Nodes[i].clone()
			n.Connected = false
			m.Nodes = append(m.Nodes, n)
		}
	}
	if err := Distinct(views); err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	groups := stretches(views)
	for _, g := range groups {
		s, err := mergeInto(dir, fsid, m.Next, g.sources)
		if err != nil {
			return 0, err
		}
		s.ID, s.Span, s.Hour = m.Next, g.span, g.hour
		m.Next++
		m.Segments = append(m.Segments, s)
		entries += s.Entries
	}
	if err := m.write(dir); err != nil {
		return 0, err
	}
	return entries, syncDir(dir)
}

// stretch is what several stores have of one stretch of time.
type stretch struct {
	span    Span
	hour    int64
	sources []source
}

// stretches returns what stores have, so that what they have of the same time is together,
// and counts can still be told apart by time.
func stretches(views []*View) []*stretch {
	var all []*stretch
	add := func(span Span, hour int64, s source) {
		span = max(span, SpanHour)
		i := slices.IndexFunc(all, func(g *stretch) bool { return g.span == span && g.hour == hour })
		if i < 0 {
			i = len(all)
			all = append(all, &stretch{span: span, hour: hour})
		}
		all[i].sources = append(all[i].sources, s)
	}
	for _, v := range views {
		for i, r := range v.readers {
			r.rewind()
			add(v.segments[i].Span, v.segments[i].Hour, r)
		}
		if len(v.recent) > 0 {
			recent := sliceSource(v.recent)
			add(SpanHour, v.recent[0].Last.hours(), &recent)
		}
	}
	return all
}

func mergeInto(dir string, fsid notify.ID, id uint64, sources []source) (Segment, error) {
	w, err := createSegment(segmentPath(dir, id), fsid)
	if err != nil {
		return Segment{}, err
	}
	if err := copyEntries(context.Background(), w, sources, nil); err != nil {
		w.abandon()
		return Segment{}, err
	}
	return w.finish()
}
