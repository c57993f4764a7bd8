// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const testFSID = notify.ID(0x0123456789abcdef) // as in the tests of the daemon

func TestMain(m *testing.M) {
	if socket := os.Getenv("INDEX_TEST_SOCKET"); socket != "" {
		os.Exit(child(socket, os.Getenv("INDEX_TEST_DIR")))
	}
	os.Exit(m.Run())
}

// child follows a socket into a store, as the program does, but by the stream's clock and
// with tiny limits, so that it flushes and merges all the time. Its disk is slow at times,
// so that it is killed in the middle.
func child(socket, dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	limits := Limits{Flush: time.Millisecond}
	fmt.Sscan(os.Getenv("INDEX_TEST_INODES"), &limits.Inodes)
	s, err := Open(dir, testFSID, limits)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var now atomic.Int64
	now.Store(int64(max(s.Node().Told, 1)))
	s.now = func() time.Time { return Millis(now.Load()).Time() }
	slow := time.Duration(rand.IntN(25)) * time.Millisecond
	s.changed = func(string) { time.Sleep(slow) }
	x := Exclude{UIDs: []uint32{7}}
	f := &Feed{
		Store: s, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Skip: x.Match, interval: time.Millisecond + slow,
		clock: func() (string, time.Duration) { return "boot", 0 },
	}
	err = f.Run(func(yield func(notify.Event, error) bool) {
		for ev, err := range notify.Follow(ctx, socket, &notify.Dialer{Resume: s.Resume(), Idle: IdleInterval}) {
			if rec, ok := ev.(*notify.Record); ok {
				now.Store(int64(millisOf(rec.TimeNS)))
			}
			if !yield(ev, err) {
				return
			}
		}
	})
	if ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// happened is an access as it was, whoever was told of it.
type happened struct {
	notify.Record
	mount int // from 0; the RID is one more
}

// world is a node: its mounts, their accesses, and a daemon that dies now and then.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	socket string
	dir    string
	inodes int // that the index keeps in memory

	now   time.Time
	mount int
	seq   uint64 // the last number
	base  uint64 // the first number of the reader
	told  uint64 // to the client
	ever  bool   // the mount has had a reader
	all   []happened

	ln    *net.UnixListener
	conns chan *net.UnixConn
	conn  *net.UnixConn // the client, nil for none
	index *exec.Cmd
}

func (w *world) rid() notify.ID { return notify.ID(w.mount + 1) }

func (w *world) say(events ...notify.Event) {
	if w.conn == nil {
		return
	}
	var b []byte
	for _, ev := range events {
		b, _ = ev.(encoding.BinaryAppender).AppendBinary(b)
	}
	if len(b) == 0 {
		return
	}
	w.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := w.conn.Write(b); err != nil {
		w.hangUp()
	}
}

func (w *world) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// startDaemon attaches and listens.
func (w *world) startDaemon() {
	if w.ever {
		w.seq++ // as the kernel does
	}
	w.ever = true
	w.base, w.told = w.seq+1, w.seq
	os.Remove(w.socket)
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: w.socket, Net: "unixpacket"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.ln = ln
	go func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			w.conns <- c
		}
	}()
}

// stopDaemon ends the daemon; a reason makes it say so before.
func (w *world) stopDaemon(reason notify.Reason) {
	if reason != 0 {
		w.say(&notify.End{Seq: w.told, Reason: reason, Time: w.now})
	}
	w.ln.Close()
	w.hangUp()
	for {
		select {
		case c := <-w.conns:
			c.Close()
		default:
			return
		}
	}
}

// greet waits for the index to connect and tells it what it has missed.
func (w *world) greet() {
	if w.index == nil || w.conn != nil {
		return
	}
	for w.conn == nil {
		var c *net.UnixConn
		select {
		case c = <-w.conns:
		case <-time.After(30 * time.Second):
			w.t.Fatal("the index does not connect")
		}
		b := make([]byte, notify.RequestSize2+1)
		var req notify.Request
		n, err := c.Read(b)
		if err != nil || req.UnmarshalBinary(b[:n]) != nil {
			c.Close() // it was killed since
			continue
		}
		w.conn = c
		events := []notify.Event{&notify.Hello{Next: w.told + 1, Time: w.now, FSID: testFSID, RID: w.rid(), Version: notify.Version2}}
		if l := w.missed(req.Resume); l != nil {
			events = append(events, l)
		}
		if w.rnd.IntN(2) == 0 { // the index may write and flush before the rest comes
			w.say(events[0])
			w.awaitRead()
			time.Sleep(time.Duration(w.rnd.IntN(40)) * time.Millisecond)
			events = events[1:]
		}
		w.say(events...)
	}
}

// missed is as in the daemon.
func (w *world) missed(r notify.Resume) *notify.Lost {
	l := &notify.Lost{Cause: notify.LostAway, Time: w.now}
	switch {
	case r.RID == 0:
		return nil
	case r.RID != w.rid():
		return &notify.Lost{Cause: notify.LostAway | notify.LostUnattended, Unknown: true, Time: w.now}
	case r.Seq > w.told:
		w.t.Errorf("the index resumes at %d of %d", r.Seq, w.told)
		return nil
	case r.Seq+1 < w.base:
		l.Cause |= notify.LostUnattended
		l.Unknown = true
	case r.Seq == w.told:
		return nil
	}
	l.First, l.Last, l.Count = r.Seq+1, w.told, w.told-r.Seq
	return l
}

func (w *world) access() notify.Record {
	w.now = w.now.Add(time.Duration(1+w.rnd.IntN(60_000)) * time.Millisecond)
	rec := notify.Record{
		TimeNS: uint64(w.now.UnixNano()), Ino: 1 + w.rnd.Uint64N(60), PID: 1 + w.rnd.Uint32N(9),
		UID: 5 + w.rnd.Uint32N(3), GID: w.rnd.Uint32N(3), Type: notify.TypeOpen,
	}
	if w.rnd.IntN(3) > 0 {
		rec.Type, rec.Length = notify.TypeRead, 1+w.rnd.Uint64N(1<<20)
	}
	return rec
}

// unattended are accesses that nobody numbers.
func (w *world) unattended(n int) {
	for range n {
		w.all = append(w.all, happened{Record: w.access(), mount: w.mount})
	}
	w.now = w.now.Add(2 * time.Second)
}

// work makes accesses, and loses some.
func (w *world) work(n int) {
	var events []notify.Event
	for range n {
		rec := w.access()
		w.seq++
		rec.Seq = w.seq
		w.all = append(w.all, happened{Record: rec, mount: w.mount})
		events = append(events, &rec)
		if w.rnd.IntN(100) == 0 { // this one does not get through
			events[len(events)-1] = &notify.Lost{First: rec.Seq, Last: rec.Seq, Count: 1, Cause: notify.LostQueue, Time: w.now}
		}
	}
	w.told = w.seq
	w.say(events...)
	if w.rnd.IntN(2) == 0 {
		w.awaitRead()
	}
	if w.rnd.IntN(3) == 0 {
		w.now = w.now.Add(time.Duration(w.rnd.IntN(36)) * time.Hour)
		w.say(&notify.Idle{Seq: w.told, Time: w.now})
	}
}

// awaitRead waits until the index has read all that was sent.
func (w *world) awaitRead() {
	for w.conn != nil {
		raw, err := w.conn.SyscallConn()
		if err != nil {
			return
		}
		left := 0
		raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		if left == 0 {
			return
		}
		time.Sleep(time.Millisecond) // nothing tells
	}
}

func (w *world) startIndex() {
	w.index = exec.Command(os.Args[0])
	w.index.Env = append(os.Environ(), "INDEX_TEST_SOCKET="+w.socket, "INDEX_TEST_DIR="+w.dir, fmt.Sprint("INDEX_TEST_INODES=", w.inodes))
	w.index.Stderr = os.Stderr
	if err := w.index.Start(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stopIndex(sig syscall.Signal) {
	w.index.Process.Signal(sig)
	err := w.index.Wait()
	w.index = nil
	w.hangUp()
	if sig == syscall.SIGTERM && err != nil {
		w.t.Fatalf("the index failed: %v", err)
	}
}

// step is what happens between two pieces of work.
func (w *world) step() string {
	switch w.rnd.IntN(6) {
	case 0, 1:
		w.stopIndex(syscall.SIGKILL)
		w.work(w.rnd.IntN(20))
		w.startIndex()
		return "kill the index"
	case 2:
		w.stopIndex(syscall.SIGTERM)
		w.work(w.rnd.IntN(5))
		w.startIndex()
		return "restart the index"
	case 3:
		w.stopDaemon(0)
		w.unattended(w.rnd.IntN(5))
		w.startDaemon()
		return "kill the daemon"
	case 4:
		w.stopDaemon(notify.EndUnmounted)
		w.unattended(w.rnd.IntN(3))
		w.mount++
		w.seq, w.ever = 0, false
		w.startDaemon()
		return "remount"
	}
	w.stopIndex(syscall.SIGKILL)
	w.stopDaemon(0)
	w.unattended(w.rnd.IntN(5))
	if w.rnd.IntN(2) == 0 {
		w.mount++
		w.seq, w.ever = 0, false
	}
	w.startDaemon()
	w.startIndex()
	return "kill both"
}

// A store holds exactly what the replay of the stream gives that it does not say it has
// missed, and all it has missed lies in a gap that it tells, whenever it, the daemon or
// the mount ends. INDEX_ROUNDS and SEED make it longer and repeat it.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds, _ := strconv.Atoi(os.Getenv("INDEX_ROUNDS"))
	if rounds == 0 {
		rounds = 100
	}
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("SEED=%d INDEX_ROUNDS=%d", seed, rounds)
	dir := filepath.Dir(memoryDir(t))
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), socket: filepath.Join(dir, notify.SocketName), dir: filepath.Join(dir, "store"),
		inodes: 16, now: time.UnixMilli(1_700_000_000_000), conns: make(chan *net.UnixConn, 100),
	}
	defer func() {
		if w.index != nil {
			w.index.Process.Kill()
			w.index.Wait()
		}
	}()
	w.startDaemon()
	w.startIndex()
	for i := range rounds {
		w.greet()
		w.work(1 + w.rnd.IntN(200))
		name := w.step()
		if i%10 == 9 {
			w.greet()
			w.check(fmt.Sprintf("round %d, %s", i+1, name))
			if t.Failed() {
				break
			}
		}
	}
	w.greet()
	w.work(100)
	w.stopIndex(syscall.SIGTERM)
	w.stopDaemon(0)
	w.check("end")
}

// check compares the store with a replay of all that has happened.
func (w *world) check(when string) {
	w.t.Helper()
	v, err := OpenView(w.dir, testFSID)
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	defer v.Close()
	n := &v.Nodes[0]
	want := make(map[uint64]Entry)
	told, records := 0, uint64(0)
	for i := range w.all {
		h := &w.all[i]
		if n.has(Place{notify.ID(h.mount + 1), h.Seq}) {
			told++
			if h.UID == 7 {
				continue
			}
			records++
			e := access(&h.Record)
			if old, ok := want[h.Ino]; ok {
				old.add(&e)
				e = old
			}
			want[h.Ino] = e
			continue
		}
		at := millisOf(h.TimeNS)
		covered := at > n.Told || at < n.Since
		for _, g := range n.Gaps {
			covered = covered || g.From <= at && at <= g.To
		}
		if !covered {
			w.t.Errorf("%s: access %d of mount %d at %v was missed, and no gap says so", when, h.Seq, h.mount, at)
		}
	}
	if n.Records != records {
		w.t.Errorf("%s: %d records in the store, %d by the replay", when, n.Records, records)
	}
	got := 0
	err = All([]*View{v}, func(e *Entry) error {
		got++
		if *e != want[e.Ino] {
			w.t.Errorf("%s: inode %d:\n%+v in the store\n%+v by the replay", when, e.Ino, *e, want[e.Ino])
		}
		return nil
	})
	if err != nil {
		w.t.Errorf("%s: %v", when, err)
	}
	if got != len(want) {
		w.t.Errorf("%s: %d inodes in the store, %d by the replay", when, got, len(want))
	}
	w.checkCertain(v, when)
	w.t.Logf("%s: %d of %d accesses told, %d gaps, %d segments", when, told, len(w.all), len(n.Gaps), len(v.Segments()))
	if when == "end" && told < len(w.all)/4 {
		w.t.Errorf("only %d of %d accesses were told: this shows nothing", told, len(w.all))
	}
}

// has tells whether a number was told, by the gaps alone.
func (n *Node) has(p Place) bool {
	after := func(a, b Place) bool { return a.RID > b.RID || a.RID == b.RID && a.Seq > b.Seq }
	if p.Seq == 0 || after(p, n.At) || !after(p, n.Start) {
		return false
	}
	for _, g := range n.Gaps {
		if after(p, g.After) && after(g.Before, p) {
			return false
		}
	}
	return true
}

// checkCertain: what is certainly cold was not accessed, and what is warm was.
func (w *world) checkCertain(v *View, when string) {
	last := make(map[uint64]Millis) // of all accesses that count
	for i := range w.all {
		if h := &w.all[i]; h.UID != 7 {
			last[h.Ino] = max(last[h.Ino], millisOf(h.TimeNS))
		}
	}
	views := []*View{v}
	now := v.Nodes[0].Told
	certain := 0
	for i := 0; i < len(w.all); i++ {
		if step := 1 + len(w.all)/50; i%step != 0 && i < len(w.all)-50 {
			continue
		}
		cutoff := millisOf(w.all[i].TimeNS)
		d := DoubtOf(&v.Nodes[0], cutoff, now)
		for ino := uint64(1); ino <= 60; ino++ {
			e, ok, err := Find(views, ino)
			if err != nil {
				w.t.Fatal(err)
			}
			warm := ok && e.Last >= cutoff
			if warm && last[ino] < cutoff {
				w.t.Errorf("%s: inode %d was not accessed since %v", when, ino, cutoff)
			}
			if d.Certain() && !warm && last[ino] >= cutoff && last[ino] <= now {
				w.t.Errorf("%s: inode %d is certainly cold since %v, and was accessed at %v", when, ino, cutoff, last[ino])
			}
			if d.Certain() {
				certain++
			}
		}
	}
	w.t.Logf("%s: %d answers were certain", when, certain)
}
