// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func packet(words ...uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

// descriptors returns the number of open sockets and pipes of this process. Files
// do not count: the daemon may be writing its state.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "pipe:")) {
			n++
		}
	}
	return n
}

// TestProtocolViolations: anything but one good request ends a client's connection and
// does not affect other clients.
func TestProtocolViolations(t *testing.T) {
	good := packet(notify.Version1, 1)
	for _, tt := range []struct {
		name    string
		packets [][]byte
		rights  bool // send a descriptor with the last packet
		reason  string
	}{
		{"empty", [][]byte{{}}, false, "0 bytes, not 8"},
		{"a byte", [][]byte{{1}}, false, "1 bytes, not 8"},
		{"a byte less", [][]byte{good[:7]}, false, "7 bytes, not 8"},
		{"a byte more", [][]byte{append(bytes.Clone(good), 0)}, false, "9 bytes, not 8"},
		{"two bytes more", [][]byte{append(bytes.Clone(good), 0, 0)}, false, "10 bytes, not 8"},
		{"a megabyte", [][]byte{make([]byte, 1<<20)}, false, "more than 1088 bytes"},
		{"version", [][]byte{packet(3, 1)}, false, "version 3"},
		{"version 2, size of 1", [][]byte{packet(2, 1)}, false, "8 bytes, not 1088"},
		{"no records", [][]byte{packet(1, 0)}, false, "0 records"},
		{"too many records", [][]byte{packet(1, 1025)}, false, "1025 records"},
		{"twice", [][]byte{good, good}, false, "there was one before"},
		{"empty afterwards", [][]byte{good, {}}, false, "0 bytes, not 8"},
		{"descriptor", [][]byte{good}, true, "file descriptors"},
		{"descriptor with garbage", [][]byte{{1, 2, 3}}, true, "file descriptors"},
		{"descriptor afterwards", [][]byte{good, {0}}, true, "file descriptors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := startDaemon(t, testConfig(t))
			other := d.dial(0)
			before := descriptors(t)

			conn := d.rawDial()
			if err := conn.SetWriteBuffer(4 << 20); err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for i, p := range tt.packets {
				var oob []byte
				if tt.rights && i == len(tt.packets)-1 {
					oob = unix.UnixRights(int(w.Fd()))
				}
				if _, _, err := conn.WriteMsgUnix(p, oob, nil); errors.Is(err, unix.EMSGSIZE) {
					t.Skipf("skipped: %d bytes are more than net.core.wmem_max allows", len(p))
				} else if err != nil {
					t.Fatal(err)
				}
			}
			w.Close()

			if d.log.await("breaks the protocol", tt.reason) == "" {
				t.Error("no log line")
			}
			// This process has closed its end; only the daemon could hold another.
			if n, err := r.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the pipe is still open: %d, %v", n, err)
			}
			if n, err := conn.Read(make([]byte, 100)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the connection is still open: %d, %v", n, err)
			}
			conn.Close()
			r.Close()

			d.ring.emit(10)
			if err := expect(other, 1, 10); err != nil {
				t.Errorf("another client: %v", err)
			}
			d.ring.settle()
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// newTestRelay makes a relay that does not run by itself: the test calls its steps.
func newTestRelay(t testing.TB) (*relay, *fakeRing) {
	t.Helper()
	cfg := testConfig(t)
	log := newLogs()
	cfg.log = log.logger()
	dir, err := claimDir(cfg.runDir, testMount.FSID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dir.release)
	ln, err := listen(dir.path(notify.SocketName), cfg.sendBuffer)
	if err != nil {
		t.Fatal(err)
	}
	ring := newFakeRing(t)
	r, err := newRelay(cfg, ring, dir, ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if ln.fd >= 0 {
			r.close()
		}
	})
	return r, ring
}

// connectTo connects a client to such a relay.
func connectTo(t testing.TB, r *relay) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: r.state.Socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestNoSpin: no lasting state of a client keeps the relay busy.
func TestNoSpin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		do      func(t *testing.T, r *relay, ring *fakeRing, conn *net.UnixConn)
		clients int
	}{
		{"silent", func(*testing.T, *relay, *fakeRing, *net.UnixConn) {}, 1},
		{"half-closed", func(t *testing.T, _ *relay, _ *fakeRing, conn *net.UnixConn) {
			conn.CloseWrite()
		}, 1},
		{"half-closed after a request", func(t *testing.T, _ *relay, _ *fakeRing, conn *net.UnixConn) {
			conn.Write(packet(1, 10))
			conn.CloseWrite()
		}, 1},
		{"closed", func(t *testing.T, _ *relay, _ *fakeRing, conn *net.UnixConn) {
			conn.Close()
		}, 0},
		{"closed with a packet unread", func(t *testing.T, r *relay, ring *fakeRing, conn *net.UnixConn) {
			ring.emit(1)
			r.relayBatch()
			conn.Close()
		}, 0},
		{"behind", func(t *testing.T, r *relay, ring *fakeRing, conn *net.UnixConn) {
			for len(r.clients.list) == 0 || !r.clients.list[0].behind.on {
				ring.emit(notify.RingRecords)
				r.relayBatch()
			}
		}, 1},
		{"caught up", func(t *testing.T, r *relay, ring *fakeRing, conn *net.UnixConn) {
			for len(r.clients.list) == 0 || !r.clients.list[0].behind.on {
				ring.emit(notify.RingRecords)
				r.relayBatch()
			}
			readAll(t, conn, r.clients.list[0].records)
		}, 1},
		{"behind and half-closed", func(t *testing.T, r *relay, ring *fakeRing, conn *net.UnixConn) {
			conn.CloseWrite()
			for len(r.clients.list) == 0 || !r.clients.list[0].behind.on {
				ring.emit(notify.RingRecords)
				r.relayBatch()
			}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, ring := newTestRelay(t)
			conn := connectTo(t, r)
			tt.do(t, r, ring, conn)
			// Accept, receive a packet, see the end of sending; the last has nothing
			// to do.
			for range 4 {
				if _, _, err := r.poll(time.Now(), false); err != nil {
					t.Fatal(err)
				}
			}
			if len(r.clients.list) != tt.clients {
				t.Errorf("%d clients, want %d", len(r.clients.list), tt.clients)
			}
			for _, fd := range r.pollfds {
				if fd.Revents != 0 {
					t.Errorf("poll keeps returning %+v", fd)
				}
			}
		})
	}
}

// readAll reads n one-record packets.
func readAll(t *testing.T, conn *net.UnixConn, n uint64) {
	t.Helper()
	var b [2 * notify.RecordSize]byte
	for ; n > 0; n-- {
		if got, err := conn.Read(b[:]); err != nil || got != notify.RecordSize {
			t.Fatalf("%d records before the last: %d bytes, %v", n, got, err)
		}
	}
}

// TestEmptyPacketBeforeHalfClose: an empty packet followed by another is not the end of
// sending, even if the client then shuts down its side.
func TestEmptyPacketBeforeHalfClose(t *testing.T) {
	r, _ := newTestRelay(t)
	conn := connectTo(t, r)
	for _, p := range [][]byte{{}, {1}} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if len(r.clients.list) != 0 || r.clients.accepted != 1 || r.clients.refused.Protocol != 1 {
		t.Errorf("%d clients are left, counts %+v", len(r.clients.list), r.clients.refused)
	}
}

// TestStarvedClient: when the kernel lacks memory for packets, poll says that the
// client's queue has room. That must not split one episode of loss into many.
func TestStarvedClient(t *testing.T) {
	r, ring := newTestRelay(t)
	log := newLogs()
	r.clients.log = log.logger()
	conn := connectTo(t, r)
	ring.emit(1)
	r.relayBatch()
	c := r.clients.list[0]
	batch := r.buf[:10*notify.RecordSize]
	for range 100 {
		c.lose(uint64(len(batch)/notify.RecordSize), true)
		if _, _, err := r.poll(time.Now(), false); err != nil {
			t.Fatal(err)
		}
		if err := c.send(batch); err != nil {
			t.Fatal(err)
		}
	}
	if log.count("client is behind") != 1 || log.count("has caught up") != 0 || c.lost != 1000 {
		t.Errorf("lost %d records, want 1000 in one episode; log:\n%v", c.lost, log)
	}
	c.behind.start = c.behind.start.Add(-starvedTime)
	if err := c.send(batch); err != nil {
		t.Fatal(err)
	}
	if log.count("has caught up", " lost=1000 ") != 1 || c.behind.on {
		t.Errorf("the episode has not ended\n%v", log)
	}
	readAll(t, conn, c.records)

	// If the queue then fills up, the episode ends like any other.
	c.lose(uint64(len(batch)/notify.RecordSize), true)
	c.lose(uint64(len(batch)/notify.RecordSize), false)
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if c.behind.on || c.events&unix.POLLOUT != 0 || c.episodes != 2 {
		t.Errorf("the episode has not ended\n%v", log)
	}
	// So soon after the first it is not logged, but the next that is says so.
	if log.count("client is behind") != 1 || log.count("has caught up") != 1 {
		t.Errorf("the log has more than one episode:\n%v", log)
	}
	c.behind.limit = logLimiter{}
	c.lose(1, false)
	if log.count("client is behind", "episodes_not_logged=1") != 1 {
		t.Errorf("the log does not say that there was another episode:\n%v", log)
	}
}

// TestListenerPaused: a listener that cannot even refuse clients is not polled for a
// while, or until a client leaves.
func TestListenerPaused(t *testing.T) {
	r, _ := newTestRelay(t)
	connectTo(t, r)
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	connectTo(t, r)
	r.clients.ln.pause()
	begin := time.Now()
	if _, _, err := r.poll(begin, false); err != nil {
		t.Fatal(err)
	}
	if r.pollfds[pollClients].Fd != -1 || len(r.clients.list) != 1 {
		t.Errorf("it is not paused: %d clients", len(r.clients.list))
	}
	if until := r.clients.ln.pausedUntil; until.Before(begin) || until.After(begin.Add(pauseTime)) {
		t.Errorf("it is paused until %v from now", until.Sub(begin))
	}
	r.clients.drop(r.clients.list[0], "for the test")
	r.clients.reap()
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	if len(r.clients.list) != 1 {
		t.Errorf("%d clients after one has left, want 1", len(r.clients.list))
	}
}

// TestBacklogAtStop: a client still in the backlog at the end was not refused.
func TestBacklogAtStop(t *testing.T) {
	for version := uint32(notify.Version1); version <= notify.Version2; version++ {
		r, _ := newTestRelay(t)
		conn := connectTo(t, r)
		req := notify.Request{Version: version, MaxRecords: 1}
		pkt, err := req.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(pkt); err != nil {
			t.Fatal(err)
		}
		r.close()
		if version == notify.Version2 {
			expectRaw(t, conn, notify.TypeHello)
			expectRaw(t, conn, notify.TypeEnd)
		}
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("version %d: at the end: %d, %v", version, n, err)
		}
	}
}

// expectRaw receives a packet of one record and returns it.
func expectRaw(t *testing.T, conn *net.UnixConn, typ notify.Type) (rec notify.Record) {
	t.Helper()
	var b [2 * notify.RecordSize]byte
	n, err := conn.Read(b[:])
	if err == nil {
		err = rec.UnmarshalBinary(b[:n])
	}
	if err != nil || rec.Type != typ {
		t.Fatalf("got %+v, %v, not one of type %v", rec, err, typ)
	}
	return rec
}

// TestUnreadPacket: a client gets all records even if the daemon ends without reading
// what the client sent.
func TestUnreadPacket(t *testing.T) {
	r, ring := newTestRelay(t)
	conn := connectTo(t, r)
	ring.emit(10)
	r.relayBatch()
	for range 3 {
		if _, err := conn.Write(packet(notify.Version1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	r.close()
	readAll(t, conn, 10)
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// TestPublishing: state is written only after it has changed.
func TestPublishing(t *testing.T) {
	r, ring := newTestRelay(t)
	r.pub.check = 0 // nobody removes the files
	if err := r.pub.start(); err != nil {
		t.Fatal(err)
	}
	if next := r.pub.next(r.changed()); !next.IsZero() {
		t.Errorf("without a change it is due at %v", next)
	}
	ring.emit(10)
	r.relayBatch()
	due := r.pub.next(r.changed())
	if due.IsZero() {
		t.Fatal("after a change it is never due")
	}
	for _, tt := range []struct {
		name string
		now  time.Time
		want uint64
	}{{"early", due.Add(-1), 0}, {"due", due, 10}} {
		r.pub.tick(tt.now, r.changed())
		st, err := notify.ReadState(r.pub.dir.path(notify.StateName))
		if err != nil || st.Records != tt.want {
			t.Errorf("%s: state %+v, %v", tt.name, st, err)
		}
	}
	if next := r.pub.next(r.changed()); !next.IsZero() {
		t.Errorf("after writing it is due at %v", next)
	}

	// A failed write is retried.
	ring.emit(10)
	r.relayBatch()
	dir := r.pub.dir.dir
	r.pub.dir.dir += "-gone"
	r.pub.tick(r.pub.next(r.changed()), false)
	r.pub.dir.dir = dir
	if next := r.pub.next(r.changed()); next.IsZero() {
		t.Fatal("after a failure it is never due")
	}
	r.pub.tick(r.pub.next(r.changed()), false)
	if st, err := notify.ReadState(r.pub.dir.path(notify.StateName)); err != nil || st.Records != 20 {
		t.Errorf("after a failure: state %+v, %v", st, err)
	}
}

// TestHalfClose: a client that has shut down its sending side still gets records.
func TestHalfClose(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	conn := d.rawDial()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	d.ring.emit(3)
	var b [2 * notify.RecordSize]byte
	for seq := uint64(1); seq <= 3; seq++ {
		n, err := conn.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		var r notify.Record
		if err := r.UnmarshalBinary(b[:n]); err != nil || r != record(seq) {
			t.Errorf("got %+v, %v, want seq %d", r, err, seq)
		}
	}
}

// TestSlowClient: a client that does not read loses what does not fit in its queue and
// sees a gap. No other client loses anything, and the log has one start and one end.
func TestSlowClient(t *testing.T) {
	for _, perPacket := range []int{1, notify.RingRecords} {
		t.Run(fmt.Sprint(perPacket), func(t *testing.T) {
			const records = 30_000
			cfg := testConfig(t)
			cfg.sendBuffer = minSendBuffer
			d := startDaemon(t, cfg)
			slow := d.dial(perPacket)

			healthy := d.dial(0)
			if err := lockstep(d.ring, healthy, records); err != nil {
				t.Fatal(err)
			}
			if healthy.Lost() != 0 {
				t.Errorf("another client lost %d records", healthy.Lost())
			}
			if d.log.count("client is behind") != 1 || d.log.count("has caught up") != 0 {
				t.Error("the log must have one start of an episode and no end")
			}

			got := uint64(0)
			done := make(chan error)
			go func() {
				for {
					r, err := slow.Next()
					if err == nil {
						got++
					}
					if err != nil || r.Seq == records+1 {
						done <- err
						return
					}
				}
			}()
			if d.log.await("client has caught up") == "" {
				t.Fatal("the daemon ended")
			}
			d.ring.emit(1)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got+slow.Lost() != records+1 {
				t.Errorf("got %d records and lost %d of %d", got, slow.Lost(), records+1)
			}
			d.ring.settle()
			d.stop()
			d.wait()
			line := d.log.await("client has caught up")
			if want := fmt.Sprintf(" lost=%d ", slow.Lost()); !strings.Contains(line, want) {
				t.Errorf("no %q in the log: %s", want, line)
			}
			if n := d.log.count("client is behind"); n != 1 {
				t.Errorf("%d episodes", n)
			}
		})
	}
}

// lockstep records n accesses, no faster than the client reads them.
func lockstep(ring *fakeRing, c *notify.Client, n int) error {
	for done := 0; done < n; {
		now := min(n-done, 500)
		ring.emit(now)
		if err := expect(c, uint64(done+1), uint64(done+now)); err != nil {
			return err
		}
		done += now
	}
	return nil
}
