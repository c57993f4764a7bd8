// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// runOnce runs a daemon that cannot start, and returns its error.
func runOnce(t *testing.T, cfg *config, ring *fakeRing) error {
	t.Helper()
	return run(context.Background(), cfg, &fakeSystem{ring: ring})
}

func TestSocketInTheWay(t *testing.T) {
	listenOn := func(network string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want error // nil if it is replaced
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"dead", func(t *testing.T, path string) {
			ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			ln.SetUnlinkOnClose(false)
			ln.Close()
		}, nil},
		{"live", listenOn("unixpacket"), errServed},
		{"live stream", listenOn("unix"), errServed},
		{"live with a full backlog", func(t *testing.T, path string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
				t.Fatal(err)
			}
			for {
				c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Close(c) })
				if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
					return
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}, errServed},
		{"file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, errInTheWay},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, errInTheWay},
	} {
		inTheWay := func(t *testing.T, name func(path string) string) {
			cfg := testConfig(t)
			dir := filepath.Join(cfg.runDir, testMount.FSID.String())
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := name(filepath.Join(dir, notify.SocketName))
			tt.make(t, path)
			if tt.want == nil {
				d := startDaemon(t, cfg)
				c := d.dial(0)
				d.ring.emit(1)
				if err := expect(c, 1, 1); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(boundName(d.socket())); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("its first name is left: %v", err)
				}
				return
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			ring := newFakeRing(t)
			if err := runOnce(t, cfg, ring); !errors.Is(err, tt.want) {
				t.Errorf("run: %v, want %v", err, tt.want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it was touched: %v", err)
			}
			if !ring.closed() {
				t.Error("the reader is still attached")
			}
		}
		t.Run(tt.name, func(t *testing.T) {
			inTheWay(t, func(path string) string { return path })
		})
		t.Run(tt.name+" at its first name", func(t *testing.T) { inTheWay(t, boundName) })
	}
}

// TestNobodyRefused: whoever connects while a daemon starts finds no socket, or one
// that takes the connection.
func TestNobodyRefused(t *testing.T) {
	const starts, clients = 100, 4
	dir := testConfig(t).runDir
	for i := range starts {
		path := filepath.Join(dir, fmt.Sprint(i))
		var all, running sync.WaitGroup
		running.Add(clients)
		var errs [clients]error
		for c := range clients {
			all.Go(func() {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
				running.Done()
				if err == nil {
					defer unix.Close(fd)
					for err = unix.ENOENT; err == unix.ENOENT; {
						err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
					}
				}
				errs[c] = err
			})
		}
		running.Wait()
		ln, err := listen(path, minSendBuffer)
		if err != nil {
			// They would wait for ever.
			panic(err)
		}
		all.Wait()
		ln.close()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
	}
}

// TestListenReplacesNothing: what appears in the socket's place while the daemon
// starts stays.
func TestListenReplacesNothing(t *testing.T) {
	path := filepath.Join(testConfig(t).runDir, "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ln := &listener{fd: fd, path: path, spare: -1}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ln.bind(); !errors.Is(err, os.ErrExist) {
		t.Errorf("bind: %v", err)
	}
	ln.close()
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q, %v", b, err)
	}
	if _, err := os.Lstat(boundName(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its first name is left: %v", err)
	}
}

// TestSocketPath: the path is as long as a socket's can be, with its first name.
func TestSocketPath(t *testing.T) {
	dir := testConfig(t).runDir
	path := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)-1))
	ln, err := listen(path, minSendBuffer)
	if err != nil {
		t.Fatal(err)
	}
	ln.close()
	if _, err := listen(path+"x", minSendBuffer); err == nil || !strings.Contains(err.Error(), "choose a shorter run directory") {
		t.Errorf("a longer one: %v", err)
	}
}

func TestSecondRun(t *testing.T) {
	cfg := testConfig(t)
	d := startDaemon(t, cfg)
	c := d.dial(0)
	other := *cfg
	other.mountPoint = "/mnt/other"
	err := runOnce(t, &other, newFakeRing(t))
	if !errors.Is(err, errServed) || !strings.Contains(err.Error(), cfg.mountPoint) {
		t.Errorf("run: %v", err)
	}
	d.ring.emit(1)
	if err := expect(c, 1, 1); err != nil {
		t.Error(err)
	}
}

// TestForeignSocketStays: a daemon removes its own socket, but not one that has
// replaced it.
func TestForeignSocketStays(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	if err := os.Remove(d.socket()); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: d.socket(), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d.stop()
	if err := d.wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(d.socket()); err != nil {
		t.Errorf("the other socket: %v", err)
	}
}

// TestLockRemoved: a process that opened the lock file before its holder removed it
// does not get the lock, and does not keep later ones from getting it.
func TestLockRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), notify.LockName)
	holder, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	waiter, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter.Close()
	if ok, err := takeLock(waiter); ok || !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("while it is held: %v, %v", ok, err)
	}
	if f, err := lockFile(path); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("while it is held: %v, %v", f, err)
	}
	os.Remove(path)
	holder.Close()
	if ok, err := takeLock(waiter); ok || err != nil {
		t.Errorf("after its removal: %v, %v", ok, err)
	}
	next, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if ok, err := takeLock(waiter); ok || err != nil {
		t.Errorf("while the next holds its own: %v, %v", ok, err)
	}
}

func TestMaxClients(t *testing.T) {
	cfg := testConfig(t)
	cfg.maxClients = 2
	d := startDaemon(t, cfg)
	first, second := d.dial(0), d.dial(0)
	for range 5 {
		c, err := notify.Dial(d.socket())
		if err == nil {
			_, err = c.Next()
			c.Close()
		}
		if !errors.Is(err, notify.ErrRefused) {
			t.Errorf("a client above the limit: %v", err)
		}
	}
	if n := d.log.count("as many as -max-clients allows"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	first.Close()
	d.awaitCount(1, "client leaves")
	third := d.dial(0)
	d.ring.emit(3)
	if err := errors.Join(expect(second, 1, 3), expect(third, 1, 3)); err != nil {
		t.Error(err)
	}
	st := d.awaitState(func(st *notify.State) bool { return st.Records == 3 })
	if st.Accepted != 3 || st.Refused.MaxClients != 5 || len(st.Clients) != 2 {
		t.Errorf("state: %+v", st)
	}
}

// awaitState reads the state file until ok returns true. The daemon writes it within
// its interval after each change.
func (d *testDaemon) awaitState(ok func(*notify.State) bool) *notify.State {
	d.t.Helper()
	path := filepath.Join(d.dir, notify.StateName)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, d.dir, unix.IN_MOVED_TO); err != nil {
		d.t.Fatal(err)
	}
	for {
		st, err := notify.ReadState(path)
		if err != nil {
			d.t.Fatal(err)
		}
		if ok(st) {
			return st
		}
		var events [4096]byte
		if _, err := unix.Read(fd, events[:]); err != nil && err != unix.EINTR {
			d.t.Fatal(err)
		}
	}
}

// TestStorm: hundreds of short-lived clients that send nothing, read nothing or crash
// leave nothing behind and cost no other client a record.
func TestStorm(t *testing.T) {
	cfg := testConfig(t)
	cfg.maxClients = 20
	d := startDaemon(t, cfg)
	healthy := d.dial(0)
	before := descriptors(t)

	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 100 {
				conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: d.socket(), Net: "unixpacket"})
				if err != nil {
					t.Error(err)
					return
				}
				switch (w + i) % 4 {
				case 0: // crash
				case 1:
					conn.Write(packet(notify.Version1, 1024))
				case 2:
					conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				case 3:
					conn.CloseWrite()
					conn.Read(make([]byte, 64))
				}
				conn.Close()
			}
		}()
	}
	stormOver := make(chan struct{})
	go func() {
		wg.Wait()
		close(stormOver)
	}()
	n := uint64(0)
	for over := false; !over; {
		select {
		case <-stormOver:
			over = true
		default:
		}
		d.ring.emit(100)
		if err := expect(healthy, n+1, n+100); err != nil {
			t.Fatal(err)
		}
		n += 100
	}
	st := d.awaitState(func(st *notify.State) bool { return len(st.Clients) == 1 && st.Records == n })
	if got := st.Accepted + st.Refused.MaxClients + st.Refused.Credentials; got > 801 || st.Refused.Resources != 0 {
		t.Errorf("state: %+v", st)
	}
	d.ring.settle()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSums: records sent and lost add up to those drained, in the state, the metrics
// and the client's own count.
func TestSums(t *testing.T) {
	cfg := testConfig(t)
	cfg.sendBuffer = minSendBuffer
	d := startDaemon(t, cfg)
	slow := d.dial(1)
	d.ring.emitAll(100_000)
	d.ring.settle()
	st := d.awaitState(func(st *notify.State) bool { return st.Records == 100_000 })
	c := st.Clients[0]
	if c.Records+c.Lost != st.Records || c.Lost == 0 || !c.Behind {
		t.Errorf("state: %+v", c)
	}
	if st.SentRecords != c.Records || st.SentPackets != c.Packets || st.LostRecords != c.Lost || st.LostEpisodes != 1 || c.Packets-c.Records != uint64(c.Protocol-1) {
		t.Errorf("state: %+v", st)
	}
	metrics, err := os.ReadFile(filepath.Join(d.dir, notify.MetricsName))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"records_total{": st.Records, "sent_records_total{": c.Records, "sent_bytes_total{": c.Records * 64, "lost_records_total{": c.Lost,
	} {
		line := fmt.Sprintf("\nscoutfs_notify_%sfsid=\"%v\"} %d\n", name, testMount.FSID, want)
		if !strings.Contains(string(metrics), line) {
			t.Errorf("no line%sin\n%s", line, metrics)
		}
	}
	d.stop()
	d.wait()
	got := uint64(0)
	for {
		if _, err := slow.Next(); err != nil {
			break
		}
		got++
	}
	// In version 1 the client cannot see that it lost the last ones: no record follows.
	if got != c.Records || slow.Lost() > c.Lost || protocol == notify.Version2 && slow.Lost() != c.Lost && largeQueues {
		t.Errorf("the client got %d records and lost %d, by its own count", got, slow.Lost())
	}
	if d.log.await("client leaves", fmt.Sprintf("sent=%d lost=%d", c.Records, c.Lost)) == "" {
		t.Error("no such log line")
	}
}

// TestStopAtOnce: a stop before the start is a success.
func TestStopAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := run(ctx, testConfig(t), &fakeSystem{ring: newFakeRing(t)}); err != nil {
		t.Error(err)
	}
}

// TestStopWhileStarting: the daemon can be stopped while it waits for the kernel.
func TestStopWhileStarting(t *testing.T) {
	cfg := testConfig(t)
	ctx, cancel := context.WithCancel(context.Background())
	if err := run(ctx, cfg, &slowSystem{fakeSystem{ring: newFakeRing(t)}, cancel}); err != nil {
		t.Error(err)
	}
}

// slowSystem stops the daemon while it attaches, which then ends.
type slowSystem struct {
	fakeSystem
	stop func()
}

func (s *slowSystem) Attach(ctx context.Context, _ string, _ notify.Device) (source, error) {
	s.stop()
	return nil, fmt.Errorf("attach: %w", ctx.Err())
}
