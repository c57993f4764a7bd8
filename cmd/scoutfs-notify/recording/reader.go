// SPDX-License-Identifier: GPL-2.0-only

package recording

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/klauspost/compress/zstd"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Reader reads a recording. Only one goroutine may use it at a time.
type Reader struct {
	title string
	r     *bufio.Reader
	c     io.Closer // nil if there is none
	dec   *zstd.Decoder

	off    int64 // of what is read next
	closed bool  // the last block was an orderly end, or there was none
	place  notify.Resume

	payload, raw []byte
	recs         []notify.Record
	texts        map[name]string
}

// Is tells whether a file is a recording, by its first bytes, or one of a release that
// this one cannot read. It is false if the file cannot be opened or is not regular.
func Is(path string) bool {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, len(magic))
	_, err = io.ReadFull(f, b)
	return err == nil && string(b) == magic
}

// Open opens a recording. The error is [ErrFormat], [ErrVersion], or the system's.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.c = f
	return r, nil
}

// NewReader reads a recording from r. The title is for errors, which are those of [Open].
func NewReader(r io.Reader, title string) (*Reader, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockBytes))
	if err != nil {
		return nil, err
	}
	rd := &Reader{title: title, r: bufio.NewReaderSize(r, 1<<16), dec: dec, closed: true, texts: make(map[name]string)}
	var h [headerSize]byte
	if _, err := io.ReadFull(rd.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrFormat
		}
		return nil, fmt.Errorf("read %s: %w", title, err)
	}
	if err := checkHeader(h[:]); err != nil {
		return nil, fmt.Errorf("read %s: %w", title, err)
	}
	rd.off = headerSize
	return rd, nil
}

// Close closes the file that Open has opened.
func (r *Reader) Close() error {
	r.dec.Close()
	if r.c == nil {
		return nil
	}
	return r.c.Close()
}

// Events yields the events in the order in which they were written. What is yielded is
// valid until the next iteration: copy a *[notify.Record] to keep it. The last may be an
// error: [ErrUnfinished], [ErrDamaged], the context's, or the system's.
func (r *Reader) Events(ctx context.Context) iter.Seq2[notify.Event, error] {
	return func(yield func(notify.Event, error) bool) {
		for {
			err := ctx.Err()
			if err == nil {
				err = r.next()
			}
			switch {
			case err == io.EOF:
				return
			case err != nil:
				yield(nil, fmt.Errorf("read %s: %w", r.title, err))
				return
			}
			if !r.yield(yield) {
				return
			}
		}
	}
}

// yield yields the events of a block, and returns whether more are wanted.
func (r *Reader) yield(yield func(notify.Event, error) bool) bool {
	for i := range r.recs {
		ev := notify.Event(&r.recs[i])
		if r.recs[i].Type.IsControl() {
			ev = r.recs[i].Control()
		}
		// nil is one of a later release
		if ev != nil && !yield(ev, nil) {
			return false
		}
	}
	return true
}

// Name returns what a number stood for when the event was made that Events has yielded
// last. ok is false if the recording does not say.
func (r *Reader) Name(kind Kind, id uint64) (text string, ok bool) {
	text, ok = r.texts[name{kind, id}]
	return text, ok
}

// next reads the next block with events. The error is io.EOF after an orderly end.
func (r *Reader) next() error {
	for {
		h, err := r.header()
		if err != nil || h == nil {
			if err != nil {
				return err
			}
			continue
		}
		b, ok := parseBlock(h)
		if !ok {
			return fmt.Errorf("%w at byte %d", ErrDamaged, r.off)
		}
		var header [blockHeaderSize]byte
		copy(header[:], h)
		r.r.Discard(blockHeaderSize) // it is buffered
		if cap(r.payload) < int(b.size) {
			r.payload = make([]byte, b.size)
		}
		r.payload = r.payload[:b.size]
		if _, err := io.ReadFull(r.r, r.payload); err != nil {
			return r.cut(err)
		}
		if !intact(header[:], r.payload) {
			return fmt.Errorf("%w at byte %d", ErrDamaged, r.off)
		}
		if err := r.open(b); err != nil {
			return fmt.Errorf("%w at byte %d: %w", ErrDamaged, r.off, err)
		}
		r.off += blockHeaderSize + int64(b.size)
		r.closed, r.place = b.count == 0, b.place
		if b.count > 0 {
			return nil
		}
	}
}

// header returns the next block's header, or nil after it has skipped one of a file.
func (r *Reader) header() ([]byte, error) {
	h, err := r.r.Peek(headerSize)
	switch {
	case len(h) == 0 && err == io.EOF && r.closed:
		return nil, io.EOF
	case err != nil:
		return nil, r.cut(err)
	case string(h[:len(magic)]) == magic:
		if err := checkHeader(h); err != nil {
			return nil, err
		}
		r.r.Discard(headerSize) // it is buffered
		r.off += headerSize
		return nil, nil
	}
	h, err = r.r.Peek(blockHeaderSize)
	if err != nil {
		return nil, r.cut(err)
	}
	return h, nil
}

// cut returns the error for a file that ends too early.
func (r *Reader) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w; it was read up to byte %d", ErrUnfinished, r.off)
	}
	return err
}

// open decompresses a block's payload.
func (r *Reader) open(b block) (err error) {
	r.recs = r.recs[:0]
	clear(r.texts)
	if b.count == 0 {
		if b.size != 0 || b.raw != 0 {
			return errors.New("an end with a payload")
		}
		return nil
	}
	if r.raw, err = r.dec.DecodeAll(r.payload, r.raw[:0]); err != nil {
		return err
	}
	if len(r.raw) != int(b.raw) {
		return fmt.Errorf("%d bytes, not %d", len(r.raw), b.raw)
	}
	events := int(b.count) * notify.RecordSize
	if r.recs, err = notify.Decode(r.recs, r.raw[:events]); err != nil {
		return err
	}
	return r.parseNames(r.raw[events:])
}

func (r *Reader) parseNames(b []byte) error {
	const fixed = 1 + 8 + 2
	for len(b) > 0 {
		if len(b) < fixed || len(b) < fixed+int(ne.Uint16(b[9:])) {
			return errors.New("a name that is cut off")
		}
		n := fixed + int(ne.Uint16(b[9:]))
		r.texts[name{Kind(b[0]), ne.Uint64(b[1:])}] = string(b[fixed:n])
		b = b[n:]
	}
	return nil
}
