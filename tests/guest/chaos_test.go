// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	envChaos = "CHAOS" // number of steps of TestChaos
	envSeed  = "SEED"  // seed of its random numbers
)

// chaos is a mount under load, whose daemon and clients are ended at random.
type chaos struct {
	*fs
	t       *testing.T
	rand    *rand.Rand
	files   sync.RWMutex // held for reading while a file is open
	load    atomic.Uint64
	daemon  *daemon
	watcher *watcher
	tails   []*exec.Cmd // clients to kill
	seen    uint64
	busy    int // attempts to unmount that a starting client made fail
}

// busyMax is how long a client that starts may keep the mount busy.
const busyMax = 10 * time.Second

// watcher is a client that checks the order of seq. It ends with its daemon.
type watcher struct {
	c    *notify.Client
	last *atomic.Uint64 // last seq of this mount, shared by its watchers
	n    atomic.Uint64
	done chan error
}

func (c *chaos) watch(last *atomic.Uint64) {
	w := &watcher{c: c.dial(), last: last, done: make(chan error, 1)}
	w.c.SetReadDeadline(time.Time{})
	go func() {
		for {
			recs, err := w.c.ReadBatch()
			if err != nil {
				wantBalance(c.t, w.c, w.n.Load())
				w.done <- err
				return
			}
			for _, r := range recs {
				if prev := last.Swap(r.Seq); r.Seq <= prev {
					c.t.Errorf("seq %d follows %d", r.Seq, prev)
				}
			}
			w.n.Add(uint64(len(recs)))
		}
	}()
	c.watcher = w
}

// endWatch waits for the end of the stream, which must follow the daemon's end.
func (c *chaos) endWatch() {
	c.t.Helper()
	w := c.watcher
	select {
	case err := <-w.done:
		// only a killed daemon does not say that it ends
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			c.t.Errorf("the client's stream ended with %v", err)
		}
	case <-time.After(patience):
		c.t.Fatal("the client's stream did not end with the daemon")
	}
	w.c.Close()
	c.seen += w.n.Load()
}

// ledger is the account of a client that goes on over daemons and mounts.
type ledger struct {
	rid     notify.ID
	next    uint64 // the number that is to be told next
	mounts  int
	records uint64
	lost    uint64
	ends    map[notify.Reason]int
	broken  int // streams without an end
}

// enter takes an event and returns what is wrong with it.
func (l *ledger) enter(ev notify.Event) error {
	switch ev := ev.(type) {
	case *notify.Hello:
		if ev.Next == 0 {
			return errors.New("hello without a number")
		}
		if ev.RID != l.rid {
			l.rid, l.next = ev.RID, ev.Next
			l.mounts++
		}
	case *notify.Record:
		if ev.Seq != l.next {
			return fmt.Errorf("record %d instead of %d", ev.Seq, l.next)
		}
		l.records++
		l.next++
	case *notify.Lost:
		if ev.First == 0 {
			return nil // from before this mount
		}
		if ev.First != l.next || ev.Count != ev.Last-ev.First+1 {
			return fmt.Errorf("lost %+v, but %d comes next", ev, l.next)
		}
		l.lost += ev.Count
		l.next = ev.Last + 1
	case *notify.End:
		l.ends[ev.Reason]++
		if ev.Seq != l.next-1 {
			return fmt.Errorf("end %+v, but %d comes next", ev, l.next)
		}
	case *notify.Waiting:
		if errors.Is(ev.Err, io.ErrUnexpectedEOF) {
			l.broken++
		}
	}
	return nil
}

// keepLedger follows the mount point until stop is called, which returns the account. fed is
// closed when there is a record in it.
func (c *chaos) keepLedger() (fed <-chan struct{}, stop func() *ledger) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &ledger{ends: make(map[notify.Reason]int)}
	first := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for ev, err := range notify.Follow(ctx, c.dir, nil) {
			before := l.records
			if err == nil {
				err = l.enter(ev)
			}
			if before == 0 && l.records > 0 {
				close(first)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				c.t.Errorf("the client that goes on: %v", err)
				return
			}
		}
	})
	return first, func() *ledger {
		cancel()
		wg.Wait()
		return l
	}
}

// start starts a daemon and a watcher.
func (c *chaos) start(last *atomic.Uint64) {
	c.t.Helper()
	c.daemon = c.startDaemon()
	c.watch(last)
}

// check checks what must hold at any time.
func (c *chaos) check() {
	c.t.Helper()
	sock := notify.SocketPath(c.FSID)
	if st, err := os.Stat(sock); err != nil {
		c.t.Error(err)
	} else if st.Mode() != os.ModeSocket|0o600 {
		c.t.Errorf("mode of %s is %v", sock, st.Mode())
	}
	// One line for each socket, with the name that it was bound to before it took
	// connections: the flag __SO_ACCEPTCON marks a listening one.
	bound := filepath.Join(filepath.Dir(sock), "."+notify.SocketName+".new")
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		c.t.Fatal(err)
	}
	listeners := 0
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 8 && f[7] == bound && f[3] == "00010000" {
			listeners++
		}
	}
	if listeners != 1 {
		c.t.Errorf("%d listeners at %s, not 1", listeners, bound)
	}
}

// TestChaos ends daemons, clients and mounts at random, under load.
func TestChaos(t *testing.T) {
	number := func(env string, def uint64) uint64 {
		if s := os.Getenv(env); s != "" {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", env, err)
			}
			return n
		}
		return def
	}
	steps := int(number(envChaos, 30))
	seed := number(envSeed, uint64(time.Now().UnixNano()))
	t.Logf("%d steps, %s=%d", steps, envSeed, seed)

	c := &chaos{fs: setup(t), t: t, rand: rand.New(rand.NewPCG(seed, 0))}
	c.create("a", 4096)
	stop := make(chan struct{})
	var loaders sync.WaitGroup
	for range 2 {
		loaders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.files.RLock()
				if b, err := os.ReadFile(c.path("a")); err != nil || len(b) != 4096 {
					t.Errorf("read of %d bytes: %v", len(b), err)
				}
				c.files.RUnlock()
				c.load.Add(1)
			}
		})
	}
	defer loaders.Wait()
	defer close(stop)

	last := new(atomic.Uint64)
	c.start(last)
	fed, stopLedger := c.keepLedger()
	taken := make(map[string]int)
	actions := []struct {
		name   string
		weight int
		do     func()
	}{
		{"kill -9", 3, func() {
			c.daemon.signal(unix.SIGKILL)
			c.daemon.wait()
			c.endWatch()
			c.start(last)
		}},
		{"SIGTERM", 3, func() {
			c.daemon.signal(unix.SIGTERM)
			if status := c.daemon.wait(); status != 0 {
				t.Errorf("scoutfs-notifyd ended with %d after SIGTERM", status)
			}
			c.endWatch()
			c.start(last)
		}},
		{"umount and mount", 2, func() {
			c.files.Lock()
			defer c.files.Unlock() // also if it fails: the loaders must come to an end
			c.umountQuietly()
			if status := c.daemon.wait(); status != 0 {
				t.Errorf("scoutfs-notifyd ended with %d after umount", status)
			}
			c.endWatch()
			c.mount()
			if !isScoutFS() {
				c.create("a", 4096)
			}
			last = new(atomic.Uint64)
			c.start(last)
		}},
		{"a client connects", 3, func() {
			if len(c.tails) >= 8 {
				return
			}
			cmd := exec.Command(Command, "tail", c.dir)
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			c.tails = append(c.tails, cmd)
		}},
		{"a client crashes", 3, func() {
			if len(c.tails) == 0 {
				return
			}
			n := c.rand.IntN(len(c.tails))
			cmd := c.tails[n]
			c.tails = append(c.tails[:n], c.tails[n+1:]...)
			cmd.Process.Kill()
			cmd.Wait()
		}},
	}
	weights := 0
	for _, a := range actions {
		weights += a.weight
	}
	began := time.Now()
	for step := range steps {
		n := c.rand.IntN(weights)
		for _, a := range actions {
			if n -= a.weight; n < 0 {
				a.do()
				taken[a.name]++
				break
			}
		}
		c.check()
		// Let some accesses happen between steps. Draw their number exactly once
		// per step, or the seed would not repeat the steps.
		for target := c.load.Load() + uint64(c.rand.IntN(20)); c.load.Load() < target; {
			time.Sleep(time.Millisecond)
		}
		if t.Failed() {
			t.Fatalf("step %d of %s=%d", step, envSeed, seed)
		}
		if (step+1)%100 == 0 {
			t.Logf("%d steps after %v", step+1, time.Since(began).Round(time.Second))
		}
	}
	// With bad luck no daemon lived when it asked, which it does ever more rarely.
	select {
	case <-fed:
	case <-time.After(patience):
		t.Error("the client that goes on got no record")
	}
	c.daemon.signal(unix.SIGTERM)
	c.daemon.wait()
	c.endWatch()
	for _, cmd := range c.tails {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Logf("%v, %d reads of the file, %d records received in order, umount found it busy %d times",
		taken, c.load.Load(), c.seen, c.busy)
	l := stopLedger()
	t.Logf("a client that goes on: %d mounts, %d records and %d lost are all numbers; ends %v, %d streams broke off",
		l.mounts, l.records, l.lost, l.ends, l.broken)
	if c.seen == 0 {
		t.Error("no records were received")
	}
}

// umountQuietly is umount without a line in the log. A client that starts while no
// daemon serves the mount looks it up, which keeps it busy for a moment.
func (c *chaos) umountQuietly() {
	c.t.Helper()
	err := unix.Unmount(c.dir, 0)
	for end := time.Now().Add(busyMax); errors.Is(err, unix.EBUSY) && len(c.tails) > 0 && time.Now().Before(end); {
		c.busy++
		time.Sleep(time.Millisecond)
		err = unix.Unmount(c.dir, 0)
	}
	if err != nil {
		c.t.Fatalf("umount %s: %v", c.dir, err)
	}
	c.mounted = false
}
