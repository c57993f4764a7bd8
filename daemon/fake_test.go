// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var testMount = notify.Mount{FSID: 0x0123456789abcdef, RID: 0xfedcba9876543210, Device: notify.Device{Major: 7, Minor: 3}}

// fakeRing behaves to the relay like the kernel's ring and its descriptor. The
// descriptor is a pipe's, which holds a byte while the ring is not empty, and which
// unmount hangs up.
type fakeRing struct {
	mu      sync.Mutex
	cond    sync.Cond // signalled by Drain
	r, w    int       // -1 once closed
	recs    []notify.Record
	seq     uint64
	emitted uint64
	dropped uint64
	settled bool // the last drain found nothing
	mute    bool // Range does not know
	real    bool // records have the time, and inodes that are the mount's own
	mount   notify.Mount
	gone    bool
	failure error   // for Drain to return
	token   [1]byte // for the pipe
}

func makeFakeRing() (*fakeRing, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	f := &fakeRing{r: p[0], w: p[1], mount: testMount, recs: make([]notify.Record, 0, notify.RingRecords)}
	f.cond.L = &f.mu
	return f, nil
}

func newFakeRing(t testing.TB) *fakeRing {
	t.Helper()
	f, err := makeFakeRing()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, fd := range []*int{&f.w, &f.r} {
			if *fd >= 0 {
				unix.Close(*fd)
				*fd = -1
			}
		}
	})
	return f
}

// record returns the fake ring's record with a sequence number.
func record(seq uint64) notify.Record {
	return notify.Record{
		Seq: seq, TimeNS: 1e18 + seq, Ino: seq * 3, Offset: seq << 12, Length: 4096,
		PID: uint32(seq), TID: uint32(seq + 1), UID: 1000, GID: 100, OpenFlags: unix.O_RDONLY, Type: notify.TypeRead,
	}
}

// emit records n accesses, and drops those for which the ring has no room.
func (f *fakeRing) emit(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emitLocked(n)
}

func (f *fakeRing) emitLocked(n int) {
	f.settled = false
	for range n {
		f.seq++
		if len(f.recs) == notify.RingRecords {
			f.dropped++
			continue
		}
		if len(f.recs) == 0 {
			unix.Write(f.w, f.token[:])
		}
		rec := record(f.seq)
		if f.real {
			rec.TimeNS = uint64(time.Now().UnixNano())
			rec.Ino = f.seq | uint64(f.mount.RID)<<32
		}
		f.recs = append(f.recs, rec)
		f.emitted++
	}
}

// emitAll records n accesses, waiting for room.
func (f *fakeRing) emitAll(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n > 0 {
		for len(f.recs) == notify.RingRecords {
			f.cond.Wait()
		}
		now := min(n, notify.RingRecords-len(f.recs))
		f.emitLocked(now)
		n -= now
	}
}

// settle waits until the relay has drained an empty ring, by which time it has sent
// everything recorded.
func (f *fakeRing) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.settled && f.r >= 0 {
		f.cond.Wait()
	}
}

// fail makes the next drain fail.
func (f *fakeRing) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
	if len(f.recs) == 0 {
		unix.Write(f.w, f.token[:])
	}
}

func (f *fakeRing) unmount() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	unix.Close(f.w)
	f.w = -1
}

func (f *fakeRing) closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r < 0
}

func (f *fakeRing) Mount() notify.Mount { return f.mount }

func (f *fakeRing) Fd() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r
}

func (f *fakeRing) Drain(buf []byte) (int, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.cond.Broadcast()
	if f.r < 0 {
		return 0, f.dropped, notify.ErrClosed
	}
	if f.failure != nil {
		return 0, f.dropped, f.failure
	}
	if len(f.recs) == 0 && f.gone {
		return 0, f.dropped, notify.ErrUnmounted
	}
	f.settled = len(f.recs) == 0
	n := min(len(f.recs), len(buf)/notify.RecordSize)
	b := buf[:0]
	for i := range n {
		b, _ = f.recs[i].AppendBinary(b)
	}
	f.recs = slices.Delete(f.recs, 0, n)
	if n > 0 && len(f.recs) == 0 {
		unix.Read(f.r, f.token[:])
	}
	dropped := f.dropped
	if left := uint64(len(f.recs)); left > 0 {
		// only those before the oldest record that is left
		first := f.seq + 1 - f.emitted - f.dropped
		dropped = f.recs[0].Seq - first - (f.emitted - left)
	}
	return n, dropped, nil
}

func (f *fakeRing) Range() (first, next uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute || f.r < 0 {
		return 0, 0, false
	}
	return f.seq + 1 - f.emitted - f.dropped, f.seq + 1, true
}

func (f *fakeRing) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.cond.Broadcast()
	if f.r < 0 {
		return notify.ErrClosed
	}
	unix.Close(f.r)
	f.r = -1
	return nil
}

// fakeSystem is a system with one ring, or an error.
type fakeSystem struct {
	ring      *fakeRing
	attachErr error
	table     *fakeTable // for a daemon that waits
}

func (s *fakeSystem) Statfs(context.Context, string) (notify.Mount, error) { return testMount, nil }

func (s *fakeSystem) Attach(context.Context, string, notify.Device) (source, error) {
	if s.attachErr != nil {
		return nil, s.attachErr
	}
	return s.ring, nil
}

func (s *fakeSystem) Mounts() (mountTable, error) { return s.table, nil }

// logs keeps log lines for tests to wait for.
type logs struct {
	mu    sync.Mutex
	cond  sync.Cond
	lines []string
	ended bool
}

func newLogs() *logs {
	l := new(logs)
	l.cond.L = &l.mu
	return l
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	l.cond.Broadcast()
	return len(b), nil
}

func (l *logs) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.cond.Broadcast()
}

// await waits for a line with all parts and returns the first, or "" if the log ends
// without one.
func (l *logs) await(parts ...string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 0; ; i++ {
		for i == len(l.lines) {
			if l.ended {
				return ""
			}
			l.cond.Wait()
		}
		if hasAll(l.lines[i], parts) {
			return l.lines[i]
		}
	}
}

func (l *logs) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if hasAll(line, parts) {
			n++
		}
	}
	return n
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}

func hasAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// testDaemon is a daemon in the test's process, on a fake ring.
type testDaemon struct {
	t    testing.TB
	ring *fakeRing
	log  *logs
	dir  string // the file system's run directory
	stop context.CancelFunc
	done chan struct{}
	err  error // of run, set when done is closed
}

// testConfig returns a configuration for a test, with a short interval for the files.
func testConfig(t testing.TB) *config {
	t.Helper()
	cfg := defaultConfig()
	cfg.mountPoint = "/mnt/scoutfs"
	// t.TempDir has the test's name in it and may be too long for a socket.
	dir, err := os.MkdirTemp("", "notifyd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg.runDir = dir
	cfg.interval = time.Millisecond
	cfg.queueLimit = 1 << 40
	cfg.check = time.Millisecond
	cfg.retry = time.Millisecond
	cfg.version = "test"
	cfg.log = slog.New(slog.DiscardHandler)
	return cfg
}

// largeQueues is true if queues can be larger than net.core.wmem_max.
var largeQueues = true

// fallBack makes the daemon accept the system's limit on queues if the tests run
// without CAP_NET_ADMIN. In production it requires that.
func fallBack() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setSendBuffer(fd, defaultSendBuffer); errors.Is(err, os.ErrPermission) {
		largeQueues, sendBufferOption = false, unix.SO_SNDBUF
	} else if err != nil {
		return err
	}
	return nil
}

// startDaemon starts a daemon and waits until it serves. The end of the test stops it.
func startDaemon(t testing.TB, cfg *config) *testDaemon {
	t.Helper()
	return startDaemonOn(t, cfg, newFakeRing(t))
}

// startDaemonOn is startDaemon on a ring.
func startDaemonOn(t testing.TB, cfg *config, ring *fakeRing) *testDaemon {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	d := &testDaemon{
		t: t, ring: ring, log: newLogs(), stop: stop, done: make(chan struct{}),
		dir: filepath.Join(cfg.runDir, testMount.FSID.String()),
	}
	own := *cfg
	own.log = d.log.logger()
	go func() {
		d.err = run(ctx, &own, &fakeSystem{ring: d.ring})
		d.log.end()
		close(d.done)
	}()
	// The daemon's end also ends all waits of a test that hangs.
	limit := time.AfterFunc(30*time.Second, stop)
	t.Cleanup(func() {
		limit.Stop()
		stop()
		<-d.done
		if t.Failed() {
			t.Logf("log of the daemon:\n%v", d.log)
		}
	})
	if d.log.await("msg=serving") == "" {
		t.Fatalf("daemon ended: %v", d.err)
	}
	return d
}

func (d *testDaemon) socket() string { return filepath.Join(d.dir, notify.SocketName) }

// wait waits for the daemon's end.
func (d *testDaemon) wait() error {
	<-d.done
	return d.err
}

// dial connects a client and waits until the daemon has accepted it.
func (d *testDaemon) dial(maxRecords int) *notify.Client {
	d.t.Helper()
	return d.dialWith(&notify.Dialer{MaxRecords: maxRecords})
}

// dialWith is dial with options.
func (d *testDaemon) dialWith(dialer *notify.Dialer) *notify.Client {
	d.t.Helper()
	if dialer.Version == 0 {
		dialer.Version = protocol
	}
	before := d.log.count("client connects")
	c, err := dialer.DialContext(d.t.Context(), d.socket())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	d.awaitCount(before+1, "client connects")
	return c
}

// protocol is the version that clients speak which do not say.
var protocol uint32 = notify.Version2

// rawDial connects a client that sends nothing and waits until the daemon has
// accepted it.
func (d *testDaemon) rawDial() *net.UnixConn {
	d.t.Helper()
	before := d.log.count("client connects")
	c := d.rawConn()
	d.awaitCount(before+1, "client connects")
	return c
}

// rawConn connects to the socket.
func (d *testDaemon) rawConn() *net.UnixConn {
	d.t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.socket(), Net: "unixpacket"})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// awaitCount waits for n log lines with all parts.
func (d *testDaemon) awaitCount(n int, parts ...string) {
	d.t.Helper()
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	for i := 0; n > 0; i++ {
		for i == len(d.log.lines) {
			if d.log.ended {
				d.t.Fatalf("daemon ended before it logged %q", parts)
			}
			d.log.cond.Wait()
		}
		if hasAll(d.log.lines[i], parts) {
			n--
		}
	}
}

// expect receives the records from first to last. Any other is an error.
func expect(c *notify.Client, first, last uint64) error {
	for seq := first; seq <= last; seq++ {
		r, err := c.Next()
		if err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		if r != record(seq) {
			return fmt.Errorf("record %d: got %+v", seq, r)
		}
	}
	return nil
}

// expectEOF receives the end of the stream. Anything else is an error.
func expectEOF(c *notify.Client) error {
	if r, err := c.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("expected the end of the stream, got %+v, %v", r, err)
	}
	return nil
}
