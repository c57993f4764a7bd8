// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// RecordSize is the size of one encoded record in bytes.
	RecordSize = 64

	// RingRecords is how many records a mount's ring in the kernel holds, and
	// so the most that one drain or one packet can have.
	RingRecords = 1024
)

// ErrShortRecord is returned for encoded records whose length is not a
// multiple of [RecordSize].
var ErrShortRecord = errors.New("length is not a multiple of the 64-byte record")

// Type says what a record is about.
type Type uint16

// The types that exist today. A program should skip any other, which a later
// kernel module may send.
const (
	// TypeOpen is the open of a regular file. Offset and Length are 0; it has a Comm.
	TypeOpen Type = 1

	// TypeRead is a read that returned data, one record for each system call: read,
	// pread, readv, sendfile, splice. Page faults of mapped files are not reads.
	TypeRead Type = 2
)

// String returns the type's name, such as "open", or "type" and the number, as in
// "type7".
func (t Type) String() string {
	switch t {
	case TypeOpen:
		return "open"
	case TypeRead:
		return "read"
	case TypeHello:
		return "hello"
	case TypeLost:
		return "lost"
	case TypeIdle:
		return "idle"
	case TypeEnd:
		return "end"
	}
	return fmt.Sprintf("type%d", uint16(t))
}

// MarshalText returns the same as String.
func (t Type) MarshalText() ([]byte, error) {
	return []byte(t.String()), nil
}

// Comm is the name of a thread as the kernel keeps it: up to 15 bytes, of any value, and 0
// from there on. A process has its command's, cut off there, as long as it does not call
// itself something else.
type Comm [16]byte

// String returns the name as it is, which need not be text.
func (c Comm) String() string {
	name, _, _ := strings.Cut(string(c[:]), "\x00")
	return name
}

// MarshalText returns the same as String.
func (c Comm) MarshalText() ([]byte, error) {
	return []byte(c.String()), nil
}

// FlagComm is set in the Flags of a record of [TypeOpen] that has a Comm.
const FlagComm = 1 << 0

// Record is one access to a file: struct scoutfs_notify_record of the kernel's
// notify_ioctl.h, which has Comm in the place of Offset and Length. The json names of the
// fields are the names there.
type Record struct {
	// Seq numbers the accesses of a mount while a reader is attached: 1 for the
	// first, one more for each that follows, whether or not there was room to
	// record it, and one more when another reader attaches. Contiguous numbers mean
	// that nothing was missed. A gap within one connection is the number of records
	// that were lost. One across a restart of the daemon also stands for any number
	// of accesses in between, which nobody numbered. The next mount starts at 1.
	Seq uint64 `json:"seq"`

	// TimeNS is when the record was made: nanoseconds since 1970-01-01 UTC by
	// the kernel's CLOCK_REALTIME, which can be set back. See Time.
	TimeNS uint64 `json:"time_ns"`

	// Ino is the file's inode number.
	Ino uint64 `json:"ino"`

	// Offset is the first byte read.
	Offset uint64 `json:"offset"`

	// Length is how many bytes were read; never 0 for TypeRead.
	Length uint64 `json:"length"`

	// PID is the process (thread group) in the initial PID namespace.
	PID uint32 `json:"pid"`

	// TID is the thread in the initial PID namespace.
	TID uint32 `json:"tid"`

	// UID is the file system user in the initial user namespace: the user on
	// whose behalf the access was made, so for a file server its client's.
	UID uint32 `json:"uid"`

	// GID is the file system group in the initial user namespace.
	GID uint32 `json:"gid"`

	// OpenFlags are the flags of the open file: as given to open(2) for TypeOpen,
	// with O_CREAT and O_TRUNC, and as they were at the time for TypeRead.
	OpenFlags uint32 `json:"open_flags"`

	// Type says whether it was an open or a read.
	Type Type `json:"type"`

	// Flags can have [FlagComm]. A later kernel module may set others.
	Flags uint16 `json:"flags"`

	// Comm is the name of the thread that opened the file, at that moment. Records of
	// TypeOpen have it, if Flags says so.
	Comm Comm `json:"comm,omitzero"`
}

// Time returns TimeNS as a time in UTC.
func (r *Record) Time() time.Time {
	const second = uint64(time.Second)
	return time.Unix(int64(r.TimeNS/second), int64(r.TimeNS%second)).UTC()
}

// Command returns the name of the process, if the record has it: if its first thread,
// whose name a process has, made an open. It is what /proc/PID/comm was at that moment,
// of commands that are gone, too. Otherwise it returns "".
func (r *Record) Command() string {
	if r.PID != r.TID {
		return ""
	}
	return r.Comm.String()
}

// hasComm tells whether an encoded record has a Comm.
func (r *Record) hasComm() bool { return r.Type == TypeOpen && r.Flags&FlagComm != 0 }

// AppendBinary appends the record's 64 bytes to b. The error is always nil.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	ne := binary.NativeEndian
	b = ne.AppendUint64(b, r.Seq)
	b = ne.AppendUint64(b, r.TimeNS)
	b = ne.AppendUint64(b, r.Ino)
	if r.hasComm() {
		b = append(b, r.Comm[:]...)
	} else {
		b = ne.AppendUint64(b, r.Offset)
		b = ne.AppendUint64(b, r.Length)
	}
	b = ne.AppendUint32(b, r.PID)
	b = ne.AppendUint32(b, r.TID)
	b = ne.AppendUint32(b, r.UID)
	b = ne.AppendUint32(b, r.GID)
	b = ne.AppendUint32(b, r.OpenFlags)
	b = ne.AppendUint16(b, uint16(r.Type))
	b = ne.AppendUint16(b, r.Flags)
	return b, nil
}

// MarshalBinary returns the record's 64 bytes. The error is always nil.
func (r *Record) MarshalBinary() ([]byte, error) {
	return r.AppendBinary(make([]byte, 0, RecordSize))
}

// UnmarshalBinary sets the record from b, which must be exactly [RecordSize]
// bytes or the error is [ErrShortRecord]. Any 64 bytes are a record: types and
// flags that this package does not know are kept, and all but what follows the end of
// a Comm.
//
// Records are in the byte order of the machine, which they do not leave.
func (r *Record) UnmarshalBinary(b []byte) error {
	if len(b) != RecordSize {
		return fmt.Errorf("decode record: %d bytes: %w", len(b), ErrShortRecord)
	}
	r.decode(b)
	return nil
}

func (r *Record) decode(b []byte) {
	_ = b[RecordSize-1]
	ne := binary.NativeEndian
	r.Seq = ne.Uint64(b[0:])
	r.TimeNS = ne.Uint64(b[8:])
	r.Ino = ne.Uint64(b[16:])
	r.PID = ne.Uint32(b[40:])
	r.TID = ne.Uint32(b[44:])
	r.UID = ne.Uint32(b[48:])
	r.GID = ne.Uint32(b[52:])
	r.OpenFlags = ne.Uint32(b[56:])
	r.Type = Type(ne.Uint16(b[60:]))
	r.Flags = ne.Uint16(b[62:])
	if r.hasComm() {
		r.Offset, r.Length, r.Comm = 0, 0, Comm{}
		// What follows may be of a name that the thread had before.
		name, _, _ := bytes.Cut(b[24:40], []byte{0})
		copy(r.Comm[:], name)
	} else {
		r.Offset, r.Length, r.Comm = ne.Uint64(b[24:]), ne.Uint64(b[32:]), Comm{}
	}
}

// Decode appends the records in b to dst and returns the result. It does not
// allocate if dst has room: pass dst[:0] to reuse a slice. The length of b must be
// a multiple of [RecordSize], or the error is [ErrShortRecord] and dst is returned
// unchanged.
func Decode(dst []Record, b []byte) ([]Record, error) {
	if len(b)%RecordSize != 0 {
		return dst, fmt.Errorf("decode records: %d bytes: %w", len(b), ErrShortRecord)
	}
	for ; len(b) > 0; b = b[RecordSize:] {
		var r Record
		r.decode(b)
		dst = append(dst, r)
	}
	return dst, nil
}
