// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// View is a store as it was at one moment. It is for one goroutine, and needs no lock: the
// store can be written meanwhile.
type View struct {
	Dir   string
	FSID  notify.ID
	Nodes []Node

	Kept     Kept     // zero for a merged store
	Vacuumed Vacuumed // likewise

	segments []Segment
	readers  []*segmentReader
	recent   []Entry // of the journals, sorted
}

// OpenView opens stores to be looked at, of one file system: fsid, unless that is 0. The
// error is [ErrForeign], [ErrNewer], [ErrDamaged], or the system's.
func OpenView(dir string, fsid notify.ID) (*View, error) {
	// The store may have been flushed or merged between looking at two of its files.
	const tries = 20
	var err error
	for range tries {
		var v *View
		if v, err = openView(dir, fsid); err == nil {
			return v, nil
		}
		if !errors.Is(err, errMoved) && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(dir, manifestName)); err != nil {
			return nil, fmt.Errorf("open the store %s: %w", dir, err)
		}
	}
	return nil, err
}

var errMoved = errors.New("the store changed all the time while it was opened")

func openView(dir string, fsid notify.ID) (*View, error) {
	m, err := readManifest(dir, fsid)
	if err != nil {
		return nil, err
	}
	v := &View{Dir: dir, FSID: m.FSID, Nodes: m.Nodes, Kept: m.Kept, Vacuumed: m.Vacuumed, segments: m.Segments}
	if err := v.load(m); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// load opens what a manifest names, if the store is still as that says afterwards.
func (v *View) load(m *manifest) (err error) {
	v.readers, err = openSegments(v.Dir, m.FSID, m.Segments)
	if err != nil {
		// A merge may have removed it since, and the manifest not name it any more.
		if e := unmoved(v.Dir, m); e != nil {
			return e
		}
		return err
	}
	if !m.Merged {
		l := log{node: m.Nodes[0]}
		ids, err := journals(v.Dir, m.Journal)
		if err != nil {
			return err
		}
		if _, _, err := l.replay(v.Dir, ids); err != nil {
			return err
		}
		v.Nodes[0], v.recent = l.node, l.table.sorted()
	}
	return unmoved(v.Dir, m)
}

// unmoved tells whether a store still has the files that a manifest of it names; the error is
// errMoved if not.
func unmoved(dir string, m *manifest) error {
	after, err := readManifest(dir, m.FSID)
	if err != nil {
		return err
	}
	if after.Journal != m.Journal || !reflect.DeepEqual(after.Segments, m.Segments) {
		return errMoved
	}
	return nil
}

// Close closes the files.
func (v *View) Close() { closeAll(v.readers) }

// sources returns all sources, from their start, but for segments without an access
// from t on.
func (v *View) sources(t Millis) []source {
	var out []source
	for i, r := range v.readers {
		if v.segments[i].Last < t {
			continue
		}
		r.rewind()
		out = append(out, r)
	}
	recent := sliceSource(v.recent)
	return append(out, &recent)
}

// All calls f for each inode of some stores, in the order of their numbers, until f
// returns an error, which it returns.
func All(views []*View, f func(*Entry) error) error { return since(views, 0, f) }

// since is All without the segments that have no access from t on.
func since(views []*View, t Millis, f func(*Entry) error) error {
	var sources []source
	for _, v := range views {
		sources = append(sources, v.sources(t)...)
	}
	m, err := newMerger(sources)
	if err != nil {
		return err
	}
	var e Entry
	for {
		switch err := m.read(&e); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		if err := f(&e); err != nil {
			return err
		}
	}
}

// Find returns what is known of an inode in some stores; false if it was never seen.
func Find(views []*View, ino uint64) (sum Entry, ok bool, err error) {
	add := func(e *Entry) {
		if !ok {
			sum, ok = *e, true
			return
		}
		sum.add(e)
	}
	for _, v := range views {
		for _, r := range v.readers {
			var e Entry
			found, err := r.find(ino, &e)
			if err != nil {
				return Entry{}, false, err
			}
			if found {
				add(&e)
			}
		}
		for i := range v.recent {
			if v.recent[i].Ino == ino {
				add(&v.recent[i])
			}
		}
	}
	return sum, ok, nil
}

// Segments returns what is in files.
func (v *View) Segments() []Segment { return v.segments }

// Recent returns how many inodes were accessed since the last flush.
func (v *View) Recent() int { return len(v.recent) }
