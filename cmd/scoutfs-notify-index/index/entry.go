// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"encoding/binary"
	"errors"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Entry is what is known of one inode, in some stretch of time or in all.
type Entry struct {
	Ino         uint64
	First, Last Millis // of the accesses
	Opens       uint64 // for execution and mapping, too
	Reads       uint64
	Bytes       uint64 // that were read

	// Of the last access.
	UID, GID, PID uint32
	Type          notify.Type
}

// isAccess tells whether a record is of an access. Those of other types, which a later
// kernel module may have, say only how far the stream has got.
func isAccess(rec *notify.Record) bool {
	return rec.Type == notify.TypeOpen || rec.Type == notify.TypeRead
}

// access returns an entry of one access.
func access(rec *notify.Record) Entry {
	e := Entry{
		Ino: rec.Ino, First: millisOf(rec.TimeNS), Last: millisOf(rec.TimeNS),
		UID: rec.UID, GID: rec.GID, PID: rec.PID, Type: rec.Type,
	}
	if rec.Type == notify.TypeOpen {
		e.Opens = 1
	} else {
		e.Reads, e.Bytes = 1, rec.Length
	}
	return e
}

// add adds what happened to the same inode, later in the stream or on another node. The
// last access is the one with the newest time, not the last in the stream: where a clock
// was set back, a file is warm for too long rather than cold too early.
func (e *Entry) add(o *Entry) {
	e.First = min(e.First, o.First)
	if o.Last >= e.Last {
		e.Last, e.UID, e.GID, e.PID, e.Type = o.Last, o.UID, o.GID, o.PID, o.Type
	}
	e.Opens += o.Opens
	e.Reads += o.Reads
	e.Bytes += o.Bytes
}

// appendEntry encodes an entry after one with the inode number prev. newest is not before
// any time of the block.
func appendEntry(b []byte, e *Entry, prev uint64, newest Millis) []byte {
	b = binary.AppendUvarint(b, e.Ino-prev)
	b = binary.AppendUvarint(b, uint64(newest-e.Last))
	b = binary.AppendUvarint(b, uint64(e.Last-e.First))
	b = binary.AppendUvarint(b, e.Opens)
	b = binary.AppendUvarint(b, e.Reads)
	b = binary.AppendUvarint(b, e.Bytes)
	b = binary.AppendUvarint(b, uint64(e.UID))
	b = binary.AppendUvarint(b, uint64(e.GID))
	b = binary.AppendUvarint(b, uint64(e.PID))
	return binary.AppendUvarint(b, uint64(e.Type))
}

var errEntry = errors.New("an entry is cut short")

// decodeEntry is the reverse. It returns what follows.
func decodeEntry(b []byte, e *Entry, prev uint64, newest Millis) ([]byte, error) {
	var v [10]uint64
	for i := range v {
		if len(b) > 0 && b[0] < 0x80 { // most are that small
			v[i], b = uint64(b[0]), b[1:]
			continue
		}
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errEntry
		}
		v[i], b = x, b[n:]
	}
	*e = Entry{
		Ino: prev + v[0], Last: newest - Millis(v[1]), Opens: v[3], Reads: v[4], Bytes: v[5],
		UID: uint32(v[6]), GID: uint32(v[7]), PID: uint32(v[8]), Type: notify.Type(v[9]),
	}
	e.First = e.Last - Millis(v[2])
	return b, nil
}
