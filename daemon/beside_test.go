// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
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

	// Of rounds at that rate, each from drain to drain, that had what comes in a millisecond:
	took   []time.Duration // processor time, as many as there is room for
	used   time.Duration   // by the thread, up to the last drain
	onTime bool            // the last drain
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
		if n, err = f.paced(); err != nil {
			return 0, 0, err
		}
	}
	copy(buf, f.records[:n*notify.RecordSize])
	for i := range n {
		f.seq++
		binary.NativeEndian.PutUint64(buf[i*notify.RecordSize:], f.seq)
	}
	return n, 0, nil
}

// paced returns how many records have come in, and notes what the last round took.
func (f *feed) paced() (n int, err error) {
	used, err := timeOfThread()
	if err != nil {
		return 0, err
	}
	if f.onTime && len(f.took) < cap(f.took) {
		f.took = append(f.took, used-f.used)
	}
	now := time.Now()
	if f.last.IsZero() {
		f.last = now
	}
	// 1 at least, or the relay would go to sleep
	n = max(1, min(int(now.Sub(f.last).Seconds()*float64(f.rate)), notify.RingRecords))
	f.last = f.last.Add(time.Duration(n) * time.Second / time.Duration(f.rate))
	f.used, f.onTime = used, n*1000 > f.rate*3/4 && n*1000 < f.rate*5/4
	return n, nil
}

// bareLoop is the same work without any of the relay's care, as one would write it in C: a
// poll, a drain, and one call for each client with headers that are made once.
type bareLoop struct {
	src     *feed
	buf     []byte
	fds     []unix.PollFd
	headers []messageHeader
	asks    bool // after each drain whether anybody has connected, as the relay has to
}

func newBareLoop(b *testing.B, clients, size, records int) (l *bareLoop, theirs []int) {
	b.Helper()
	l = &bareLoop{src: newFeed(), buf: make([]byte, notify.RingRecords*notify.RecordSize)}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(stop) })
	ln, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(ln) })
	if err := errors.Join(unix.Bind(ln, &unix.SockaddrUnix{}), unix.Listen(ln, backlog)); err != nil { // a name of the kernel's choice
		b.Fatal(err)
	}
	l.fds = []unix.PollFd{{Fd: int32(stop), Events: unix.POLLIN}, {Fd: -1}, {Fd: int32(ln), Events: unix.POLLIN}}
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

// ask is what the relay's guarantee takes: who was connected before an access gets its record.
func (l *bareLoop) ask() {
	if l.asks {
		var now unix.Timespec
		unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&l.fds[pollClients])), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	}
}

func (l *bareLoop) round() error {
	var now unix.Timespec
	unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&l.fds[0])), uintptr(len(l.fds)), uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	l.src.Drain(l.buf)
	l.ask()
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
	asking, askingFds := newBareLoop(b, clients, size, records)
	asking.src.next, asking.asks = records, true

	r, fds := relayFor(b, clients, size)
	src := newFeed()
	src.next = records
	r.src = src
	buf := make([]byte, notify.RingRecords*notify.RecordSize)
	measure := func(took *[]time.Duration, fds []int, round func() error) {
		start, err := timeOfThread()
		if err == nil {
			err = round()
		}
		end, e := timeOfThread()
		if err := errors.Join(err, e); err != nil {
			b.Fatal(err)
		}
		*took = append(*took, end-start)
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
	var bareTook, askingTook, took []time.Duration
	for b.Loop() {
		measure(&bareTook, bareFds, bare.round)
		measure(&askingTook, askingFds, asking.round)
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
	b.ReportMetric(tenth(askingTook)/float64(records*clients), "asking-ns/record")
	b.ReportMetric(tenth(took)/float64(records*clients), "relay-ns/record")
	b.ReportMetric(tenth(bareTook)/tenth(took), "ratio")
	b.ReportMetric(tenth(askingTook)/tenth(took), "asking-ratio")
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

// timeOfThread returns the processor time of the calling thread.
func timeOfThread() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("processor time of a thread: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// BenchmarkShare measures which share of a processor the relay needs, with its waits, at so
// many records a second, and the loop that asks for the same. The clients sleep until
// something comes.
func BenchmarkShare(b *testing.B) {
	for _, c := range []struct{ rate, clients int }{{10_000, 1}, {200_000, 1}, {200_000, 16}} {
		b.Run(fmt.Sprintf("rate=%d/clients=%d", c.rate, c.clients), func(b *testing.B) { share(b, c.rate, c.clients) })
	}
}

func share(b *testing.B, rate, clients int) {
	var theirs, ours []time.Duration
	for range 4 { // by turns: the host's other work is more at times
		l, fds := newBareLoop(b, clients, notify.RingRecords, notify.RingRecords)
		l.asks = true
		theirs = append(theirs, shareOf(b, l.src, rate, fds, l.run)...)

		r, fds := relayFor(b, clients, notify.RingRecords)
		src := newFeed()
		r.src = src
		ours = append(ours, shareOf(b, src, rate, fds, r.run)...)
		r.close()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(tenth(theirs)/1e9, "asking-processors")
	b.ReportMetric(tenth(ours)/1e9, "relay-processors")
	b.ReportMetric(tenth(theirs)/tenth(ours), "asking-ratio")
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
		l.ask()
		for _, fd := range l.fds[pollClients+1:] {
			if err := sendOne(int(fd.Fd), l.buf[:n*notify.RecordSize]); err != nil {
				return err
			}
		}
		wait = unix.NsecToTimespec(int64(max(0, time.Millisecond-time.Since(start))))
	}
	return nil
}

// shareOf runs a loop that drains src once a millisecond, with clients that read. It returns
// how much of a second of a processor its thread would need by each round that was on time:
// on a busy host many are not.
func shareOf(b *testing.B, src *feed, rate int, fds []int, run func(context.Context) error) (shares []time.Duration) {
	b.Helper()
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
	src.rate, src.took = rate, make([]time.Duration, 0, 10_000)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	done := make(chan error) // a goroutine of its own, because it keeps its thread
	go func() { done <- run(ctx) }()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	for _, took := range src.took {
		shares = append(shares, 1000*took)
	}
	return shares
}
