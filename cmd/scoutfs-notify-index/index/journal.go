// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// A journal is frames: length of the payload, its checksum, its kind, payload. It ends at
// the first frame that is not whole, which is one that was being written.
const (
	frameHead   = 4 + 4 + 1
	frameMax    = 1 << 20
	frameEvents = 'e' // events of 64 bytes each, as the socket has them
	frameNote   = 'n' // a Notice in JSON
)

// Notice is what the index itself adds to the stream. Zero fields say nothing.
type Notice struct {
	Host     string        `json:"host,omitempty"`
	Boot     string        `json:"boot,omitempty"`      // names the run of the machine
	Offset   time.Duration `json:"offset_ns,omitempty"` // of CLOCK_REALTIME to CLOCK_BOOTTIME
	Now      Millis        `json:"now,omitempty"`
	Sample   *Sample       `json:"sample,omitempty"`
	Excluded uint64        `json:"excluded,omitempty"` // accesses left out since the last one
	Sealed   bool          `json:"sealed,omitempty"`   // the journal ends here, and the next goes on
}

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, frameSum(kind, payload))
	b = append(b, kind)
	return append(b, payload...)
}

func frameSum(kind byte, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, payload)
}

// readJournal calls f for each whole frame, and returns how many bytes they are. What
// follows them is of no use: see Node.At for why nothing is lost with it silently.
func readJournal(path string, f func(kind byte, payload []byte) error) (whole int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<18)
	var head [frameHead]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return whole, endOfJournal(path, err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > frameMax {
			return whole, nil
		}
		if uint32(cap(buf)) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(r, buf); err != nil {
			return whole, endOfJournal(path, err)
		}
		kind := head[8]
		if binary.LittleEndian.Uint32(head[4:]) != frameSum(kind, buf) {
			return whole, nil
		}
		if err := f(kind, buf); err != nil {
			return whole, fmt.Errorf("read %s: %w", path, err)
		}
		whole += frameHead + int64(n)
	}
}

func endOfJournal(path string, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// log is what has been taken of the stream since a flush: the node as of then and the
// inodes that were accessed since.
type log struct {
	node   Node
	table  table
	sealed bool // the last that was taken says that the journal ends
	buf    []notify.Record
}

// replay takes what journals have. It returns how many of them count, and how many bytes
// of the last of those do: after a loss of power one may end early while the next does
// not, so a journal counts only if the one before it is whole.
func (l *log) replay(dir string, ids []uint64) (n int, whole int64, err error) {
	for _, id := range ids {
		path := journalPath(dir, id)
		l.sealed = false
		if whole, err = readJournal(path, l.take); err != nil {
			return n, 0, err
		}
		n++
		fi, err := os.Stat(path)
		if err != nil {
			return n, 0, err
		}
		if fi.Size() > whole || !l.sealed {
			break
		}
	}
	return n, whole, nil
}

// take applies a frame.
func (l *log) take(kind byte, payload []byte) error {
	l.sealed = false
	switch kind {
	case frameEvents:
		recs, err := notify.Decode(l.buf[:0], payload)
		if err != nil {
			return err
		}
		l.buf = recs
		for i := range recs {
			l.event(&recs[i])
		}
	case frameNote:
		var n Notice
		if err := json.Unmarshal(payload, &n); err != nil {
			return err
		}
		l.note(&n)
	default:
		return fmt.Errorf("a frame of kind %q: a newer scoutfs-notify-index wrote it", kind)
	}
	return nil
}

func (l *log) event(rec *notify.Record) {
	if rec.Type.IsControl() {
		if ev := rec.Control(); ev != nil {
			l.node.event(ev)
		}
		return
	}
	l.node.event(rec)
	if isAccess(rec) { // earlier releases wrote others, too
		l.node.Records++
		l.table.add(rec)
	}
}

func (l *log) note(n *Notice) {
	if n.Host != "" {
		l.node.Host = n.Host
	}
	if n.Boot != "" {
		l.node.tick(n.Boot, n.Offset, n.Now)
	}
	if n.Sample != nil {
		l.node.sample(*n.Sample)
	}
	l.node.Excluded += n.Excluded
	l.sealed = n.Sealed
}
