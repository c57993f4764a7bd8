// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// asVersion1 makes the clients of all tests speak version 1.
const asVersion1 = "SCOUTFS_NOTIFYD_TEST_VERSION1"

// TestVersion1 runs the tests that version 1 was made with, with clients that speak it.
func TestVersion1(t *testing.T) {
	if protocol == notify.Version1 {
		t.Skip("skipped: this is the run")
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.timeout=2m", "-test.run=^(TestDelivery|TestKernelDropsShowAsGap|TestStop|TestStopUnderLoad|"+
		"TestUnmount|TestSourceFailure|TestSlowClient|TestMaxClients|TestSums|TestStorm|TestSecondRun|TestModes)$")
	cmd.Env = append(os.Environ(), asVersion1+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS") < 10 {
		t.Errorf("%v\n%s", err, out)
	}
}

// account is what a client has to say about a stream, from its side alone.
type account struct {
	hello   *notify.Hello
	records uint64
	seqs    []uint64
	lost    []notify.Lost
	sum     uint64 // of the losses
	idle    int
	end     *notify.End
	err     error
}

// listen collects all events to the end.
func (a *account) listen(ctx context.Context, c *notify.Client) {
	for ev, err := range c.Events(ctx) {
		if err != nil {
			a.err = err
			return
		}
		switch ev := ev.(type) {
		case *notify.Hello:
			a.hello = ev
		case *notify.Record:
			a.records++
			a.seqs = append(a.seqs, ev.Seq)
		case *notify.Lost:
			a.lost = append(a.lost, *ev)
			a.sum += ev.Count
		case *notify.Idle:
			a.idle++
		case *notify.End:
			a.end = ev
		}
	}
}

// balance checks that every number between the hello and the end is accounted for.
func (a *account) balance() error {
	switch {
	case a.err != nil:
		return a.err
	case a.hello == nil || a.end == nil:
		return fmt.Errorf("hello %+v, end %+v", a.hello, a.end)
	case a.records+a.sum != a.end.Seq-(a.hello.Next-1):
		return fmt.Errorf("%d records and %d lost, but the numbers are %d to %d: %+v", a.records, a.sum, a.hello.Next, a.end.Seq, a.lost)
	}
	return nil
}

func TestHello(t *testing.T) {
	before := time.Now()
	d := startDaemon(t, testConfig(t))
	d.ring.emit(3)
	d.ring.settle()
	h := d.dial(0).Hello()
	if h.Next != 4 || h.FSID != testMount.FSID || h.RID != testMount.RID || h.Device != testMount.Device || h.Version != notify.Version2 {
		t.Errorf("%+v", h)
	}
	for name, at := range map[string]time.Time{"daemon": h.DaemonStart, "reader": h.ReaderStart, "now": h.Time} {
		if at.Before(before) || at.After(time.Now()) {
			t.Errorf("%s: %v is not between %v and now", name, at, before)
		}
	}
	st := d.awaitState(func(st *notify.State) bool { return st.Records == 3 })
	if st.Device != testMount.Device || !st.Attached.Equal(h.ReaderStart) {
		t.Errorf("the state has device %v, attached %v", st.Device, st.Attached)
	}
}

// TestLossWithoutRecord: a loss is told as soon as it is known, although no record
// follows it.
func TestLossWithoutRecord(t *testing.T) {
	for _, mute := range []bool{false, true} {
		d := startDaemon(t, testConfig(t))
		d.ring.mu.Lock()
		d.ring.mute = mute
		d.ring.mu.Unlock()
		c := d.dial(0)
		d.ring.emit(5000)
		if err := expect(c, 1, notify.RingRecords); err != nil {
			t.Fatal(err)
		}
		for ev, err := range c.Events(t.Context()) {
			if _, ok := ev.(*notify.Hello); ok {
				continue
			}
			l, ok := ev.(*notify.Lost)
			if !ok || l.First != 1025 || l.Last != 5000 || l.Count != 3976 || l.Cause != notify.LostKernel || l.AtMost || l.Unknown {
				t.Errorf("got %+v, %v", ev, err)
			}
			break
		}
		if c.Lost() != 3976 {
			t.Errorf("Lost says %d", c.Lost())
		}
	}
}

// TestLossAtEnd: a client that never reads is told what it lost before the end, and why
// that came, however full its queue is.
func TestLossAtEnd(t *testing.T) {
	if !largeQueues {
		t.Skip("skipped: without CAP_NET_ADMIN a full queue cannot be made larger")
	}
	for _, tt := range []struct {
		name   string
		end    func(d *testDaemon)
		reason notify.Reason
	}{
		{"stop", func(d *testDaemon) { d.stop() }, notify.EndStopping},
		{"unmount", func(d *testDaemon) { d.ring.unmount() }, notify.EndUnmounted},
		{"failure", func(d *testDaemon) { d.ring.fail(unix.EIO) }, notify.EndFailed},
	} {
		for _, perPacket := range []int{1, notify.RingRecords} {
			t.Run(fmt.Sprintf("%s, %d a packet", tt.name, perPacket), func(t *testing.T) {
				cfg := testConfig(t)
				cfg.sendBuffer = minSendBuffer
				d := startDaemon(t, cfg)
				c := d.dial(perPacket)
				d.ring.emitAll(50_000)
				d.ring.settle()
				tt.end(d)
				d.wait()
				var a account
				a.listen(t.Context(), c)
				if err := a.balance(); err != nil {
					t.Fatal(err)
				}
				if a.end.Reason != tt.reason || a.end.Seq != 50_000 || a.hello.Next != 1 {
					t.Errorf("hello %+v, end %+v", a.hello, a.end)
				}
				if len(a.lost) != 1 || a.lost[0].Cause != notify.LostQueue {
					t.Errorf("losses: %+v", a.lost)
				}
			})
		}
	}
}

// TestBeforeTheRelay: accesses between attaching and the relay's start are not lost.
func TestBeforeTheRelay(t *testing.T) {
	for _, accesses := range []int{3, 2000} {
		ring := newFakeRing(t)
		ring.seq = 11
		ring.emit(accesses)
		d := startDaemonOn(t, testConfig(t), ring)
		d.ring.settle()
		if st := d.awaitState(func(st *notify.State) bool { return st.Records > 0 }); st.KernelDropped != uint64(max(0, accesses-notify.RingRecords)) {
			t.Errorf("state: %+v", st)
		}
		if h := d.dial(0).Hello(); h.Next != 12+uint64(accesses) {
			t.Errorf("after %d accesses from 12 on: %+v", accesses, h)
		}
	}
}

// TestDroppedAtUnmount: what the last drain alone says was dropped is told as lost.
func TestDroppedAtUnmount(t *testing.T) {
	r, ring := newTestRelay(t)
	conn := connectTo(t, r)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	req := notify.Request{Version: notify.Version2, MaxRecords: 1}
	pkt, _ := req.MarshalBinary()
	conn.Write(pkt)
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	ring.emit(1)
	if n, err := r.relayBatch(); n != 1 || err != nil {
		t.Fatalf("relayed %d records, %v", n, err)
	}
	// Five are dropped while that is copied, and fdinfo cannot be read in the end.
	ring.dropped, ring.mute = 5, true
	ring.unmount()
	if _, err := r.relayBatch(); !errors.Is(err, notify.ErrUnmounted) {
		t.Errorf("the last drain: %v", err)
	}
	expectRaw(t, conn, notify.TypeHello)
	expectRaw(t, conn, notify.TypeRead)
	lost := expectRaw(t, conn, notify.TypeLost)
	if l := lost.Control().(*notify.Lost); l.First != 2 || l.Last != 6 || l.Count != 5 || l.Cause != notify.LostKernel {
		t.Errorf("lost: %+v", l)
	}
	if st := r.snapshot(); st.KernelDropped != 5 {
		t.Errorf("state: %+v", st)
	}
}

// lateRing is one that the relay comes to late: when it drains, the ring is full.
type lateRing struct {
	*fakeRing
	drained time.Time
}

func (l *lateRing) Drain(buf []byte) (n int, dropped uint64, err error) {
	l.emit(notify.RingRecords + 1)
	n, dropped, err = l.fakeRing.Drain(buf)
	l.drained = time.Now()
	return n, dropped, err
}

// TestLossTime: what was lost in the kernel was accessed before the time that the loss is
// told with.
func TestLossTime(t *testing.T) {
	r, ring := newTestRelay(t)
	late := &lateRing{fakeRing: ring}
	r.src = late
	conn := connectTo(t, r)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	req := notify.Request{Version: notify.Version2, MaxRecords: notify.RingRecords}
	pkt, _ := req.MarshalBinary()
	conn.Write(pkt)
	if _, err := r.relayBatch(); err != nil {
		t.Fatal(err)
	}
	expectRaw(t, conn, notify.TypeHello)
	buf := make([]byte, (notify.RingRecords+1)*notify.RecordSize)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		var last notify.Record
		last.UnmarshalBinary(buf[n-notify.RecordSize : n])
		lost, ok := last.Control().(*notify.Lost)
		if !ok {
			continue
		}
		if lost.Count != 1 || lost.Time.Before(late.drained.Round(0)) {
			t.Errorf("%+v, and the drain ended at %v", lost, late.drained)
		}
		return
	}
}

// TestUndrainedAtStop: what the ring still holds when the daemon stops is told as lost.
func TestUndrainedAtStop(t *testing.T) {
	r, ring := newTestRelay(t)
	conn := connectTo(t, r)
	req := notify.Request{Version: notify.Version2, MaxRecords: 1}
	pkt, _ := req.MarshalBinary()
	conn.Write(pkt)
	if _, _, err := r.poll(time.Now(), false); err != nil {
		t.Fatal(err)
	}
	ring.emit(2000)
	r.close()
	if h := expectRaw(t, conn, notify.TypeHello); h.Seq != 1 {
		t.Errorf("hello: %+v", h)
	}
	lost := expectRaw(t, conn, notify.TypeLost)
	if l := lost.Control().(*notify.Lost); l.First != 1 || l.Last != 2000 || l.Count != 2000 {
		t.Errorf("lost: %+v", l)
	}
	if e := expectRaw(t, conn, notify.TypeEnd); e.Seq != 2000 {
		t.Errorf("end: %+v", e)
	}
}

// TestCatchingUp: a client that was behind hears of its loss as soon as it has read,
// although no record follows.
func TestCatchingUp(t *testing.T) {
	cfg := testConfig(t)
	cfg.sendBuffer = minSendBuffer
	d := startDaemon(t, cfg)
	c := d.dial(0)
	d.ring.emitAll(20_000)
	d.ring.settle()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last, lost uint64
	for ev, err := range c.Events(ctx) {
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		switch ev := ev.(type) {
		case *notify.Record:
			last = ev.Seq
		case *notify.Lost:
			if lost = ev.Count; last+lost != 20_000 || ev.Last != 20_000 || ev.Cause != notify.LostQueue {
				t.Errorf("after %d: %+v", last, ev)
			}
			cancel()
		}
	}
	if lost == 0 {
		t.Error("no loss was told")
	}
}

func TestFilters(t *testing.T) {
	self := uint32(os.Getpid())
	// Number, process and inode are the number, 3 times the number: see record.
	for name, tt := range map[string]struct {
		filter notify.Filter
		want   []uint64
	}{
		"type":        {notify.Filter{Types: []notify.Type{notify.TypeOpen}}, nil},
		"not type":    {notify.Filter{Types: []notify.Type{notify.TypeOpen}, SkipTypes: true}, []uint64{1, 2, 3, 4, 5}},
		"uid":         {notify.Filter{UIDs: []uint32{7, 1000}}, []uint64{1, 2, 3, 4, 5}},
		"not uid":     {notify.Filter{UIDs: []uint32{7, 1000}, SkipUIDs: true}, nil},
		"pid":         {notify.Filter{PIDs: []uint32{2, 4, 99}}, []uint64{2, 4}},
		"not pid":     {notify.Filter{PIDs: []uint32{2, 4, 99}, SkipPIDs: true}, []uint64{1, 3, 5}},
		"inode":       {notify.Filter{Inos: []uint64{3, 12}}, []uint64{1, 4}},
		"all of them": {notify.Filter{Inos: []uint64{3, 12}, PIDs: []uint32{4, 5}, UIDs: []uint32{1000}}, []uint64{4}},
		"self":        {notify.Filter{SkipSelf: true}, []uint64{1, 2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t, testConfig(t))
			c := d.dialWith(&notify.Dialer{Filter: tt.filter})
			d.ring.emit(5)
			d.ring.settle()
			d.stop()
			d.wait()
			var a account
			a.listen(t.Context(), c)
			if a.err != nil || !slices.Equal(a.seqs, tt.want) || len(a.lost) != 0 || a.end == nil || a.end.Seq != 5 {
				t.Errorf("%+v", a)
			}
		})
	}
	t.Run("own process", func(t *testing.T) {
		f := notify.Filter{SkipSelf: true}
		mine, other := notify.Record{PID: self}, notify.Record{PID: self + 1}
		if f.Match(&mine, self) || !f.Match(&other, self) {
			t.Error("the filter does not tell the process from others")
		}
	})
}

// TestFilteredLoss: a loss in the kernel is an upper bound for a client that does not
// want everything; one in its queue is exact.
func TestFilteredLoss(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dialWith(&notify.Dialer{Filter: notify.Filter{PIDs: []uint32{1, 2}}})
	d.ring.emit(5000)
	d.ring.settle()
	d.stop()
	d.wait()
	var a account
	a.listen(t.Context(), c)
	if a.records != 2 || len(a.lost) != 1 || !a.lost[0].AtMost || a.lost[0].Count != 5000-notify.RingRecords {
		t.Errorf("%+v", a)
	}

	cl := newClient(-1, 1, 1, d.log.logger())
	cl.req.Filter.PIDs, cl.filtered = []uint32{7, 9}, true
	var batch []byte
	for seq := uint64(1); seq <= 20; seq++ {
		r := record(seq)
		batch, _ = r.AppendBinary(batch)
	}
	cl.owe(cl.choose(batch, nil), time.Now())
	if o := cl.owed; o.First != 7 || o.Last != 9 || o.Count != 2 || o.AtMost {
		t.Errorf("owed: %+v", o)
	}
}

func TestIdle(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	c := d.dialWith(&notify.Dialer{Idle: notify.IdleMin, Filter: notify.Filter{PIDs: []uint32{1}}})
	d.ring.emit(5) // of which the filter leaves one
	var got []string
	before := time.Now()
	for ev, err := range c.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch ev := ev.(type) {
		case *notify.Record:
			got = append(got, "record")
		case *notify.Idle:
			if ev.Seq != 5 || ev.Time.Before(before) || ev.Time.After(time.Now()) {
				continue // from before the records
			}
			got = append(got, "idle")
		}
		if len(got) == 3 {
			break
		}
	}
	if !slices.Equal(got, []string{"record", "idle", "idle"}) {
		t.Errorf("%v", got)
	}
}

// TestResume: a client that comes back is told what it has missed.
func TestResume(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	d.ring.emit(100)
	d.ring.settle()
	for _, tt := range []struct {
		name   string
		resume notify.Resume
		want   *notify.Lost
	}{
		{"nothing missed", notify.Resume{RID: testMount.RID, Seq: 100}, nil},
		{"away", notify.Resume{RID: testMount.RID, Seq: 40}, &notify.Lost{First: 41, Last: 100, Count: 60, Cause: notify.LostAway}},
		{"from the start", notify.Resume{RID: testMount.RID}, &notify.Lost{First: 1, Last: 100, Count: 100, Cause: notify.LostAway}},
		{"another mount", notify.Resume{RID: 1, Seq: 40}, &notify.Lost{Cause: notify.LostAway | notify.LostUnattended, Unknown: true}},
		{"from the future", notify.Resume{RID: testMount.RID, Seq: 101}, &notify.Lost{Cause: notify.LostAway | notify.LostUnattended, Unknown: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := d.dialWith(&notify.Dialer{Resume: tt.resume, Idle: notify.IdleMin})
			for ev, err := range c.Events(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				l, ok := ev.(*notify.Lost)
				if _, idle := ev.(*notify.Idle); idle && tt.want == nil {
					break
				} else if !ok {
					continue
				}
				got := *l
				got.Time = time.Time{}
				if tt.want == nil || got != *tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				break
			}
		})
	}
}

// TestResumeAtRestart: the number that a new reader skips stands for what nobody saw.
func TestResumeAtRestart(t *testing.T) {
	cfg := testConfig(t)
	d := startDaemon(t, cfg)
	d.ring.emit(10)
	d.ring.settle()
	c := d.dial(0)
	d.stop()
	d.wait()
	ring := newFakeRing(t)
	ring.seq = 11
	next := startDaemonOn(t, cfg, ring)
	h := notify.Resume{RID: c.Hello().RID, Seq: 10}
	again := next.dialWith(&notify.Dialer{Resume: h})
	for ev, err := range again.Events(t.Context()) {
		if l, ok := ev.(*notify.Lost); ok {
			if l.First != 11 || l.Last != 11 || l.Count != 1 || !l.Unknown || l.Cause != notify.LostAway|notify.LostUnattended {
				t.Errorf("%+v", l)
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFollow: the loop over restarts of the daemon and of the mount accounts for all
// numbers.
func TestFollow(t *testing.T) {
	cfg := testConfig(t)
	d := startDaemon(t, cfg)
	var log []string
	step := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for ev, err := range notify.Follow(ctx, d.socket(), &notify.Dialer{RunDir: cfg.runDir}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
		switch ev := ev.(type) {
		case *notify.Hello:
			log = append(log, fmt.Sprintf("hello %d", ev.Next))
			if step++; step < 3 {
				d.ring.emit(2)
			}
		case *notify.Record:
			log = append(log, fmt.Sprintf("record %d", ev.Seq))
			if ev.Seq == 2 {
				d.stop()
			}
			if ev.Seq == 13 {
				d.ring.unmount()
			}
		case *notify.Lost:
			log = append(log, fmt.Sprintf("lost %d-%d %v %v", ev.First, ev.Last, ev.Unknown, ev.Cause))
			if step == 3 {
				cancel()
			}
		case *notify.End:
			log = append(log, fmt.Sprintf("end %d %d", ev.Seq, ev.Reason))
			d.wait()
		case *notify.Waiting:
			// The next daemon: of the same mount, then of another.
			log = append(log, "waiting")
			ring := newFakeRing(t)
			if step == 1 {
				ring.seq = 11
			} else {
				ring.mount.RID = 5
			}
			d = startDaemonOn(t, cfg, ring)
		}
	}
	want := []string{
		"hello 1", "record 1", "record 2", "end 2 2", "waiting",
		"hello 12", "lost 3-11 true away+unattended", "record 12", "record 13", "end 13 1", "waiting",
		"hello 1", "lost 0-0 true away+unattended",
	}
	if !slices.Equal(log, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(log, "\n"), strings.Join(want, "\n"))
	}
}

// TestTurnedAway: whoever is turned away is told why, and is counted.
func TestTurnedAway(t *testing.T) {
	cfg := testConfig(t)
	cfg.maxClients = 1
	d := startDaemon(t, cfg)
	d.dial(0)
	if _, err := notify.Dial(d.socket()); !errors.Is(err, notify.ErrRefused) || !strings.Contains(err.Error(), "as many clients as it may") {
		t.Errorf("one too many: %v", err)
	}
	// A question is answered all the same.
	h, err := new(notify.Dialer).Probe(t.Context(), d.socket())
	if err != nil || h.RID != testMount.RID {
		t.Errorf("probe: %+v, %v", h, err)
	}
	// One that says nothing is closed after a while.
	raw := d.rawConn()
	if n, err := raw.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one that does not ask: %d, %v", n, err)
	}
	st := d.awaitState(func(st *notify.State) bool { return st.Refused.MaxClients == 2 })
	if st.Accepted != 1 {
		t.Errorf("state: %+v", st)
	}
}

// TestProbe: a question with room for clients leaves none behind.
func TestProbe(t *testing.T) {
	d := startDaemon(t, testConfig(t))
	h, err := new(notify.Dialer).Probe(t.Context(), d.socket())
	if err != nil || h.RID != testMount.RID {
		t.Errorf("probe: %+v, %v", h, err)
	}
	d.awaitCount(1, "client leaves", "asked for no more")
}

// TestQueueLimit: clients that do not read take no more memory together than they may,
// the others are not affected, and each is told what it lost.
func TestQueueLimit(t *testing.T) {
	if !largeQueues {
		t.Skip("skipped: without CAP_NET_ADMIN queues are too short to reach the limit")
	}
	cfg := testConfig(t)
	cfg.queueLimit = 2 << 20
	cfg.sendBuffer = 2 << 20
	d := startDaemon(t, cfg)
	var stalled []*notify.Client
	for i := range 8 {
		dialer := notify.Dialer{MaxRecords: 1 + i%2*(notify.RingRecords-1), Version: uint32(1 + i/2%2)}
		stalled = append(stalled, d.dialWith(&dialer))
	}
	healthy := d.dial(0)
	if err := lockstep(d.ring, healthy, 50_000); err != nil {
		t.Fatal(err)
	}
	d.ring.settle()
	st := d.awaitState(func(st *notify.State) bool { return st.Records == 50_000 })
	if st.QueueCuts == 0 || healthy.Lost() != 0 {
		t.Errorf("%d queues were cut short, the healthy client lost %d", st.QueueCuts, healthy.Lost())
	}
	if n := d.log.count("clients do not keep up"); n != 1 {
		t.Errorf("%d log lines", n)
	}
	d.stop()
	d.wait()
	for i, c := range stalled {
		var a account
		a.listen(t.Context(), c)
		if c.Hello() == nil {
			continue // version 1 cannot balance
		}
		if err := a.balance(); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
}

// TestRandomBalance: whatever is accessed, dropped and read when, each client's account
// balances.
func TestRandomBalance(t *testing.T) {
	if !largeQueues {
		t.Skip("skipped: without CAP_NET_ADMIN a full queue cannot be made larger")
	}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		cfg := testConfig(t)
		cfg.sendBuffer = minSendBuffer
		cfg.queueLimit = 1 << (20 + rnd.IntN(4))
		d := startDaemon(t, cfg)
		accounts := make([]account, 6)
		done := make(chan int)
		for i := range accounts {
			c := d.dial(1 + rnd.IntN(notify.RingRecords))
			slow := rnd.IntN(3) == 0
			go func() {
				if slow {
					<-d.done // reads at the end
				}
				accounts[i].listen(context.Background(), c)
				done <- i
			}()
			d.ring.emit(rnd.IntN(3000))
		}
		for range 30 {
			d.ring.emit(rnd.IntN(2500))
			if rnd.IntN(2) == 0 {
				d.ring.settle()
			}
		}
		if rnd.IntN(2) == 0 {
			d.ring.unmount()
		} else {
			d.stop()
		}
		for range accounts {
			<-done
		}
		for i := range accounts {
			if err := accounts[i].balance(); err != nil {
				t.Errorf("seed %d, client %d: %v", seed, i, err)
			}
		}
	}
}
