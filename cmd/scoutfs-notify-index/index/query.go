// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Walk calls f for each regular file whose data were last changed in a transaction up to
// seq, in any order.
type Walk func(seq uint64, f func(ino uint64)) error

const everything = ^uint64(0) // a transaction after all others

// listAll returns what walk finds, sorted.
func listAll(walk Walk, seq uint64) ([]uint64, error) {
	var inos []uint64
	if err := walk(seq, func(ino uint64) { inos = append(inos, ino) }); err != nil {
		return nil, err
	}
	slices.Sort(inos)
	return slices.Compact(inos), nil
}

// ErrShort: observation began too late to call anything cold.
var ErrShort = errors.New("not observed for long enough")

// ErrNoSample: there is no transaction number from the time asked about.
var ErrNoSample = errors.New("it is not known which files are that old")

// Cold calls f for each file that was not accessed since cutoff, as far as some stores
// know, in the order of inode numbers. seen is false for one that was never accessed while
// observed; then only the number of the entry is set. It returns how many files walk had
// to offer.
//
// A file is cold if it was last written, and so made, before cutoff, and no store has an
// access since. A number of an inode is never used again on the same ScoutFS, so the
// number alone says which file it is. All that was accessed since must have been seen by a
// store, for it to be proven: see [Doubts].
//
// The error is [ErrShort] if a node was not observed at cutoff, [ErrNoSample], that of
// walk, that of f, or of reading a store.
func Cold(views []*View, cutoff Millis, walk Walk, f func(e *Entry, seen bool) error) (files int, err error) {
	seq, err := newestBefore(views, cutoff)
	if err != nil {
		return 0, err
	}
	inos, err := listAll(walk, seq)
	if err != nil {
		return 0, err
	}
	files = len(inos)

	// unseen is for all before ino, of which no store has an access.
	const noInode = ^uint64(0) // no inode's number
	unseen := func(ino uint64) error {
		for len(inos) > 0 && inos[0] < ino {
			if err := f(&Entry{Ino: inos[0]}, false); err != nil {
				return err
			}
			inos = inos[1:]
		}
		return nil
	}
	err = All(views, func(e *Entry) error {
		if err := unseen(e.Ino); err != nil {
			return err
		}
		if len(inos) == 0 || inos[0] != e.Ino {
			return nil // deleted, or written since
		}
		inos = inos[1:]
		if Latest(views, e.Last) >= cutoff {
			return nil
		}
		return f(e, true)
	})
	if err == nil {
		err = unseen(noInode)
	}
	return files, err
}

// newestBefore returns the newest transaction that was committed before cutoff, when all
// nodes were observed already.
func newestBefore(views []*View, cutoff Millis) (seq uint64, err error) {
	known := false
	for _, v := range views {
		for i := range v.Nodes {
			n := &v.Nodes[i]
			if n.Since == 0 || n.latest(n.Since) > cutoff {
				return 0, fmt.Errorf("%w: %s since %v, and not since %v", ErrShort, cmp.Or(n.Host, v.Dir), n.Since, cutoff)
			}
			if s, ok := n.committed(cutoff); ok {
				seq, known = max(seq, s), true
			}
		}
	}
	if !known {
		return 0, fmt.Errorf("%w: no store asked ScoutFS for its newest transaction before %v", ErrNoSample, cutoff)
	}
	return seq, nil
}

// Latest returns when an access can have been at the latest that some store has at t: the
// clock may have been behind, and set later.
func Latest(views []*View, t Millis) Millis {
	out := t
	for _, v := range views {
		for i := range v.Nodes {
			out = max(out, v.Nodes[i].latest(t))
		}
	}
	return out
}

// ErrCoarse: what happened then is not told apart from what was before it any more.
var ErrCoarse = errors.New("counts are not kept for that long")

// Hot returns the inodes that were accessed since t, with what happened to them since
// then, the one for which by is the largest first. Counts are kept by hour and later by
// day, so they may start earlier than t: at the time that is returned.
func Hot(views []*View, t Millis, by func(*Entry) uint64) (all []Entry, from Millis, err error) {
	from = forever
	for _, v := range views {
		for _, s := range v.segments {
			if s.Last < t {
				continue
			}
			if s.Span == SpanAll {
				return nil, 0, fmt.Errorf("%w: by hour or day only since %v", ErrCoarse, s.Last)
			}
			from = min(from, s.First)
		}
		for i := range v.recent {
			from = min(from, v.recent[i].First)
		}
	}
	err = since(views, t, func(e *Entry) error {
		if by(e) > 0 {
			all = append(all, *e)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(cmp.Compare(by(&b), by(&a)), cmp.Compare(a.Ino, b.Ino)) })
	return all, from, err
}
