// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// "make bench-relay" runs what is here: the relay beside a loop that does nothing but the
// same system calls, and its share of a processor at a given rate.

// feed is a source that costs what the kernel's does: a copy.
type feed struct {
	records []byte
	seq     uint64 // of the last record
	next    int    // how many the next drain finds
	rate    int    // or records a second
	last    time.Time
	thread  atomic.Int32 // that drains
}

func newFeed() *feed {
	f := new(feed)
	for i := range notify.RingRecords {
		rec := record(uint64(i))
		f.records, _ = rec.AppendBinary(f.records)
	}
	return f
}

func (f *feed) Mount() notify.Mount                  { return testMount }
func (f *feed) Fd() int                              { return -1 } // never ready
func (f *feed) Close() error                         { return nil }
func (f *feed) Range() (first, next uint64, ok bool) { return 1, f.seq + 1, true }

func (f *feed) Drain(buf []byte) (n int, dropped uint64, err error) {
	n = f.next
	if f.rate > 0 {
		now := time.Now()
		if f.last.IsZero() {
			f.last = now
			f.thread.Store(int32(unix.Gettid()))
		}
		// 1 at least, or the relay would go to sleep
		n = max(1, min(int(now.Sub(f.last).Seconds()*float64(f.rate)), notify.RingRecords))
		f.last = f.last.Add(time.Duration(n) * time.Second / time.Duration(f.rate))
	}
	copy(buf, f.records[:n*notify.RecordSize])
	for i := range n {
		f.seq++
		binary.NativeEndian.PutUint64(buf[i*notify.RecordSize:], f.seq)
	}
	return n, 0, nil
}

// bareLoop is the same work without any of the relay's care, as one would write it in C: a
// poll, a drain, and one call for each client with headers that are made once.
type bareLoop struct {
	src     *feed
	buf     []byte
	fds     []unix.PollFd
	headers []messageHeader
}

func newBareLoop(b *testing.B, clients, size, records int) (l *bareLoop, theirs []int) {
	b.Helper()
	l = &bareLoop{src: newFeed(), buf: make([]byte, notify.RingRecords*notify.RecordSize)}
	l.fds = []unix.PollFd{{Fd: -1}, {Fd: -1}, {Fd: -1}} // stop, source, listener
	for range clients {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
		if err := setSendBuffer(p[0], defaultSendBuffer); err != nil {
			b.Fatal(err)
		}
		l.fds = append(l.fds, unix.PollFd{Fd: int32(p[0]), Events: unix.POLLIN})
		theirs = append(theirs, p[1])
	}
	for rest := l.buf[:records*notify.RecordSize]; len(rest) > 0; {
		pkt := rest[:min(len(rest), size*notify.RecordSize)]
		rest = rest[len(pkt):]
		v := &unix.Iovec{Base: &pkt[0]}
		v.SetLen(len(pkt))
		h := messageHeader{Msghdr: unix.Msghdr{Iov: v}}
		h.SetIovlen(1)
		l.headers = append(l.headers, h)
	}
	return l, theirs
}

func (l *bareLoop) round() error {
	var now unix.Timespec
	unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&l.fds[0])), uintptr(len(l.fds)), uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	l.src.Drain(l.buf)
	for i := range l.fds[pollClients+1:] {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(l.fds[pollClients+1+i].Fd), uintptr(unsafe.Pointer(&l.headers[0])),
			uintptr(len(l.headers)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != 0 || int(n) != len(l.headers) {
			return fmt.Errorf("sendmmsg: %d of %d packets, error %w", int(n), len(l.headers), errno)
		}
	}
	return nil
}

// BenchmarkBeside measures a round of the relay beside one of the bare loop, by the time of
// the thread, and reports their ratio: 1 is as fast. It is of what nine in ten rounds take at
// least, since whatever else the host does adds to the others.
func BenchmarkBeside(b *testing.B) {
	for _, records := range []int{notify.RingRecords, 200} {
		for _, size := range []int{1, 64, notify.RingRecords} {
			for _, clients := range []int{1, 4, 16, 64} {
				b.Run(fmt.Sprintf("records=%d/packet=%d/clients=%d", records, size, clients), func(b *testing.B) {
					beside(b, records, size, clients)
				})
			}
		}
	}
}

func beside(b *testing.B, records, size, clients int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bare, bareFds := newBareLoop(b, clients, size, records)
	bare.src.next = records

	r, fds := relayFor(b, clients, size)
	src := newFeed()
	src.next = records
	r.src = src
	buf := make([]byte, notify.RingRecords*notify.RecordSize)
	measure := func(took *[]time.Duration, fds []int, round func() error) {
		start := threadTime(b, 0)
		if err := round(); err != nil {
			b.Fatal(err)
		}
		*took = append(*took, threadTime(b, 0)-start)
		for _, fd := range fds {
			for left := records; left > 0; {
				n, err := unix.Read(fd, buf)
				if err != nil {
					b.Fatalf("receive %d more of %d records: %v", left, records, err)
				}
				left -= n / notify.RecordSize
			}
		}
	}
	var bareTook, took []time.Duration
	for b.Loop() {
		measure(&bareTook, bareFds, bare.round)
		measure(&took, fds, func() error {
			if _, _, err := r.poll(time.Now(), false); err != nil {
				return err
			}
			_, err := r.relayBatch()
			return err
		})
		r.pub.news = false
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(tenth(bareTook)/float64(records*clients), "bare-ns/record")
	b.ReportMetric(tenth(took)/float64(records*clients), "relay-ns/record")
	b.ReportMetric(tenth(bareTook)/tenth(took), "ratio")
}

// tenth returns the time that a tenth of all are shorter than, in nanoseconds.
func tenth(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/10])
}

// relayFor returns a relay with clients that want so many records a packet, and their
// descriptors.
func relayFor(b *testing.B, clients, size int) (*relay, []int) {
	b.Helper()
	r, _ := newTestRelay(b)
	usual := defaultConfig() // not as often as in tests
	r.pub.interval, r.pub.check = usual.interval, usual.check
	var fds []int
	for _, request := range asking(1, slices.Repeat([]uint32{uint32(size)}, clients)...) {
		pkt, err := request.MarshalBinary()
		if err != nil {
			b.Fatal(err)
		}
		// Plain ones: those of package net are watched by an epoll, which senders pay for.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: r.state.Socket}); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Write(fd, pkt); err != nil {
			b.Fatal(err)
		}
		fds = append(fds, fd)
	}
	for len(r.clients.list) < clients || !allAsked(r.clients.list) {
		if _, _, err := r.poll(time.Now(), false); err != nil {
			b.Fatal(err)
		}
	}
	return r, fds
}

func allAsked(list []*client) bool {
	for _, c := range list {
		if !c.asked {
			return false
		}
	}
	return true
}

// threadTime returns the processor time of a thread of this process, 0 for this one.
func threadTime(tb testing.TB, tid int) time.Duration {
	id := int32(unix.CLOCK_THREAD_CPUTIME_ID)
	if tid > 0 {
		const threadClock = 4 | 2 // CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED
		id = int32(^tid<<3 | threadClock)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		tb.Fatalf("processor time of a thread: %v", err)
	}
	return time.Duration(ts.Nano())
}

// BenchmarkShare measures which share of a processor the relay needs, with its waits, at so
// many records a second, and the bare loop for the same. The clients sleep until something
// comes.
func BenchmarkShare(b *testing.B) {
	for _, c := range []struct{ rate, clients int }{{10_000, 1}, {200_000, 1}, {200_000, 16}} {
		b.Run(fmt.Sprintf("rate=%d/clients=%d", c.rate, c.clients), func(b *testing.B) { share(b, c.rate, c.clients) })
	}
}

func share(b *testing.B, rate, clients int) {
	bare, bareFds := newBareLoop(b, clients, notify.RingRecords, notify.RingRecords)
	bareShare := shareOf(b, bare.src, rate, bareFds, bare.run)

	r, fds := relayFor(b, clients, notify.RingRecords)
	src := newFeed()
	r.src = src
	relayShare := shareOf(b, src, rate, fds, r.run)
	r.close()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(bareShare, "bare-processors")
	b.ReportMetric(relayShare, "relay-processors")
	b.ReportMetric(bareShare/relayShare, "ratio")
}

// run is the loop with a pause of a millisecond between rounds.
func (l *bareLoop) run(ctx context.Context) error {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	wait := unix.NsecToTimespec(0)
	for ctx.Err() == nil {
		unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&l.fds[0])), uintptr(len(l.fds)), uintptr(unsafe.Pointer(&wait)), 0, 0, 0)
		start := time.Now()
		n, _, err := l.src.Drain(l.buf)
		if err != nil {
			return err
		}
		for _, fd := range l.fds[pollClients+1:] {
			if err := sendOne(int(fd.Fd), l.buf[:n*notify.RecordSize]); err != nil {
				return err
			}
		}
		wait = unix.NsecToTimespec(int64(max(0, time.Millisecond-time.Since(start))))
	}
	return nil
}

// shareOf runs a loop that drains src, with clients that read, and returns the share of a
// processor that its thread needs: what nine in ten spans of 100 milliseconds take at least.
func shareOf(b *testing.B, src *feed, rate int, fds []int, run func(context.Context) error) float64 {
	b.Helper()
	src.rate = rate
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, false); err != nil {
			b.Fatal(err)
		}
		go func() {
			buf := make([]byte, notify.RingRecords*notify.RecordSize)
			for {
				if n, err := unix.Read(fd, buf); n <= 0 || err != nil {
					return
				}
			}
		}()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- run(ctx) }()
	for src.thread.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	thread := int(src.thread.Load())
	var shares []time.Duration // of a second
	for range 20 {
		start, used := time.Now(), threadTime(b, thread)
		time.Sleep(100 * time.Millisecond)
		shares = append(shares, time.Duration((threadTime(b, thread)-used).Seconds()/time.Since(start).Seconds()*1e9))
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return tenth(shares) / 1e9
}
