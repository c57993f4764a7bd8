// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// RequestSize is the size of an encoded Request in bytes.
	RequestSize = 8

	// RequestVersion is the only version of the request packet there is.
	RequestVersion = 1
)

// ErrRequest is returned for a packet that is not a valid request.
var ErrRequest = errors.New("not a valid request packet")

// Request is what a client may send to the daemon, once: how many records it
// takes in one packet. A client that sends none gets one record a packet.
type Request struct {
	// MaxRecords is from 1 to [RingRecords].
	MaxRecords uint32
}

// AppendBinary appends the request packet to b: version and MaxRecords, 32 bits
// each in the machine's byte order. The error is [ErrRequest] if MaxRecords is
// out of range.
func (r Request) AppendBinary(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return b, err
	}
	b = binary.NativeEndian.AppendUint32(b, RequestVersion)
	b = binary.NativeEndian.AppendUint32(b, r.MaxRecords)
	return b, nil
}

// MarshalBinary returns what AppendBinary appends.
func (r Request) MarshalBinary() ([]byte, error) {
	return r.AppendBinary(make([]byte, 0, RequestSize))
}

// UnmarshalBinary sets the request from a packet. The error is [ErrRequest] if
// its size, its version or MaxRecords is wrong; the request is unchanged then.
func (r *Request) UnmarshalBinary(b []byte) error {
	if len(b) != RequestSize {
		return fmt.Errorf("%w: %d bytes, not %d", ErrRequest, len(b), RequestSize)
	}
	if v := binary.NativeEndian.Uint32(b); v != RequestVersion {
		return fmt.Errorf("%w: version %d, not %d", ErrRequest, v, RequestVersion)
	}
	req := Request{MaxRecords: binary.NativeEndian.Uint32(b[4:])}
	if err := req.check(); err != nil {
		return err
	}
	*r = req
	return nil
}

func (r Request) check() error {
	if r.MaxRecords < 1 || r.MaxRecords > RingRecords {
		return fmt.Errorf("%w: %d records a packet, not 1 to %d", ErrRequest, r.MaxRecords, RingRecords)
	}
	return nil
}
