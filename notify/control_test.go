// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// at is a time with nanoseconds.
var at = time.Unix(1_700_000_000, 123_456_789).UTC()

func TestControl(t *testing.T) {
	for _, want := range []Event{
		&Hello{Next: 1, Time: at, FSID: 2, RID: 3, DaemonStart: at.Add(1), ReaderStart: at.Add(2), Device: Device{4, 5}, Version: 6},
		&Lost{First: 1, Last: 1 << 63, Count: 3, AtMost: true, Unknown: true, Cause: LostKernel | LostUnattended, Time: at},
		&Lost{Time: at},
		&Idle{Seq: 1<<64 - 1, Time: at},
		&End{Seq: 9, Reason: EndStopping, Time: at},
	} {
		b, err := want.(interface{ encoding.BinaryAppender }).AppendBinary(nil)
		if err != nil || len(b) != RecordSize {
			t.Fatalf("%+v: %d bytes, %v", want, len(b), err)
		}
		var rec Record
		if err := rec.UnmarshalBinary(b); err != nil || !rec.Type.IsControl() {
			t.Fatalf("%+v: %+v, %v", want, rec, err)
		}
		if got := rec.Control(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	for _, typ := range []Type{TypeOpen, TypeRead, 0, 0x7fff, TypeEnd + 1} {
		if ev := (&Record{Type: typ}).Control(); ev != nil {
			t.Errorf("type %v is %+v", typ, ev)
		}
	}
}

// FuzzControl: any 64 bytes are a record, and one that is a control record says in its
// fields all that is in its bytes.
func FuzzControl(f *testing.F) {
	for typ := TypeHello; typ <= TypeEnd; typ++ {
		r := Record{Seq: 1, TimeNS: uint64(at.UnixNano()), Ino: 2, Offset: 3, Length: 4, PID: 5, OpenFlags: 6, Type: typ, Flags: 3}
		b, _ := r.MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.UnmarshalBinary(b) != nil {
			return
		}
		ev := r.Control()
		if ev == nil {
			return
		}
		if _, err := json.Marshal(ev); err != nil {
			t.Logf("not in JSON: %v", err) // a year above 9999
		}
		first, _ := ev.(interface{ encoding.BinaryAppender }).AppendBinary(nil)
		var again Record
		if err := again.UnmarshalBinary(first); err != nil || !reflect.DeepEqual(again.Control(), ev) {
			t.Errorf("%x: %+v became %+v, %v", b, ev, again.Control(), err)
		}
	})
}

func TestTexts(t *testing.T) {
	for want, got := range map[string]string{
		"kernel+queue": (LostKernel | LostQueue).String(), "away+unattended+0x80": (LostAway | LostUnattended | 0x80).String(), "0x0": Cause(0).String(),
		"the file system was unmounted": EndUnmounted.String(), "reason 77": Reason(77).String(), "12:34": Device{12, 34}.String(),
		"hello": TypeHello.String(), "lost": TypeLost.String(), "idle": TypeIdle.String(), "end": TypeEnd.String(), "type40000": Type(40000).String(),
		"lost 1 record (queue)":                               (&Lost{Count: 1, Cause: LostQueue}).String(),
		"lost at most 2 records (kernel)":                     (&Lost{Count: 2, AtMost: true, Cause: LostKernel}).String(),
		"lost 2 records, and maybe any number besides (away)": (&Lost{Count: 2, Unknown: true, Cause: LostAway}).String(),
		"may have lost any number of records (unattended)":    (&Lost{Unknown: true, Cause: LostUnattended}).String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	var d Device
	for _, bad := range []string{"", "1", "1:", ":1", "1:2:3", "01:2", " 1:2", "1:2 ", "-1:2", "4294967296:1"} {
		if err := d.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was parsed as %v", bad, d)
		}
	}
	if err := d.UnmarshalText([]byte("253:7")); err != nil || d != (Device{253, 7}) {
		t.Errorf("%v, %v", d, err)
	}
}
