// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"encoding"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen makes a socket like the daemon's.
func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// connectPair returns a client of version 1 and the daemon's end of its connection.
func connectPair(t *testing.T, d Dialer) (*Client, *net.UnixConn) {
	t.Helper()
	d.Version = Version1
	ln := listen(t)
	c, err := d.DialContext(context.Background(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	conn, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return c, conn
}

// takeRequest reads the client's request.
func takeRequest(t *testing.T, conn net.Conn) Request {
	t.Helper()
	var b [RequestSize2 + 1]byte
	n, err := conn.Read(b[:])
	if err != nil {
		t.Fatal(err)
	}
	var r Request
	if err := r.UnmarshalBinary(b[:n]); err != nil {
		t.Fatal(err)
	}
	return r
}

// records encodes one record for each number.
func records(seqs ...uint64) []byte {
	var b []byte
	for _, s := range seqs {
		r := Record{Seq: s, Ino: s * 10, Type: TypeOpen}
		b, _ = r.AppendBinary(b)
	}
	return b
}

func send(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestClientRequest(t *testing.T) {
	for _, tt := range []struct{ ask, want int }{{0, RingRecords}, {1, 1}, {RingRecords, RingRecords}} {
		_, conn := connectPair(t, Dialer{MaxRecords: tt.ask})
		if got := takeRequest(t, conn); int(got.MaxRecords) != tt.want {
			t.Errorf("MaxRecords %d asked for %d", tt.ask, got.MaxRecords)
		}
	}
	asks := []int{-1, RingRecords + 1}
	if strconv.IntSize == 64 {
		one := 1
		asks = append(asks, one<<32+5)
	}
	for _, ask := range asks {
		d := Dialer{MaxRecords: ask}
		if _, err := d.DialContext(context.Background(), listen(t).Addr().String()); !errors.Is(err, ErrRequest) {
			t.Errorf("MaxRecords %d: %v", ask, err)
		}
	}
}

func TestClientNext(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	takeRequest(t, conn)
	send(t, conn, records(7, 8))
	send(t, conn, records(26))
	conn.Close()
	for _, want := range []struct {
		seq, lost uint64
		buffered  int
	}{{7, 0, 1}, {8, 0, 0}, {26, 17, 0}} {
		r, err := c.Next()
		if err != nil || r.Seq != want.seq || r.Ino != want.seq*10 || c.Lost() != want.lost || c.Buffered() != want.buffered {
			t.Errorf("got %+v, %v, lost %d, buffered %d, want %+v", r, err, c.Lost(), c.Buffered(), want)
		}
	}
	for range 2 {
		if r, err := c.Next(); err != io.EOF {
			t.Errorf("at the end: %+v, %v", r, err)
		}
	}
}

func TestClientReadBatch(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	takeRequest(t, conn)
	all := make([]uint64, RingRecords)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	send(t, conn, records(all...))
	send(t, conn, records(2000, 2002))
	conn.Close()

	if r, err := c.Next(); err != nil || r.Seq != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	batch, err := c.ReadBatch()
	if err != nil || len(batch) != RingRecords-1 || batch[0].Seq != 2 || c.Lost() != 0 {
		t.Fatalf("got %d records, %v, lost %d", len(batch), err, c.Lost())
	}
	batch, err = c.ReadBatch()
	if err != nil || len(batch) != 2 || batch[1].Seq != 2002 || c.Lost() != 2000-1025+1 {
		t.Fatalf("got %+v, %v, lost %d", batch, err, c.Lost())
	}
	if batch, err = c.ReadBatch(); err != io.EOF || batch != nil {
		t.Errorf("at the end: %+v, %v", batch, err)
	}
}

func TestClientProtocol(t *testing.T) {
	for _, tt := range []struct {
		name    string
		packets [][]byte
		good    int
	}{
		{"part of a record", [][]byte{records(1), records(2)[:63]}, 1},
		{"a byte", [][]byte{{1}}, 0},
		{"too long", [][]byte{make([]byte, (RingRecords+1)*RecordSize)}, 0},
		{"same number", [][]byte{records(1, 2, 2)}, 2},
		{"lower number", [][]byte{records(5), records(4)}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, conn := connectPair(t, Dialer{})
			takeRequest(t, conn)
			for _, p := range tt.packets {
				send(t, conn, p)
			}
			for range tt.good {
				if r, err := c.Next(); err != nil {
					t.Fatalf("got %+v, %v", r, err)
				}
			}
			if r, err := c.Next(); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func TestClientRefused(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	conn.Close() // with the request unread
	if r, err := c.Next(); !errors.Is(err, ErrRefused) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestClientReset: a client gets all records that were sent, even if the daemon stopped
// without reading the request.
func TestClientReset(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	send(t, conn, records(1, 2))
	send(t, conn, records(3))
	conn.Close()
	for seq := uint64(1); seq <= 3; seq++ {
		if r, err := c.Next(); err != nil || r.Seq != seq {
			t.Fatalf("got %+v, %v, want %d", r, err, seq)
		}
	}
	if r, err := c.Next(); err != io.EOF {
		t.Errorf("at the end: %+v, %v", r, err)
	}
}

// script is a connection with scripted reads.
type script struct {
	net.Conn
	reads []scriptedRead
}

type scriptedRead struct {
	packet []byte
	err    error
}

func (s *script) Read(b []byte) (int, error) {
	r := s.reads[0]
	s.reads = s.reads[1:]
	return copy(b, r.packet), r.err
}

// TestClientEarlyEnd: the kernel can report the end before the packets or the reset that
// preceded it.
func TestClientEarlyEnd(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: unix.ECONNRESET}
	for _, tt := range []struct {
		name  string
		reads []scriptedRead
		seqs  []uint64
		err   error
	}{
		{"packet", []scriptedRead{{nil, io.EOF}, {records(1), nil}, {nil, io.EOF}, {records(2, 3), nil}, {nil, io.EOF}, {nil, io.EOF}}, []uint64{1, 2, 3}, io.EOF},
		{"reset", []scriptedRead{{nil, io.EOF}, {nil, reset}, {nil, io.EOF}}, nil, ErrRefused},
		{"reset after records", []scriptedRead{{records(1), nil}, {nil, io.EOF}, {nil, reset}, {nil, io.EOF}}, []uint64{1}, io.EOF},
		{"reset, then records", []scriptedRead{{nil, reset}, {records(1), nil}, {nil, io.EOF}, {nil, io.EOF}}, []uint64{1}, io.EOF},
		{"nothing", []scriptedRead{{nil, io.EOF}, {nil, io.EOF}}, nil, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := &script{reads: tt.reads}
			c := newClient(conn)
			var seqs []uint64
			var err error
			for err == nil {
				var r Record
				if r, err = c.Next(); err == nil {
					seqs = append(seqs, r.Seq)
				}
			}
			if !slices.Equal(seqs, tt.seqs) || !errors.Is(err, tt.err) {
				t.Errorf("got %v and %v, want %v and %v", seqs, err, tt.seqs, tt.err)
			}
			if len(conn.reads) > 0 {
				t.Errorf("%d reads were left", len(conn.reads))
			}
		})
	}
}

func TestClientDeadline(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if r, err := c.Next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %+v, %v", r, err)
	}
	c.SetReadDeadline(time.Time{})
	send(t, conn, records(1))
	if r, err := c.Next(); err != nil || r.Seq != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestClientClose(t *testing.T) {
	c, _ := connectPair(t, Dialer{})
	done := make(chan error)
	go func() {
		_, err := c.Next()
		done <- err
	}()
	c.Close()
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if err := c.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if err := c.SetReadDeadline(time.Now()); !errors.Is(err, ErrClosed) {
		t.Errorf("SetReadDeadline after Close: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	ln := listen(t)
	path := ln.Addr().String()
	ln.SetUnlinkOnClose(false)
	ln.Close()
	file := filepath.Join(filepath.Dir(path), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		target string
		want   error
	}{
		{"nobody listens", context.Background(), path, ErrNotRunning},
		{"no socket", context.Background(), filepath.Join(filepath.Dir(path), "x", SocketName), ErrNotRunning},
		{"no such mount", context.Background(), filepath.Join(filepath.Dir(path), "x"), os.ErrNotExist},
		{"not ScoutFS", context.Background(), filepath.Dir(path), ErrNotScoutFS},
		{"a file", context.Background(), file, ErrTarget},
		{"canceled", canceled, path, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c, err := new(Dialer).DialContext(tt.ctx, tt.target); !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v, want %v", c, err, tt.want)
			}
		})
	}
}

// TestDialBusyDaemon: Dial waits while the backlog is full.
func TestDialBusyDaemon(t *testing.T) {
	path := filepath.Join(filepath.Dir(listen(t).Addr().String()), "busy")
	ln, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ln) })
	if err := errors.Join(unix.Bind(ln, &unix.SockaddrUnix{Name: path}), unix.Listen(ln, 0)); err != nil {
		t.Fatal(err)
	}
	waiting := 0
	for ; ; waiting++ {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if c, err := new(Dialer).DialContext(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v, %v", c, err)
	}

	done := make(chan error)
	go func() {
		c, err := (&Dialer{Version: Version1}).DialContext(context.Background(), path)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	for range waiting + 1 {
		fd, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestClientAllocatesNothing(t *testing.T) {
	c, conn := connectPair(t, Dialer{})
	takeRequest(t, conn)
	seq := uint64(0)
	b := records(make([]uint64, 32)...)
	if n := testing.AllocsPerRun(100, func() {
		for i := 0; i < len(b); i += RecordSize {
			seq++
			binary.NativeEndian.PutUint64(b[i:], seq)
		}
		send(t, conn, b)
		for range 32 {
			if _, err := c.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations for 32 records", n)
	}
}

// events encodes control records and records of accesses.
func events(evs ...Event) []byte {
	var b []byte
	for _, ev := range evs {
		b, _ = ev.(interface{ encoding.BinaryAppender }).AppendBinary(b)
	}
	return b
}

// hello is what a daemon says whose next number is 1.
func hello() *Hello { return &Hello{Next: 1, RID: 5, Version: Version2} }

// newClient2 returns a client of version 2 that gets packets and then the end.
func newClient2(t *testing.T, packets ...[]byte) *Client {
	t.Helper()
	reads := []scriptedRead{{events(hello()), nil}}
	for _, p := range packets {
		reads = append(reads, scriptedRead{p, nil})
	}
	c := newClient(&script{reads: append(reads, scriptedRead{nil, io.EOF}, scriptedRead{nil, io.EOF})})
	c.exact = true
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

func rec(seq uint64) *Record { return &Record{Seq: seq, Type: TypeRead, Length: 1} }

// TestClientStream: what a stream of version 2 may say, and what it may not.
func TestClientStream(t *testing.T) {
	end := &End{Seq: 2, Reason: EndStopping}
	for name, tt := range map[string]struct {
		packets [][]byte
		events  int // after the hello
		lost    uint64
		err     error // nil for an end
	}{
		"nothing":             {[][]byte{events(&End{Reason: EndUnmounted})}, 1, 0, nil},
		"records":             {[][]byte{events(rec(1)), events(rec(2), end)}, 3, 0, nil},
		"a loss":              {[][]byte{events(rec(1), &Lost{First: 2, Last: 9, Count: 8}, rec(10), &End{Seq: 10})}, 4, 8, nil},
		"a loss at the end":   {[][]byte{events(&Lost{First: 1, Last: 9, Count: 9}, &End{Seq: 9})}, 2, 9, nil},
		"idle":                {[][]byte{events(&Idle{}, rec(1), &Idle{Seq: 1}, &End{Seq: 1})}, 4, 0, nil},
		"resumed":             {[][]byte{events(&Lost{First: 0, Last: 0, Unknown: true, Cause: LostAway}, rec(1), &End{Seq: 1})}, 3, 0, nil},
		"unknown type":        {[][]byte{events(&Record{Type: 0x9000}, rec(1), &End{Seq: 1})}, 2, 0, nil},
		"after the end":       {[][]byte{events(&End{}, rec(1))}, 1, 0, nil},
		"broken off":          {[][]byte{events(rec(1))}, 1, 0, io.ErrUnexpectedEOF},
		"a silent loss":       {[][]byte{events(rec(1), rec(3))}, 1, 0, ErrProtocol},
		"a silent loss, idle": {[][]byte{events(rec(1), &Idle{Seq: 2})}, 1, 0, ErrProtocol},
		"a silent loss, end":  {[][]byte{events(rec(1), end)}, 1, 0, ErrProtocol},
		"a loss too late":     {[][]byte{events(rec(1), &Lost{First: 3, Last: 3, Count: 1})}, 1, 0, ErrProtocol},
		"a loss again":        {[][]byte{events(rec(1), &Lost{First: 1, Last: 3, Count: 3})}, 1, 0, ErrProtocol},
		"a loss backwards":    {[][]byte{events(&Lost{First: 3, Last: 2, Count: 1})}, 0, 0, ErrProtocol},
		"a second hello":      {[][]byte{events(hello())}, 0, 0, ErrProtocol},
		"turned away":         {[][]byte{events(&End{Reason: EndProtocol})}, 0, 0, ErrRefused},
		"the same number":     {[][]byte{events(rec(1), rec(1))}, 1, 0, ErrProtocol},
		"not a whole record":  {[][]byte{events(rec(1)), {1}}, 1, 0, ErrProtocol},
		"idle goes back":      {[][]byte{events(rec(1), rec(2), &Idle{Seq: 1})}, 2, 0, ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient2(t, tt.packets...)
			n := -1
			var err error
			for _, err = range c.Events(t.Context()) {
				if err != nil {
					break
				}
				n++
			}
			if n != tt.events || !errors.Is(err, tt.err) || (err == nil) != (c.End() != nil) || c.Lost() != tt.lost {
				t.Errorf("%d events, %v, lost %d, end %+v", n, err, c.Lost(), c.End())
			}
			// Next sees the same stream without its control records.
			c = newClient2(t, tt.packets...)
			for err = nil; err == nil; {
				_, err = c.Next()
			}
			if tt.err == nil && err != io.EOF || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("Next: %v", err)
			}
			// And so does ReadBatch.
			c = newClient2(t, tt.packets...)
			for err = nil; err == nil; {
				_, err = c.ReadBatch()
			}
			if tt.err == nil && err != io.EOF || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("ReadBatch: %v", err)
			}
		})
	}
}

// TestClientFiltered: numbers that are missing were filtered out, and no loss.
func TestClientFiltered(t *testing.T) {
	c := newClient2(t, events(rec(3), &Idle{Seq: 7}, &Lost{First: 9, Last: 20, Count: 2, AtMost: true}, rec(30), &End{Seq: 44}))
	c.exact = false
	n := 0
	for _, err := range c.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 6 || c.Lost() != 2 || c.Seq() != 44 {
		t.Errorf("%d events, lost %d, at %d", n, c.Lost(), c.Seq())
	}
}

// TestBeforeHello: what a daemon sent before it had the request is not of the stream.
func TestBeforeHello(t *testing.T) {
	c := newClient(&script{reads: []scriptedRead{{records(1), nil}, {records(2), nil}, {events(&Hello{Next: 3}), nil}, {records(3), nil}}})
	c.exact = true
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Next(); err != nil || r.Seq != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzClient splits the data into packets of the first byte's size, and compares the
// output of a Client with its input.
func FuzzClient(f *testing.F) {
	f.Add(append([]byte{64}, records(1, 2, 3)...))
	f.Add(append([]byte{128}, records(1, 2, 5, 9)...))
	f.Add(append([]byte{128}, records(3, 2)...))
	f.Add(append([]byte{63}, records(1, 2)...))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		size, data := int(data[0]), data[1:]
		if size == 0 {
			size = RingRecords*RecordSize + RecordSize
		}
		c := newClient(nil)
		var prev, lost uint64
		first := true
		for len(data) > 0 {
			pkt := slices.Clone(data[:min(size, len(data))])
			data = data[len(pkt):]
			for i := 60; i+2 <= len(pkt); i += RecordSize {
				// In version 1 there are no control records, and the client skips them.
				ne := binary.NativeEndian
				ne.PutUint16(pkt[i:], ne.Uint16(pkt[i:])&^0x8000)
			}
			err := c.accept(pkt)
			bad := len(pkt)%RecordSize != 0 || len(pkt) > RingRecords*RecordSize
			if bad != errors.Is(err, ErrProtocol) {
				t.Fatalf("packet of %d bytes: %v", len(pkt), err)
			}
			if bad {
				return
			}
			for i := 0; i < len(pkt); i += RecordSize {
				seq := binary.NativeEndian.Uint64(pkt[i:])
				r, err := c.Next()
				if !first && seq <= prev {
					if !errors.Is(err, ErrProtocol) {
						t.Fatalf("%d after %d: %+v, %v", seq, prev, r, err)
					}
					return
				}
				if !first {
					lost += seq - prev - 1
				}
				if err != nil || r.Seq != seq || c.Lost() != lost {
					t.Fatalf("%d after %d: %+v, %v, lost %d", seq, prev, r, err, c.Lost())
				}
				prev, first = seq, false
			}
		}
	})
}

// FuzzStream: whatever a daemon sends, a client of version 2 accounts for each number
// once or says that the protocol is broken.
func FuzzStream(f *testing.F) {
	f.Add(events(hello(), rec(1), &Lost{First: 2, Last: 4, Count: 3}, rec(5), &Idle{Seq: 5}, &End{Seq: 5}), true)
	f.Add(events(&Hello{Next: 9}, rec(12), &Lost{First: 20, Last: 40, Count: 3, AtMost: true}, &End{Seq: 50}), false)
	f.Add(events(rec(1), &End{Reason: EndMaxClients}), true)
	f.Add(events(hello(), hello()), true)
	f.Fuzz(func(t *testing.T, data []byte, exact bool) {
		if len(data) > RingRecords*RecordSize {
			return
		}
		c := newClient(&script{reads: []scriptedRead{{data, nil}, {nil, io.EOF}, {nil, io.EOF}, {nil, io.EOF}, {nil, io.EOF}}})
		c.exact = exact
		if c.start(t.Context()) != nil {
			return
		}
		from, known := c.hello.Next, c.hello.Next != 0
		n := uint64(0)
		var last uint64
		for ev, err := range c.Events(t.Context()) {
			if err != nil {
				return
			}
			switch ev := ev.(type) {
			case *Record:
				if ev.Seq <= last {
					t.Fatalf("%d after %d", ev.Seq, last)
				}
				last = ev.Seq
				n++
			case *Lost:
				if ev.Cause&(LostAway|LostUnattended) != 0 || ev.Count != ev.Last-ev.First+1 {
					return
				}
			}
		}
		if exact && known && n+c.Lost() != c.Seq()-(from-1) {
			t.Fatalf("%d records and %d lost of the numbers from %d to %d", n, c.Lost(), from, c.Seq())
		}
	})
}
