// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Files that were deleted stay in a store, as nothing tells of a deletion. Vacuum finds
// them, which asks ScoutFS, and leaves a list beside the segments; the process that writes
// the store takes it when it next merges, and drops them from what is older than all that
// is told apart by day. What is newer gets there in time, and counts are still asked about.

const (
	goneName   = "gone" // a segment, of which the numbers of inodes count
	vacuumLock = "vacuum.lock"
)

// ErrVacuum: another process looks for deleted inodes.
var ErrVacuum = errors.New("another vacuum runs")

// Vacuumed is what came of the last list of deleted inodes.
type Vacuumed struct {
	Time    Millis `json:"time"`    // when it was taken; 0: never
	Entries uint64 `json:"entries"` // that were dropped
}

// Vacuum finds the inodes that a store has in what it has from before the days that it
// tells apart, and that are deleted, and leaves a list of them for the [Store] that writes
// it. walk must list all regular files, and exists tell whether one that it did not list is
// there after all, as one can be that is written meanwhile. It returns how many inodes there
// were, and how many of them are deleted. The error is
// [ErrVacuum], that of walk or exists, or of the store, which it then leaves as it was.
//
// ScoutFS never uses the number of an inode again, so nothing is dropped that is anybody's.
func Vacuum(v *View, walk Walk, exists func(ino uint64) (bool, error)) (inodes, gone uint64, err error) {
	lock, err := lockFile(filepath.Join(v.Dir, vacuumLock))
	if errors.Is(err, ErrBusy) {
		err = fmt.Errorf("vacuum %s: %w", v.Dir, ErrVacuum)
	}
	if err != nil {
		return 0, 0, err
	}
	defer lock.Close()
	list, err := listAll(walk, everything)
	if err != nil {
		return 0, 0, err
	}
	path := filepath.Join(v.Dir, goneName)
	tmp := path + ".new"
	os.Remove(tmp) // of one that was killed
	w, err := createSegment(tmp, v.FSID)
	if err != nil {
		return 0, 0, err
	}
	for i, r := range v.readers {
		if v.segments[i].Span == SpanAll { // one, or none
			inodes, gone, err = listGone(w, r, list, exists)
		}
	}
	if err != nil || gone == 0 {
		w.abandon()
		return inodes, 0, err
	}
	if _, err = w.finish(); err == nil {
		// The folder is not synced: whatever that said, the list is there from now on, and
		// one that a loss of power takes costs nothing but the next vacuum.
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return 0, 0, err
	}
	return inodes, gone, nil
}

// listGone writes the inodes of a segment that are neither in a list nor there.
func listGone(w *segmentWriter, r *segmentReader, list []uint64, exists func(ino uint64) (bool, error)) (inodes, gone uint64, err error) {
	r.rewind()
	var e Entry
	for {
		if err := r.read(&e); err == io.EOF {
			return inodes, gone, nil
		} else if err != nil {
			return 0, 0, err
		}
		inodes++
		n, listed := slices.BinarySearch(list, e.Ino)
		if list = list[n:]; listed {
			continue
		}
		there, err := exists(e.Ino)
		if err == nil && !there {
			gone++
			err = w.add(&Entry{Ino: e.Ino})
		}
		if err != nil {
			return 0, 0, err
		}
	}
}

// planVacuum returns the job of taking a list of deleted inodes, if there is one.
func (s *Store) planVacuum(segments []Segment) (job, bool) {
	path := filepath.Join(s.dir, goneName)
	if _, err := os.Stat(path); err != nil {
		return job{}, false
	}
	for _, g := range segments {
		if g.Span == SpanAll {
			return job{from: []Segment{g}, into: Segment{Span: SpanAll}}, true
		}
	}
	os.Remove(path) // of what is not there any more
	return job{}, false
}

// dropper decides what a merge does not keep: in what is older than all that is told apart,
// inodes that were not accessed for [Limits].Keep, and deleted ones.
type dropper struct {
	oldest Millis
	node   *Node          // the steps of its clock
	gone   *segmentReader // the list of deleted inodes, nil for none
	next   Entry          // of that
	err    error          // of reading it; io.EOF at the end
	count  uint64         // deleted inodes that were dropped
}

func (s *Store) newDropper(span Span, t *times) (*dropper, error) {
	d := &dropper{node: &t.node}
	if span != SpanAll {
		return d, nil
	}
	if s.limits.Keep > 0 {
		d.oldest = t.steady.plus(-s.limits.Keep)
	}
	path := filepath.Join(s.dir, goneName)
	r, err := openSegment(path, s.fsid)
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		// It can be made again, and would be in the way of each merge.
		return nil, errors.Join(fmt.Errorf("the list of deleted inodes is ignored: %w", err), os.Remove(path))
	}
	d.gone = r
	d.err = r.read(&d.next)
	return d, nil
}

// keep tells whether an entry is kept. To be called in the order of the numbers.
func (d *dropper) keep(e *Entry) bool {
	if e.Last < d.oldest && d.node.latest(e.Last) < d.oldest { // the clock may have been behind
		return false
	}
	if d.gone == nil {
		return true
	}
	for d.err == nil && d.next.Ino < e.Ino {
		d.err = d.gone.read(&d.next)
	}
	if d.err != nil || d.next.Ino != e.Ino {
		return true
	}
	d.count++
	return false
}

// note writes down what was dropped.
func (d *dropper) note(m *manifest, now Millis) {
	if d.oldest > 0 {
		m.Nodes[0].forget(d.oldest)
	}
	if d.gone != nil {
		m.Vacuumed = Vacuumed{Time: now, Entries: d.count}
	}
}

// done removes the list, unless there is a newer one. The error is also that of reading
// it; what was dropped until then was right.
func (d *dropper) done() error {
	if d.gone == nil {
		return nil
	}
	mine, err := d.gone.f.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(d.gone.path)
	if err == nil && os.SameFile(mine, now) {
		err = os.Remove(d.gone.path)
	}
	if d.err != nil && d.err != io.EOF {
		err = errors.Join(d.err, err)
	}
	return err
}

func (d *dropper) close() {
	if d.gone != nil {
		d.gone.close()
	}
}
