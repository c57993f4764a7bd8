// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Version is the format of the store's files. A store of a newer one is left alone.
const Version = 1

// Errors of opening a store, to be tested for with [errors.Is].
var (
	ErrForeign = errors.New("the store is of another file system")
	ErrNewer   = errors.New("a newer scoutfs-notify-index wrote the store")
	ErrMerged  = errors.New("the store was made by merging others, and cannot be added to")
)

// manifest is the file of that name: a line with the checksum, and JSON.
type manifest struct {
	Version  int       `json:"version"`
	FSID     notify.ID `json:"fsid"`
	Merged   bool      `json:"merged"`
	Next     uint64    `json:"next"`    // number for a new file
	Journal  uint64    `json:"journal"` // the first that counts; all after it do, too
	Segments []Segment `json:"segments"`
	Nodes    []Node    `json:"nodes"` // one, but in a merged store; as of the first journal's start
	Kept     Kept      `json:"kept"`
	Vacuumed Vacuumed  `json:"vacuumed"`
}

// Kept is how long the process that wrote a store last keeps what; see [Limits].
type Kept struct {
	Hours time.Duration `json:"hours_ns"`
	Days  time.Duration `json:"days_ns"`
	All   time.Duration `json:"all_ns"` // 0: for ever
}

// Segment is what the manifest says of a file of entries.
type Segment struct {
	ID      uint64 `json:"id"`
	Span    Span   `json:"span"`
	Tier    int    `json:"tier"` // of SpanFlush: how often it was merged
	Hour    int64  `json:"hour"` // since 1970, of its start
	Entries uint64 `json:"entries"`
	Size    int64  `json:"bytes"`
	First   Millis `json:"first"` // access
	Last    Millis `json:"last"`  // access
}

// Span is how long a stretch of time a segment is of.
type Span int

// The spans.
const (
	SpanFlush Span = iota // of one flush or some, within an hour
	SpanHour
	SpanDay
	SpanAll // all that is older
)

const (
	manifestName = "manifest"
	lockName     = "lock"
	manifestHead = "scoutfs-notify-index crc32c=%08x\n"
)

func segmentPath(dir string, id uint64) string {
	return filepath.Join(dir, fmt.Sprintf("seg-%016x", id))
}
func journalPath(dir string, id uint64) string {
	return filepath.Join(dir, fmt.Sprintf("journal-%016x", id))
}

// readManifest reads a store's manifest. fsid 0 is any file system.
func readManifest(dir string, fsid notify.ID) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var sum uint32
	line, body, ok := bytes.Cut(b, []byte("\n"))
	if _, err := fmt.Sscanf(string(line)+"\n", manifestHead, &sum); err != nil || !ok {
		return nil, damaged(path, "it is not a manifest of scoutfs-notify-index")
	}
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, damaged(path, "its checksum is wrong")
	}
	// Before the rest, which a newer version may have in another form.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, damaged(path, err.Error())
	}
	if v.Version > Version {
		return nil, fmt.Errorf("read %s: %w: version %d, and this is %d", path, ErrNewer, v.Version, Version)
	}
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, damaged(path, err.Error())
	}
	if len(m.Nodes) == 0 || len(m.Nodes) > 1 && !m.Merged {
		return nil, damaged(path, "it names no node, or more than one")
	}
	if fsid != 0 && m.FSID != fsid {
		return nil, fmt.Errorf("read %s: %w: %v, not %v", path, ErrForeign, m.FSID, fsid)
	}
	return &m, nil
}

// write replaces the store's manifest. An error leaves the old one. Without one the new one
// counts, although only [syncDir] makes that last.
func (m *manifest) write(dir string) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b := fmt.Appendf(nil, manifestHead, crc32.Checksum(body, castagnoli))
	return replaceFile(filepath.Join(dir, manifestName), append(b, body...))
}

// replaceFile replaces a file, as a whole or not at all. That the folder is not synced is
// not its business: what fails after the rename has not left the old file.
func replaceFile(path string, b []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// syncDir makes the names in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openSegments opens segments that a manifest names, oldest first. The caller closes what
// it gets, also when there is an error.
func openSegments(dir string, fsid notify.ID, list []Segment) (readers []*segmentReader, err error) {
	for _, s := range list {
		path := segmentPath(dir, s.ID)
		r, err := openSegment(path, fsid)
		if errors.Is(err, os.ErrNotExist) {
			err = damaged(path, "it is missing, and the manifest names it")
		}
		if err != nil {
			return readers, err
		}
		readers = append(readers, r)
	}
	return readers, nil
}

func closeAll(readers []*segmentReader) {
	for _, r := range readers {
		r.close()
	}
}

// copyEntries merges sources into a segment, without the entries that keep does not want.
func copyEntries(ctx context.Context, w *segmentWriter, sources []source, keep func(*Entry) bool) error {
	m, err := newMerger(sources)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if i%blockEntries == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var e Entry
		switch err := m.read(&e); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if keep != nil && !keep(&e) {
			continue
		}
		if err := w.add(&e); err != nil {
			return err
		}
	}
}
