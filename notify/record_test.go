// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// distinct returns a record in which each byte differs from its neighbours.
func distinct() Record {
	return Record{
		Seq: 0x0102030405060708, TimeNS: 0x1112131415161718, Ino: 0x2122232425262728,
		Offset: 0x3132333435363738, Length: 0x4142434445464748,
		PID: 0x51525354, TID: 0x61626364, UID: 0x71727374, GID: 0x81828384, OpenFlags: 0x91929394,
		Type: 0xa1a2, Flags: 0xb1b2,
	}
}

// TestRecordIsMemory checks that the encoding has the same bytes as the record's first
// fields in memory, whose layout TestHeader compares with C's.
func TestRecordIsMemory(t *testing.T) {
	r := distinct()
	got, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if want := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Offsetof(r.Comm)); !bytes.Equal(got, want) {
		t.Errorf("encoded\n%x, in memory\n%x", got, want)
	}
	var back Record
	if err := back.UnmarshalBinary(got); err != nil || back != r {
		t.Errorf("decoded %+v, %v", back, err)
	}
}

// TestComm checks which records have a name, and that it is never taken for an offset.
func TestComm(t *testing.T) {
	name := Comm{'c', 'a', 't'}
	for _, tt := range []struct {
		name    string
		r       Record
		comm    string
		command string
		json    string
	}{
		{"open", Record{Type: TypeOpen, Flags: FlagComm, PID: 3, TID: 3, Comm: name}, "cat", "cat",
			`{"seq":0,"time_ns":0,"ino":0,"offset":0,"length":0,"pid":3,"tid":3,"uid":0,"gid":0,"open_flags":0,"type":"open","flags":1,"comm":"cat"}`},
		{"another thread", Record{Type: TypeOpen, Flags: FlagComm, PID: 3, TID: 4, Comm: name}, "cat", "", ""},
		{"older kernel module", Record{Type: TypeOpen, PID: 3, TID: 3}, "", "", ""},
		{"read", Record{Type: TypeRead, Flags: FlagComm, Offset: 0x746163, Length: 1, PID: 3, TID: 3}, "", "", ""},
		{"no name", Record{Type: TypeOpen, Flags: FlagComm, PID: 3, TID: 3}, "", "", ""},
		{"the longest", Record{Type: TypeOpen, Flags: FlagComm, Comm: Comm([]byte("123456789012345\x00"))}, "123456789012345", "123456789012345", ""},
		{"without an end", Record{Type: TypeOpen, Flags: FlagComm, Comm: Comm([]byte("1234567890123456"))}, "1234567890123456", "1234567890123456", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _ := tt.r.MarshalBinary()
			if tt.comm == "cat" {
				b[24+len("cat\x00")] = 'h' // left over from a longer name
			}
			back := distinct()
			if err := back.UnmarshalBinary(b); err != nil || back != tt.r {
				t.Errorf("decoded %+v, %v", back, err)
			}
			if got := back.Comm.String(); got != tt.comm {
				t.Errorf("name %q, want %q", got, tt.comm)
			}
			if got := back.Command(); got != tt.command {
				t.Errorf("command %q, want %q", got, tt.command)
			}
			if got, err := json.Marshal(&back); tt.json != "" && (err != nil || string(got) != tt.json) {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

func TestDecodeLengths(t *testing.T) {
	one := distinct()
	enc, _ := one.MarshalBinary()
	two := append(bytes.Clone(enc), enc...)
	for _, tt := range []struct {
		name string
		b    []byte
		want []Record
		err  error
	}{
		{"none", nil, []Record{}, nil},
		{"one", enc, []Record{one}, nil},
		{"two", two, []Record{one, one}, nil},
		{"short", enc[:63], []Record{}, ErrShortRecord},
		{"long", two[:65], []Record{}, ErrShortRecord},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]Record{}, tt.b)
			if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
			var r Record
			if err := r.UnmarshalBinary(tt.b); (err == nil) != (tt.name == "one") {
				t.Errorf("UnmarshalBinary: %v", err)
			}
		})
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	b := make([]byte, RingRecords*RecordSize)
	recs := make([]Record, 0, RingRecords)
	if n := testing.AllocsPerRun(100, func() { recs, _ = Decode(recs[:0], b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	buf := make([]byte, RingRecords*RecordSize)
	recs := make([]Record, 0, RingRecords)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		recs, _ = Decode(recs[:0], buf)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/RingRecords, "ns/record")
}

func FuzzDecode(f *testing.F) {
	r := distinct()
	one, _ := r.MarshalBinary()
	f.Add(one)
	open := Record{Type: TypeOpen, Flags: FlagComm, Comm: Comm{'c', 'a', 't'}}
	named, _ := open.MarshalBinary()
	f.Add(named)
	f.Add(append(one, one...))
	f.Add(one[:17])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		recs, err := Decode(nil, b)
		if len(b)%RecordSize != 0 {
			if !errors.Is(err, ErrShortRecord) || len(recs) != 0 {
				t.Fatalf("%d bytes: got %d records, %v", len(b), len(recs), err)
			}
			return
		}
		if err != nil || len(recs) != len(b)/RecordSize {
			t.Fatalf("%d bytes: got %d records, %v", len(b), len(recs), err)
		}
		var back, want []byte
		for i := range recs {
			enc := b[i*RecordSize:][:RecordSize]
			if recs[i].hasComm() {
				enc = append(append(bytes.Clone(enc[:24]), recs[i].Comm[:]...), enc[40:]...)
				if name, _, _ := bytes.Cut(b[i*RecordSize:][24:40], []byte{0}); recs[i].Comm.String() != string(name) {
					t.Fatalf("name %q became %q", name, recs[i].Comm)
				}
			}
			want = append(want, enc...)
			back, _ = recs[i].AppendBinary(back)
			if s := uint64(recs[i].Time().Unix()); s != recs[i].TimeNS/1e9 {
				t.Fatalf("time %d ns became %d s", recs[i].TimeNS, s)
			}
		}
		if !bytes.Equal(back, want) {
			t.Fatalf("%x was encoded as %x", b, back)
		}
	})
}

func TestType(t *testing.T) {
	for _, tt := range []struct {
		t    Type
		want string
	}{{TypeOpen, "open"}, {TypeRead, "read"}, {0, "type0"}, {65535, "type65535"}} {
		if got := tt.t.String(); got != tt.want {
			t.Errorf("Type %d: %q, want %q", uint16(tt.t), got, tt.want)
		}
	}
}

func TestRecordJSON(t *testing.T) {
	r := Record{
		Seq: 1, TimeNS: 1700000000123456789, Ino: 2, Offset: 3, Length: 4, PID: 5, TID: 6,
		UID: 7, GID: 8, OpenFlags: unix.O_RDWR, Type: TypeRead,
	}
	got, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"seq":1,"time_ns":1700000000123456789,"ino":2,"offset":3,"length":4,"pid":5,"tid":6,"uid":7,"gid":8,"open_flags":2,"type":"read","flags":0}`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
}

func TestRecordTime(t *testing.T) {
	for _, tt := range []struct {
		ns   uint64
		want string
	}{
		{0, "1970-01-01T00:00:00Z"},
		{1700000000123456789, "2023-11-14T22:13:20.123456789Z"},
		{1<<64 - 1, "2554-07-21T23:34:33.709551615Z"},
	} {
		r := Record{TimeNS: tt.ns}
		if got := r.Time().Format(time.RFC3339Nano); got != tt.want {
			t.Errorf("%d: %s, want %s", tt.ns, got, tt.want)
		}
	}
}
