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
func rounds(tb testing.TB, perPacket []int, n int) func() {
	tb.Helper()
	r, ring := newTestRelay(tb)
	var conns []*net.UnixConn
	for _, size := range perPacket {
		conn := connectTo(tb, r)
		if _, err := conn.Write(packet(notify.RequestVersion, uint32(size))); err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for range 2 {
		if _, _, err := r.poll(time.Now(), false); err != nil {
			tb.Fatal(err)
		}
	}
	if len(r.clients.list) != len(perPacket) {
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

// TestNoAllocation: a round allocates nothing, for any number of records and clients.
func TestNoAllocation(t *testing.T) {
	for _, n := range []int{1, 100, notify.RingRecords} {
		for _, perPacket := range [][]int{{}, {1}, {1, 16, notify.RingRecords}} {
			t.Run(fmt.Sprintf("%d records to %v", n, perPacket), func(t *testing.T) {
				if allocs := testing.AllocsPerRun(20, rounds(t, perPacket, n)); allocs != 0 {
					t.Errorf("%v allocations per round", allocs)
				}
			})
		}
	}
}

// BenchmarkRelay measures a round for a full ring, including the clients' reads.
func BenchmarkRelay(b *testing.B) {
	for _, perPacket := range [][]int{
		{1}, {16}, {notify.RingRecords},
		{notify.RingRecords, notify.RingRecords, notify.RingRecords, notify.RingRecords},
	} {
		b.Run(fmt.Sprint(perPacket), func(b *testing.B) {
			round := rounds(b, perPacket, notify.RingRecords)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/notify.RingRecords, "ns/record")
		})
	}
}
