// SPDX-License-Identifier: GPL-2.0-only

package recording

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// FlushTime is how old an event may become before it is in the file.
const FlushTime = time.Second

// maxText is the length of the longest name, in bytes. Longer ones are left out.
const maxText = 1<<16 - 1

// Writer appends events to a file. Its methods are safe for concurrent use.
type Writer struct {
	mu    sync.Mutex
	f     *os.File
	enc   *zstd.Encoder
	size  int64 // of the file
	begun time.Time
	place place
	err   error // of a write; the file has whole blocks only

	events []byte
	count  uint32
	names  []byte
	have   map[name]string // the names of this block, "" if one is not known
	next   []named         // of the event that is written next
	out    []byte
	timer  *time.Timer
}

// name is what a text belongs to.
type name struct {
	kind Kind
	id   uint64
}

type named struct {
	name
	text string
}

// Append opens a recording to go on with, or makes a new file. What a killed recorder
// left of its last block is cut off. Events are in the file at the latest after
// [FlushTime].
//
// The error is [ErrFormat] or [ErrVersion] for a file that this package cannot go on
// with, [ErrDamaged], or the system's; it is [unix.EWOULDBLOCK] while another Writer has
// the file.
func Append(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // it says who read what
	if err != nil {
		return nil, err
	}
	w, err := appendTo(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("append to recording %s: %w", path, err)
	}
	return w, nil
}

func appendTo(f *os.File) (*Writer, error) {
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another process records to it: %w", err)
		}
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, enc: enc, begun: time.Now(), have: make(map[name]string)}
	if err := w.findEnd(); err != nil {
		return nil, err
	}
	w.timer = time.AfterFunc(time.Hour, func() { w.Flush() }) // the next call has the error, too
	w.timer.Stop()
	return w, nil
}

// findEnd goes to the end of the last whole block of the file, and makes it the file's.
func (w *Writer) findEnd() error {
	var err error
	w.size, w.place.Resume, err = scan(w.f)
	if err != nil {
		return err
	}
	if err := w.f.Truncate(w.size); err != nil {
		return err
	}
	if _, err := w.f.Seek(w.size, io.SeekStart); err != nil {
		return err
	}
	if w.size > 0 {
		return nil
	}
	return w.write(appendHeader(nil))
}

// Place returns where the recording has come to; the zero value if it has no events.
// To go on from there, connect with it as [notify.Dialer.Resume]: what was missed is a
// [notify.Lost] then.
func (w *Writer) Place() notify.Resume {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.place.Resume
}

// Skip accounts for the access with a number, which is left out: it is not missing.
func (w *Writer) Skip(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place.follow(&notify.Record{Seq: seq})
}

// Follow has a new recording go on where another one has come to, so that a loss is not
// forgotten of which that one was not told yet. What it returns is the Hello of the stream
// that goes on, to be written first: each file says whose it is. It is nil if there was no
// stream.
func (w *Writer) Follow(other *Writer) *notify.Hello {
	other.mu.Lock()
	at := other.place
	other.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place = at
	return at.again()
}

// Size returns how large the file is, in bytes, without what was not flushed.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Age returns how long ago this Writer was made.
func (w *Writer) Age() time.Duration { return time.Since(w.begun) }

// Name says what a number stands for in the event that is written next; "" if that is
// not known. A text of more than 65,535 bytes is not known either.
func (w *Writer) Name(kind Kind, id uint64, text string) {
	if len(text) > maxText {
		text = ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = append(w.next, named{name{kind, id}, text})
}

// addNames adds the names of the event that is written next. The names of a block belong
// to all its events, so it may have to be another.
func (w *Writer) addNames() error {
	size := len(w.events) + notify.RecordSize + len(w.names)
	other := false
	for _, n := range w.next {
		had, ok := w.have[n.name]
		other = other || ok && had != n.text
		size += 11 + len(n.text)
	}
	if other || size > blockBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	for _, n := range w.next {
		if _, ok := w.have[n.name]; ok {
			continue
		}
		w.have[n.name] = n.text
		if n.text != "" {
			w.names = append(w.names, byte(n.kind))
			w.names = ne.AppendUint64(w.names, n.id)
			w.names = ne.AppendUint16(w.names, uint16(len(n.text)))
			w.names = append(w.names, n.text...)
		}
	}
	w.next = w.next[:0]
	return nil
}

// Write adds an event. A [notify.Waiting] is not written: the End before it and the
// Hello after it say the same. The error is that of writing the file: nothing can be
// added then.
func (w *Writer) Write(ev notify.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, ok := ev.(encoding.BinaryAppender)
	if !ok || w.err != nil {
		return w.err
	}
	if err := w.addNames(); err != nil {
		return err
	}
	if w.count == 0 {
		w.timer.Reset(FlushTime)
	}
	w.events, _ = b.AppendBinary(w.events) // it always succeeds
	w.count++
	w.place.follow(ev)
	if w.count == blockEvents {
		return w.flush()
	}
	return nil
}

// Flush writes what was added to the file. It does not wait for the disk.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Writer) flush() error {
	if w.err == nil && w.count > 0 {
		w.err = w.writeBlock()
	}
	w.timer.Stop()
	w.events, w.names, w.count = w.events[:0], w.names[:0], 0
	clear(w.have)
	return w.err
}

func (w *Writer) writeBlock() error {
	raw := append(w.events, w.names...)
	payload := w.enc.EncodeAll(raw, nil)
	b := block{size: uint32(len(payload)), count: w.count, raw: uint32(len(raw)), place: w.place.Resume}
	w.out = b.append(w.out[:0], payload)
	return w.write(w.out)
}

// write adds bytes to the file: all or none.
func (w *Writer) write(b []byte) error {
	if _, err := w.f.Write(b); err != nil {
		if terr := w.f.Truncate(w.size); terr != nil {
			err = errors.Join(err, terr)
		}
		return fmt.Errorf("write recording: %w", err)
	}
	w.size += int64(len(b))
	return nil
}

// Close writes what was added, marks the end, waits until the disk has it, and closes
// the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	if err == nil {
		end := block{place: w.place.Resume}
		err = w.write(end.append(nil, nil))
	}
	w.err = cmp.Or(err, os.ErrClosed)
	if serr := w.f.Sync(); err == nil {
		err = serr
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// PlaceOf returns where the recording in a file has come to, as [Writer.Place] does.
func PlaceOf(path string) (notify.Resume, error) {
	f, err := os.Open(path)
	if err != nil {
		return notify.Resume{}, err
	}
	defer f.Close()
	_, at, err := scan(f)
	if err != nil {
		return at, fmt.Errorf("read recording %s: %w", path, err)
	}
	return at, nil
}

// scan returns where the last whole block of a file ends, and the place that it has. It
// reads the headers of the blocks alone, and all of the last.
func scan(f *os.File) (end int64, at notify.Resume, err error) {
	total, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, at, err
	}
	for end < total {
		n, err := step(f, end, total, &at)
		if err == errCut {
			break
		}
		if err != nil {
			return 0, at, err
		}
		end += n
	}
	return end, at, nil
}

// errCut: the file ends before the header or block that it has there.
var errCut = errors.New("cut off")

// step returns how many bytes the header or block has that is at an offset of a file, and
// sets the place to the block's.
func step(f *os.File, off, total int64, at *notify.Resume) (int64, error) {
	h := make([]byte, min(blockHeaderSize, total-off))
	if _, err := f.ReadAt(h, off); err != nil {
		return 0, err
	}
	if off == 0 || len(h) >= len(magic) && string(h[:len(magic)]) == magic {
		switch {
		case len(h) < headerSize && off == 0:
			return 0, ErrFormat
		case len(h) < headerSize:
			return 0, errCut
		}
		return headerSize, checkHeader(h)
	}
	if len(h) < blockHeaderSize {
		return 0, errCut
	}
	b, ok := parseBlock(h)
	if !ok {
		return 0, fmt.Errorf("%w at byte %d", ErrDamaged, off)
	}
	n := blockHeaderSize + int64(b.size)
	if off+n > total {
		return 0, errCut
	}
	if off+n == total {
		payload := make([]byte, b.size)
		if _, err := f.ReadAt(payload, off+blockHeaderSize); err != nil {
			return 0, err
		}
		if !intact(h, payload) {
			return 0, fmt.Errorf("%w at byte %d", ErrDamaged, off)
		}
	}
	*at = b.place
	return n, nil
}
