// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// rounds makes a relay with clients and returns a function that runs a whole round
// for n records: poll, drain, broadcast, and reads by all clients.
func rounds(tb testing.TB, requests []notify.Request, n int) func() {
	tb.Helper()
	r, ring := newTestRelay(tb)
	var conns []*net.UnixConn
	for i := range requests {
		conn := connectTo(tb, r)
		pkt, err := requests[i].MarshalBinary()
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := conn.Write(pkt); err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for range 2 {
		if _, _, err := r.poll(time.Now(), false); err != nil {
			tb.Fatal(err)
		}
	}
	if len(r.clients.list) != len(requests) {
		tb.Fatalf("%d clients", len(r.clients.list))
	}
	fds := make([]int, len(conns))
	for i, c := range conns {
		f, err := c.File()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		fds[i] = int(f.Fd())
		// What a round sends is there when it ends: nothing to wait for.
		if err := unix.SetNonblock(fds[i], true); err != nil {
			tb.Fatal(err)
		}
	}
	buf := make([]byte, notify.RingRecords*notify.RecordSize)
	for i := range requests {
		if requests[i].Version == notify.Version2 {
			if _, err := unix.Read(fds[i], buf); err != nil {
				tb.Fatalf("receive the hello: %v", err)
			}
		}
	}
	return func() {
		ring.emit(n)
		ready, _, err := r.poll(time.Time{}, true)
		if err != nil || ready != unix.POLLIN {
			tb.Fatalf("poll: %#x, %v", ready, err)
		}
		if got, err := r.relayBatch(); err != nil || got != n {
			tb.Fatalf("drained %d records, %v", got, err)
		}
		if _, _, err := r.poll(time.Now(), false); err != nil {
			tb.Fatal(err)
		}
		r.pub.news = false
		for _, fd := range fds {
			for left := n; left > 0; {
				got, err := unix.Read(fd, buf)
				if err != nil {
					tb.Fatalf("receive %d more of %d records: %v", left, n, err)
				}
				left -= got / notify.RecordSize
			}
		}
	}
}

// asking returns a request for each number of records a packet.
func asking(version uint32, sizes ...uint32) (requests []notify.Request) {
	for _, size := range sizes {
		requests = append(requests, notify.Request{Version: version, MaxRecords: size})
	}
	return requests
}

// wantingAll is a request with filters that let everything through.
func wantingAll() []notify.Request {
	return []notify.Request{{Version: notify.Version2, MaxRecords: notify.RingRecords, Filter: notify.Filter{
		Types: []notify.Type{notify.TypeOpen, notify.TypeRead}, UIDs: []uint32{1000},
		PIDs: []uint32{1 << 31}, SkipPIDs: true,
	}}}
}

// TestNoAllocation: a round allocates nothing, for any number of records and clients.
func TestNoAllocation(t *testing.T) {
	for _, n := range []int{1, 100, notify.RingRecords} {
		for name, requests := range map[string][]notify.Request{
			"nobody": nil, "one": asking(1, 1), "version 1": asking(1, 1, 16, notify.RingRecords),
			"version 2": asking(2, 1, 16, notify.RingRecords), "filtered": wantingAll(),
		} {
			t.Run(fmt.Sprintf("%d records to %s", n, name), func(t *testing.T) {
				if allocs := testing.AllocsPerRun(20, rounds(t, requests, n)); allocs != 0 {
					t.Errorf("%v allocations per round", allocs)
				}
			})
		}
	}
}

// BenchmarkRelay measures a round for a full ring, including the clients' reads.
func BenchmarkRelay(b *testing.B) {
	four := []uint32{notify.RingRecords, notify.RingRecords, notify.RingRecords, notify.RingRecords}
	for _, c := range []struct {
		name     string
		requests []notify.Request
	}{
		{"version=1/packet=1", asking(1, 1)}, {"version=2/packet=1", asking(2, 1)},
		{"version=1/packet=16", asking(1, 16)}, {"version=2/packet=16", asking(2, 16)},
		{"version=1/packet=1024", asking(1, notify.RingRecords)}, {"version=2/packet=1024", asking(2, notify.RingRecords)},
		{"version=1/clients=4", asking(1, four...)}, {"version=2/clients=4", asking(2, four...)},
		{"version=2/filtered", wantingAll()},
	} {
		b.Run(c.name, func(b *testing.B) {
			round := rounds(b, c.requests, notify.RingRecords)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/notify.RingRecords, "ns/record")
		})
	}
}
