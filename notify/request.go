// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Versions of the request packet, and with it of the protocol.
const (
	// Version1 is a stream of records and nothing else.
	Version1 = 1

	// Version2 adds control records ([Hello], [Lost], [Idle], [End]) and filters.
	Version2 = 2
)

const (
	// RequestSize1 and RequestSize2 are the sizes of an encoded Request in bytes, by
	// its version.
	RequestSize1 = 8
	RequestSize2 = 1088

	// FilterMax is how many entries each list of a [Filter] may have.
	FilterMax = 64

	// IdleMin and IdleMax bound [Request.Idle].
	IdleMin = 10 * time.Millisecond
	IdleMax = 24 * time.Hour
)

// ErrRequest is returned for a packet that is not a valid request, and for a
// Request that no packet can carry.
var ErrRequest = errors.New("not a valid request packet")

// Request is what a client may send to the daemon, once: which protocol it speaks,
// how many records it takes in one packet, and, in version 2, what it wants to be
// told. A client that sends none gets one record a packet and no control records.
type Request struct {
	// Version is [Version1] or [Version2]. Version 1 has MaxRecords alone.
	Version uint32

	// MaxRecords is from 1 to [RingRecords], control records included.
	MaxRecords uint32

	// Idle is after how long without a packet an [Idle] record is to come, in whole
	// milliseconds from [IdleMin] to [IdleMax], or 0 for never.
	Idle time.Duration

	// Probe asks for [Hello] and [End] alone. It is answered even if the daemon has
	// all the clients it may, and is not counted as one.
	Probe bool

	// Filter says which accesses are wanted.
	Filter Filter

	// Resume says what the client has got already: see [Resume].
	Resume Resume
}

// Filter says which accesses a client wants: those that fulfil all conditions. The
// zero value is all accesses. Each list is at most [FilterMax] long; an empty one is no
// condition.
type Filter struct {
	Types     []Type // from 1 to 31
	SkipTypes bool   // Types are not wanted, instead of wanted
	UIDs      []uint32
	SkipUIDs  bool // UIDs are not wanted
	PIDs      []uint32
	SkipPIDs  bool     // PIDs are not wanted
	Inos      []uint64 // inode numbers

	// SkipSelf leaves out accesses of the process that connected. Without that a
	// consumer that reads the files that it is told of hears of its own reads.
	SkipSelf bool
}

// All tells whether the filter lets all accesses through.
func (f *Filter) All() bool {
	return len(f.Types) == 0 && len(f.UIDs) == 0 && len(f.PIDs) == 0 && len(f.Inos) == 0 && !f.SkipSelf
}

// Resume is a place in the stream of a mount: the last number that a client knows
// about. The daemon's answer to it is a [Lost] record for all that came between that
// and the new connection.
type Resume struct {
	RID ID     // [Hello.RID]; 0 for none
	Seq uint64 // 0 for the start of the mount
}

// Flags of the packet.
const (
	requestProbe = 1 << iota
	requestSkipTypes
	requestSkipUIDs
	requestSkipPIDs
	requestSkipSelf
	requestFlags = 1<<iota - 1
)

// AppendBinary appends the request packet to b, as scoutfs-notify(5) describes it. The
// error is [ErrRequest] if something is out of range.
func (r *Request) AppendBinary(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return b, err
	}
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, r.Version)
	b = ne.AppendUint32(b, r.MaxRecords)
	if r.Version == Version1 {
		return b, nil
	}
	f := &r.Filter
	flags := uint32(0)
	for i, set := range []bool{r.Probe, f.SkipTypes, f.SkipUIDs, f.SkipPIDs, f.SkipSelf} {
		if set {
			flags |= 1 << i
		}
	}
	types := uint32(0)
	for _, t := range f.Types {
		types |= 1 << t
	}
	b = ne.AppendUint32(b, flags)
	b = ne.AppendUint32(b, uint32(r.Idle/time.Millisecond))
	b = ne.AppendUint32(b, types)
	b = ne.AppendUint32(b, uint32(len(f.UIDs)))
	b = ne.AppendUint32(b, uint32(len(f.PIDs)))
	b = ne.AppendUint32(b, uint32(len(f.Inos)))
	b = ne.AppendUint64(b, uint64(r.Resume.RID))
	b = ne.AppendUint64(b, r.Resume.Seq)
	b = append(b, make([]byte, 16)...) // reserved
	for i := range FilterMax {
		b = ne.AppendUint64(b, entry(f.Inos, i))
	}
	for _, list := range [][]uint32{f.UIDs, f.PIDs} {
		for i := range FilterMax {
			b = ne.AppendUint32(b, entry(list, i))
		}
	}
	return b, nil
}

// entry returns the i-th number of a list, 0 after its end.
func entry[T uint32 | uint64](list []T, i int) T {
	if i < len(list) {
		return list[i]
	}
	return 0
}

// MarshalBinary returns what AppendBinary appends.
func (r *Request) MarshalBinary() ([]byte, error) {
	return r.AppendBinary(make([]byte, 0, RequestSize2))
}

// UnmarshalBinary sets the request from a packet. The error is [ErrRequest] if its
// size, its version or a field is wrong, or if one that is reserved or not used is not
// zero; the request is unchanged then.
func (r *Request) UnmarshalBinary(b []byte) error {
	if len(b) < RequestSize1 {
		return fmt.Errorf("%w: %d bytes, not %d", ErrRequest, len(b), RequestSize1)
	}
	ne := binary.NativeEndian
	req := Request{Version: ne.Uint32(b), MaxRecords: ne.Uint32(b[4:])}
	size := RequestSize1
	switch req.Version {
	case Version1:
	case Version2:
		size = RequestSize2
	default:
		return fmt.Errorf("%w: version %d, not %d or %d", ErrRequest, req.Version, Version1, Version2)
	}
	if len(b) != size {
		return fmt.Errorf("%w: %d bytes, not %d", ErrRequest, len(b), size)
	}
	if req.Version == Version2 {
		if err := req.decode2(b); err != nil {
			return err
		}
	}
	if err := req.check(); err != nil {
		return err
	}
	*r = req
	return nil
}

// decode2 sets what version 2 has beyond version 1.
func (r *Request) decode2(b []byte) error {
	ne := binary.NativeEndian
	flags := ne.Uint32(b[8:])
	if flags&^requestFlags != 0 {
		return fmt.Errorf("%w: flags %#x", ErrRequest, flags)
	}
	if ne.Uint64(b[48:]) != 0 || ne.Uint64(b[56:]) != 0 {
		return fmt.Errorf("%w: a reserved field is not 0", ErrRequest)
	}
	r.Probe = flags&requestProbe != 0
	r.Idle = time.Duration(ne.Uint32(b[12:])) * time.Millisecond
	r.Resume = Resume{RID: ID(ne.Uint64(b[32:])), Seq: ne.Uint64(b[40:])}

	f := &r.Filter
	f.SkipTypes, f.SkipSelf = flags&requestSkipTypes != 0, flags&requestSkipSelf != 0
	f.SkipUIDs, f.SkipPIDs = flags&requestSkipUIDs != 0, flags&requestSkipPIDs != 0
	for types, t := ne.Uint32(b[16:]), Type(0); t < 32; t++ {
		if types&(1<<t) != 0 {
			f.Types = append(f.Types, t)
		}
	}
	const inos, uids, pids = 64, 64 + 8*FilterMax, 64 + 12*FilterMax
	var err [3]error
	f.Inos, err[0] = decodeList(ne.Uint32(b[28:]), b[inos:uids], 8, ne.Uint64)
	f.UIDs, err[1] = decodeList(ne.Uint32(b[20:]), b[uids:pids], 4, ne.Uint32)
	f.PIDs, err[2] = decodeList(ne.Uint32(b[24:]), b[pids:], 4, ne.Uint32)
	return errors.Join(err[:]...)
}

// decodeList returns the first n numbers of b, each of size bytes.
func decodeList[T uint32 | uint64](n uint32, b []byte, size int, number func([]byte) T) ([]T, error) {
	if n > FilterMax {
		return nil, fmt.Errorf("%w: a list of %d, not 0 to %d", ErrRequest, n, FilterMax)
	}
	var list []T
	for i := 0; i < FilterMax; i++ {
		v := number(b[i*size:])
		switch {
		case i < int(n):
			list = append(list, v)
		case v != 0:
			return nil, fmt.Errorf("%w: something follows the end of a list", ErrRequest)
		}
	}
	return list, nil
}

func (r *Request) check() error {
	if r.MaxRecords < 1 || r.MaxRecords > RingRecords {
		return fmt.Errorf("%w: %d records a packet, not 1 to %d", ErrRequest, r.MaxRecords, RingRecords)
	}
	f := &r.Filter
	switch r.Version {
	case Version1:
		if r.Idle != 0 || r.Probe || !f.All() || f.SkipTypes || f.SkipUIDs || f.SkipPIDs || r.Resume != (Resume{}) {
			return fmt.Errorf("%w: version 1 has no filter and no control records", ErrRequest)
		}
		return nil
	case Version2:
	default:
		return fmt.Errorf("%w: version %d, not %d or %d", ErrRequest, r.Version, Version1, Version2)
	}
	if r.Idle != 0 && (r.Idle < IdleMin || r.Idle > IdleMax || r.Idle%time.Millisecond != 0) {
		return fmt.Errorf("%w: an idle interval of %v, not 0 or whole milliseconds from %v to %v", ErrRequest, r.Idle, IdleMin, IdleMax)
	}
	if len(f.UIDs) > FilterMax || len(f.PIDs) > FilterMax || len(f.Inos) > FilterMax {
		return fmt.Errorf("%w: a list of more than %d", ErrRequest, FilterMax)
	}
	for _, t := range f.Types {
		if t < 1 || t > 31 {
			return fmt.Errorf("%w: a filter for type %d, not 1 to 31", ErrRequest, t)
		}
	}
	for _, skip := range []struct {
		set   bool
		empty bool
	}{{f.SkipTypes, len(f.Types) == 0}, {f.SkipUIDs, len(f.UIDs) == 0}, {f.SkipPIDs, len(f.PIDs) == 0}} {
		if skip.set && skip.empty {
			return fmt.Errorf("%w: an empty list to leave out", ErrRequest)
		}
	}
	return nil
}

// Match tells whether a record is wanted. self is the process for SkipSelf.
// It does not allocate.
func (f *Filter) Match(rec *Record, self uint32) bool {
	switch {
	case f.SkipSelf && rec.PID == self,
		len(f.Types) > 0 && slices.Contains(f.Types, rec.Type) == f.SkipTypes,
		len(f.UIDs) > 0 && slices.Contains(f.UIDs, rec.UID) == f.SkipUIDs,
		len(f.PIDs) > 0 && slices.Contains(f.PIDs, rec.PID) == f.SkipPIDs,
		len(f.Inos) > 0 && !slices.Contains(f.Inos, rec.Ino):
		return false
	}
	return true
}
