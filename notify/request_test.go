// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"
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
		{"version 2 with the size of 1", packet(2, 1), 0},
		{"version 3", packet(3, 1), 0},
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
}

// full is a request with everything.
func full() Request {
	return Request{
		Version: Version2, MaxRecords: 7, Idle: 1500 * time.Millisecond, Probe: true,
		Filter: Filter{
			Types: []Type{1, 31}, SkipTypes: true, UIDs: []uint32{0, 1<<32 - 1}, SkipUIDs: true,
			PIDs: []uint32{3}, SkipPIDs: true, Inos: []uint64{1 << 63}, SkipSelf: true,
		},
		Resume: Resume{RID: 5, Seq: 6},
	}
}

func TestRequest2(t *testing.T) {
	for name, edit := range map[string]func(r *Request){
		"plain":        func(r *Request) { *r = Request{Version: Version2, MaxRecords: 1} },
		"full":         func(*Request) {},
		"longest idle": func(r *Request) { r.Idle = IdleMax },
		"long lists": func(r *Request) {
			r.Filter.UIDs, r.Filter.PIDs, r.Filter.Inos = make([]uint32, FilterMax), make([]uint32, FilterMax), make([]uint64, FilterMax)
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := full()
			edit(&want)
			b, err := want.MarshalBinary()
			if err != nil || len(b) != RequestSize2 {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			var got Request
			if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
	for name, edit := range map[string]func(r *Request){
		"version 0":        func(r *Request) { r.Version = 0 },
		"version 3":        func(r *Request) { r.Version = 3 },
		"version 1":        func(r *Request) { r.Version = Version1 },
		"no records":       func(r *Request) { r.MaxRecords = 0 },
		"too many records": func(r *Request) { r.MaxRecords = RingRecords + 1 },
		"short idle":       func(r *Request) { r.Idle = IdleMin - time.Millisecond },
		"long idle":        func(r *Request) { r.Idle = IdleMax + time.Millisecond },
		"negative idle":    func(r *Request) { r.Idle = -time.Second },
		"fraction":         func(r *Request) { r.Idle = time.Second + time.Microsecond },
		"type 0":           func(r *Request) { r.Filter.Types = []Type{0} },
		"type 32":          func(r *Request) { r.Filter.Types = []Type{32} },
		"uids":             func(r *Request) { r.Filter.UIDs = make([]uint32, FilterMax+1) },
		"inodes":           func(r *Request) { r.Filter.Inos = make([]uint64, FilterMax+1) },
		"skip nothing":     func(r *Request) { r.Filter.PIDs = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := full()
			edit(&r)
			if b, err := r.MarshalBinary(); !errors.Is(err, ErrRequest) || len(b) != 0 {
				t.Errorf("encoded as %d bytes, %v", len(b), err)
			}
		})
	}
	// What must be zero is.
	r := full()
	good, _ := r.MarshalBinary()
	for name, at := range map[string]int{
		"unknown flag": 9, "type 0": 16, "reserved": 48, "the last reserved": 63, "after the inodes": 64 + 8, "after the uids": 576 + 8,
		"after the pids": 832 + 4, "the last byte": RequestSize2 - 1, "a long list": 21,
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good)
			b[at] |= 1
			if err := new(Request).UnmarshalBinary(b); !errors.Is(err, ErrRequest) {
				t.Errorf("byte %d: %v", at, err)
			}
		})
	}
	for _, size := range []int{RequestSize2 - 1, RequestSize2 + 1} {
		if err := new(Request).UnmarshalBinary(append(good, 0)[:size]); !errors.Is(err, ErrRequest) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(packet(1, 1))
	f.Add(packet(1, 1024))
	f.Add(packet(1, 1025))
	f.Add(packet(2, 1))
	f.Add([]byte{})
	f.Add(packet(1, 1, 1))
	r := full()
	b, _ := r.MarshalBinary()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		if err := r.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, ErrRequest) || !reflect.DeepEqual(r, Request{}) {
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
