// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// FuzzReceive sends packets over a socket. In the data, a byte with its length precedes
// each packet; the highest bit of that adds a descriptor, and 127 stands for a request of
// version 2, of which the data has the start. A client may only send one good request.
func FuzzReceive(f *testing.F) {
	good := packet(notify.Version1, 7)
	f.Add(append([]byte{8}, good...))
	f.Add(append(append([]byte{8}, good...), append([]byte{8}, good...)...))
	f.Add(append([]byte{8 | 0x80}, good...))
	f.Add(append([]byte{9}, append(good, 0)...))
	f.Add(append([]byte{100}, make([]byte, 100)...))
	f.Add([]byte{0})
	request2 := notify.Request{Version: notify.Version2, MaxRecords: 7, Idle: time.Second, Filter: notify.Filter{UIDs: []uint32{1}, Inos: []uint64{5}}}
	pkt2, _ := request2.MarshalBinary()
	f.Add(append([]byte{127}, pkt2[:127]...))
	f.Add(append(append([]byte{127}, pkt2[:127]...), append([]byte{8}, good...)...))
	f.Add([]byte{3, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(sv[0])
		defer unix.Close(sv[1])
		c := newClient(sv[0], 1, 1, slog.New(slog.DiscardHandler))
		for len(data) > 0 {
			n, rights := int(data[0]&0x7f), data[0]&0x80 != 0
			data = data[1:]
			pkt := data[:min(n, len(data))]
			data = data[len(pkt):]
			if n == 127 {
				pkt = append(bytes.Clone(pkt), make([]byte, notify.RequestSize2)...)[:notify.RequestSize2]
			}

			var oob []byte
			if rights {
				oob = unix.UnixRights(sv[1])
			}
			if err := unix.Sendmsg(sv[1], pkt, oob, nil, unix.MSG_DONTWAIT); err != nil {
				t.Fatal(err)
			}
			var req notify.Request
			allowed := req.UnmarshalBinary(pkt) == nil && !rights && !c.asked
			err := c.receive()
			if allowed != (err == nil) || !allowed && !errors.Is(err, notify.ErrRequest) {
				t.Fatalf("packet %x, descriptor %v: %v", pkt, rights, err)
			}
			if !allowed {
				return
			}
			if !reflect.DeepEqual(c.req, req) {
				t.Fatalf("packet %x is %+v, not %+v", pkt, req, c.req)
			}
		}
		if err := c.receive(); err != nil {
			t.Fatalf("with nothing to receive: %v", err)
		}
		unix.Shutdown(sv[1], unix.SHUT_WR)
		if err := c.receive(); err != errHalfClosed {
			t.Fatalf("half-closed: %v", err)
		}
	})
}

// FuzzTurnedAway: whatever a connection sends that is turned away, looking at it neither
// waits nor answers anything but a request of version 2.
func FuzzTurnedAway(f *testing.F) {
	f.Add(packet(notify.Version1, 1))
	for _, probe := range []bool{false, true} {
		req := notify.Request{Version: notify.Version2, MaxRecords: 1, Probe: probe}
		b, _ := req.MarshalBinary()
		f.Add(b)
	}
	f.Add([]byte{})
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		sv, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(sv[0])
		defer unix.Close(sv[1])
		if err := unix.Send(sv[1], pkt, unix.MSG_DONTWAIT); err != nil {
			t.Skip(err)
		}
		d := &doorman{log: log, stream: &stream{mount: testMount, base: 1}}
		if !d.answer(&turned{fd: sv[0], reason: notify.EndMaxClients}, time.Now()) {
			t.Fatal("it still waits for a request")
		}
		var req notify.Request
		version2 := req.UnmarshalBinary(pkt) == nil && req.Version == notify.Version2
		var b [3 * notify.RecordSize]byte
		n, err := unix.Read(sv[1], b[:])
		if version2 != (err == nil && n > 0) {
			t.Fatalf("%x: the answer is %d bytes, %v", pkt, n, err)
		}
	})
}

// FuzzAccount: whatever numbers and losses drains show, every number is told once, in
// order. Each byte is a step: accesses, of which some are dropped, or a drain.
func FuzzAccount(f *testing.F) {
	f.Add([]byte{3, 0x80, 5, 0x45, 2, 0x80, 0x80}, uint64(1), true)
	f.Add([]byte{0x41, 0x80, 0x42, 0x43, 1, 0x80}, uint64(12), false)
	f.Fuzz(func(t *testing.T, steps []byte, first uint64, known bool) {
		if first == 0 || first > 1<<60 || len(steps) > 200 {
			return
		}
		s := &stream{}
		if known {
			s.base, s.told = first, first-1
		}
		next, dropped := first, uint64(0)
		var ring []byte
		want := first
		check := func(events []byte) {
			for i := 0; i < len(events); i += notify.RecordSize {
				var rec notify.Record
				rec.UnmarshalBinary(events[i : i+notify.RecordSize])
				last := rec.Seq
				if l, ok := rec.Control().(*notify.Lost); ok {
					last = l.Last
					if l.Count != l.Last-l.First+1 {
						t.Fatalf("%+v", l)
					}
				}
				if rec.Seq != want {
					t.Fatalf("%d is told after %d", rec.Seq, want-1)
				}
				want = last + 1
			}
		}
		for _, step := range steps {
			n := uint64(step & 0x3f)
			switch {
			case step&0x80 != 0:
				events, err := s.account(ring, dropped, time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				check(events)
				ring = ring[:0]
				if s.base != 0 && want != next {
					t.Fatalf("all up to %d is told, not up to %d", want-1, next-1)
				}
			case step&0x40 != 0:
				// The kernel drops only while its ring is full.
				if len(ring) > 0 || known {
					next += n
					dropped += n
				}
			default:
				for range n {
					rec := record(next)
					ring, _ = rec.AppendBinary(ring)
					next++
				}
			}
		}
		check(s.finish(next, time.Time{}))
		if s.base != 0 && want != next {
			t.Fatalf("at the end all up to %d is told, not up to %d", want-1, next-1)
		}
	})
}
