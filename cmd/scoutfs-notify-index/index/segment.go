// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sort"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// A segment is: a head; blocks of entries; one index entry for each block; a foot. All
// numbers are little endian. Head, blocks, and index with foot end in a checksum.
//
//	head   magic, fsid, checksum
//	block  length of all that follows up to the checksum, entries, first and newest (to
//	       which entries are relative), entries, checksum
//	index  first inode and offset of each block
//	foot   offset of the index, blocks, entries, checksum of index and foot
const (
	segmentMagic = "SNIXSEG1"
	segmentHead  = 8 + 8 + 4
	segmentFoot  = 8 + 8 + 8 + 4
	blockHead    = 4 + 4 + 8 + 8
	blockEntries = 1024
	blockMax     = blockHead + blockEntries*10*binary.MaxVarintLen64
	indexEntry   = 8 + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is an error of a file of a store that is not what was written to it.
var ErrDamaged = errors.New("the file is damaged")

func damaged(path, what string) error { return fmt.Errorf("read %s: %w: %s", path, ErrDamaged, what) }

// segmentWriter writes entries, which must come in the order of their numbers.
type segmentWriter struct {
	f       *os.File
	w       *bufio.Writer
	off     uint64
	index   []byte
	block   []Entry
	entries uint64
	first   Millis
	last    Millis
	buf     []byte
}

// createSegment makes the file, which must not exist. It counts once finish has returned.
func createSegment(path string, fsid notify.ID) (*segmentWriter, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w := &segmentWriter{f: f, w: bufio.NewWriterSize(f, 1<<18), block: make([]Entry, 0, blockEntries), first: forever}
	b := binary.LittleEndian.AppendUint64([]byte(segmentMagic), uint64(fsid))
	return w, w.write(b)
}

// write writes b and its checksum.
func (w *segmentWriter) write(b []byte) error {
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	w.off += uint64(len(b))
	_, err := w.w.Write(b)
	return err
}

func (w *segmentWriter) add(e *Entry) error {
	w.block = append(w.block, *e)
	if len(w.block) < blockEntries {
		return nil
	}
	return w.endBlock()
}

func (w *segmentWriter) endBlock() error {
	if len(w.block) == 0 {
		return nil
	}
	le := binary.LittleEndian
	first, newest := w.block[0].Ino, w.block[0].Last
	for i := range w.block {
		newest = max(newest, w.block[i].Last)
		w.first = min(w.first, w.block[i].First)
	}
	w.last = max(w.last, newest)
	w.index = le.AppendUint64(w.index, first)
	w.index = le.AppendUint64(w.index, w.off)
	b := append(w.buf[:0], 0, 0, 0, 0)
	b = le.AppendUint32(b, uint32(len(w.block)))
	b = le.AppendUint64(b, first)
	b = le.AppendUint64(b, uint64(newest))
	prev := first
	for i := range w.block {
		b = appendEntry(b, &w.block[i], prev, newest)
		prev = w.block[i].Ino
	}
	le.PutUint32(b, uint32(len(b)))
	w.buf = b
	w.entries += uint64(len(w.block))
	w.block = w.block[:0]
	return w.write(b)
}

// finish makes the segment durable and returns what the manifest says of it. The writer
// cannot be used after that, whatever it returns.
func (w *segmentWriter) finish() (s Segment, err error) {
	defer func() { err = errors.Join(err, w.f.Close()) }()
	if err := w.endBlock(); err != nil {
		return s, err
	}
	le := binary.LittleEndian
	s = Segment{Entries: w.entries, First: w.first, Last: w.last}
	at, blocks := w.off, uint64(len(w.index)/indexEntry)
	b := le.AppendUint64(w.index, at)
	b = le.AppendUint64(b, blocks)
	b = le.AppendUint64(b, w.entries)
	if err := w.write(b); err != nil {
		return s, err
	}
	s.Size = int64(w.off)
	if err := w.w.Flush(); err != nil {
		return s, err
	}
	return s, w.f.Sync()
}

// abandon deletes what was written.
func (w *segmentWriter) abandon() {
	w.f.Close()
	os.Remove(w.f.Name())
}

// segmentReader reads a segment. It is for one goroutine.
type segmentReader struct {
	f     *os.File
	path  string
	index []byte // checked
	end   uint64 // of the blocks
	next  int    // block that comes next
	buf   []byte

	block  []byte // what is left of it
	left   uint32 // entries
	prev   uint64
	newest Millis
}

func openSegment(path string, fsid notify.ID) (r *segmentReader, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := uint64(fi.Size())
	if size < segmentHead+segmentFoot {
		return nil, damaged(path, "too short")
	}
	le := binary.LittleEndian
	var head [segmentHead]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if string(head[:8]) != segmentMagic || !sealed(head[:]) {
		return nil, damaged(path, "its head is not that of a segment")
	}
	if id := notify.ID(le.Uint64(head[8:])); id != fsid {
		return nil, damaged(path, fmt.Sprintf("it is of the file system %v", id))
	}
	var foot [segmentFoot]byte
	if _, err := f.ReadAt(foot[:], int64(size-segmentFoot)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	at, blocks := le.Uint64(foot[:]), le.Uint64(foot[8:])
	if at < segmentHead || at > size-segmentFoot || blocks != (size-segmentFoot-at)/indexEntry || (size-segmentFoot-at)%indexEntry != 0 {
		return nil, damaged(path, "its index is not where it should be")
	}
	index := make([]byte, size-at)
	if _, err := f.ReadAt(index, int64(at)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !sealed(index) {
		return nil, damaged(path, "the checksum of its index is wrong")
	}
	return &segmentReader{f: f, path: path, index: index[:blocks*indexEntry], end: at}, nil
}

// sealed tells whether b ends in the checksum of what is before that.
func sealed(b []byte) bool {
	n := len(b) - 4
	return n >= 0 && crc32.Checksum(b[:n], castagnoli) == binary.LittleEndian.Uint32(b[n:])
}

func (r *segmentReader) close() { r.f.Close() }

func (r *segmentReader) blocks() int { return len(r.index) / indexEntry }

// offset returns where a block starts, or for the one after the last, where they end.
func (r *segmentReader) offset(i int) uint64 {
	if i == r.blocks() {
		return r.end
	}
	return binary.LittleEndian.Uint64(r.index[i*indexEntry+8:])
}

// load makes a block the one that read returns entries of.
func (r *segmentReader) load(i int) error {
	from, to := r.offset(i), r.offset(i+1)
	if from < segmentHead || to > r.end || to < from+blockHead+4 || to-from > blockMax+4 {
		return damaged(r.path, "its index is wrong")
	}
	if n := int(to - from); cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	b := r.buf[:to-from]
	if _, err := r.f.ReadAt(b, int64(from)); err != nil {
		return fmt.Errorf("read %s: %w", r.path, err)
	}
	le := binary.LittleEndian
	if !sealed(b) || le.Uint32(b) != uint32(len(b)-4) {
		return damaged(r.path, fmt.Sprintf("the checksum at byte %d is wrong", from))
	}
	r.next = i + 1
	r.left = le.Uint32(b[4:])
	r.prev = le.Uint64(b[8:])
	r.newest = Millis(le.Uint64(b[16:]))
	r.block = b[blockHead : len(b)-4]
	return nil
}

// rewind makes the first entry the next one.
func (r *segmentReader) rewind() { r.next, r.left = 0, 0 }

// read sets e to the next entry. The error is io.EOF after the last.
func (r *segmentReader) read(e *Entry) error {
	for r.left == 0 {
		if r.next == r.blocks() {
			return io.EOF
		}
		if err := r.load(r.next); err != nil {
			return err
		}
	}
	b, err := decodeEntry(r.block, e, r.prev, r.newest)
	if err != nil {
		return damaged(r.path, err.Error())
	}
	r.block, r.prev = b, e.Ino
	r.left--
	return nil
}

// find sets e to the entry of an inode, if there is one.
func (r *segmentReader) find(ino uint64, e *Entry) (bool, error) {
	first := func(i int) uint64 { return binary.LittleEndian.Uint64(r.index[i*indexEntry:]) }
	i := sort.Search(r.blocks(), func(i int) bool { return first(i) > ino }) - 1
	if i < 0 {
		return false, nil
	}
	if err := r.load(i); err != nil {
		return false, err
	}
	for r.left > 0 {
		if err := r.read(e); err != nil {
			return false, err
		}
		if e.Ino >= ino {
			return e.Ino == ino, nil
		}
	}
	return false, nil
}
