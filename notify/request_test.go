// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func packet(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		max  uint32 // 0 for a bad packet
	}{
		{"one", packet(1, 1), 1},
		{"all", packet(1, 1024), 1024},
		{"none", packet(1, 0), 0},
		{"too many", packet(1, 1025), 0},
		{"most", packet(1, 1<<32-1), 0},
		{"version 0", packet(0, 1), 0},
		{"version 2", packet(2, 1), 0},
		{"other byte order", packet(1<<24, 1), 0},
		{"empty", nil, 0},
		{"short", packet(1, 1)[:7], 0},
		{"long", packet(1, 1, 0), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Request{MaxRecords: 77}
			err := r.UnmarshalBinary(tt.b)
			if tt.max == 0 {
				if !errors.Is(err, ErrRequest) || r.MaxRecords != 77 {
					t.Errorf("got %+v, %v", r, err)
				}
				return
			}
			if err != nil || r.MaxRecords != tt.max {
				t.Fatalf("got %+v, %v", r, err)
			}
			if back, err := r.MarshalBinary(); err != nil || !bytes.Equal(back, tt.b) {
				t.Errorf("encoded as %x, %v", back, err)
			}
		})
	}

func FuzzRequest(f *testing.F) {
	f.Add(packet(1, 1))
	f.Add(packet(1, 1024))
	f.Add(packet(1, 1025))
	f.Add(packet(2, 1))
	f.Add([]byte{})
	f.Add(packet(1, 1, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		if err := r.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, ErrRequest) || r != (Request{}) {
				t.Fatalf("%x: got %+v, %v", b, r, err)
			}
			return
		}
		if r.MaxRecords < 1 || r.MaxRecords > RingRecords {
			t.Fatalf("%x: got %+v", b, r)
		}
		if back, err := r.MarshalBinary(); err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x was encoded as %x, %v", b, back, err)
		}
	})
}
