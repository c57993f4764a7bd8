// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notifytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify/notifytest"
)

func start(t *testing.T, hello notify.Hello) *notifytest.Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // t.TempDir's paths can be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := notifytest.Start(filepath.Join(dir, notify.SocketName), hello)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func open(seq uint64, uid uint32) *notify.Record {
	return &notify.Record{Seq: seq, UID: uid, Type: notify.TypeOpen}
}

// A consumer under test gets what the test has the daemon say.
func Example() {
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	d, err := notifytest.Start(filepath.Join(dir, notify.SocketName), notify.Hello{RID: 7, Next: 1})
	if err != nil {
		panic(err)
	}
	defer d.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		d.Await(ctx, 1)
		d.Send(open(1, 1000), &notify.Lost{First: 2, Last: 9, Count: 8, Cause: notify.LostQueue})
		d.End(notify.EndUnmounted)
	}()
	c, err := new(notify.Dialer).DialContext(ctx, d.Socket())
	if err != nil {
		panic(err)
	}
	for ev, err := range c.Events(ctx) {
		switch ev := ev.(type) {
		case *notify.Hello:
			fmt.Println("mount", ev.RID)
		case *notify.Record:
			fmt.Println(ev.Type, "by", ev.UID)
		case *notify.Lost:
			fmt.Println(ev)
		case *notify.End:
			fmt.Println(ev.Reason)
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// mount 0000000000000007
	// open by 1000
	// lost 8 records (queue)
	// the file system was unmounted
}

// follow returns what Follow yields, as texts.
func follow(ctx context.Context, d *notifytest.Daemon, opts *notify.Dialer) <-chan string {
	out := make(chan string, 100)
	go func() {
		defer close(out)
		for ev, err := range notify.Follow(ctx, d.Socket(), opts) {
			switch ev := ev.(type) {
			case *notify.Hello:
				out <- fmt.Sprintf("hello %v %d", ev.RID, ev.Next)
			case *notify.Record:
				out <- fmt.Sprintf("open %d", ev.Seq)
			case *notify.Lost:
				out <- ev.String()
			case *notify.End:
				out <- "end: " + ev.Reason.String()
			case *notify.Waiting:
				out <- "waiting"
			default:
				out <- err.Error()
			}
		}
	}()
	return out
}

// Restarts, kills, another mount and a filter, as Follow sees them.
func TestFollow(t *testing.T) {
	d := start(t, notify.Hello{RID: 7, Next: 5})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all := follow(ctx, d, nil)
	some := follow(ctx, d, &notify.Dialer{Filter: notify.Filter{UIDs: []uint32{1}}})
	expect := func(ch <-chan string, want ...string) {
		t.Helper()
		for _, w := range want {
			if got := <-ch; got != w {
				t.Fatalf("got %q, want %q", got, w)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Await(ctx, 2))
	must(d.Send(open(5, 1), open(6, 2), &notify.Waiting{}, &notify.Lost{First: 7, Last: 8, Count: 2, Cause: notify.LostKernel}))
	expect(all, "hello 0000000000000007 5", "open 5", "open 6", "lost 2 records (kernel)")
	expect(some, "hello 0000000000000007 5", "open 5", "lost at most 2 records (kernel)")
	must(d.End(notify.EndRestarting))
	d.Hello(notify.Hello{RID: 7, Next: 12})
	must(d.Await(ctx, 2))
	expect(all, "end: scoutfs-notifyd is restarting", "hello 0000000000000007 12", "lost 3 records (away)")
	expect(some, "end: scoutfs-notifyd is restarting", "hello 0000000000000007 12", "lost at most 3 records (away)")
	must(d.Send(open(12, 1)))
	expect(all, "open 12")
	expect(some, "open 12")
	if n := d.Clients(); n != 2 {
		t.Errorf("%d clients", n)
	}
	d.Kill()
	if n := d.Clients(); n != 0 {
		t.Errorf("%d clients after a kill", n)
	}
	d.Filtered()
	d.Hello(notify.Hello{RID: 7, Next: 15})
	must(d.Await(ctx, 2))
	expect(all, "waiting", "hello 0000000000000007 15", "lost at most 2 records (away)")
	expect(some, "waiting", "hello 0000000000000007 15", "lost at most 2 records (away)")
	d.Kill()
	d.Hello(notify.Hello{RID: 8, Next: 1})
	must(d.Await(ctx, 2))
	expect(all, "waiting", "hello 0000000000000008 1", "may have lost any number of records (away+unattended)")
	cancel()
}

// Refusals, probes, old clients and those that break the protocol.
func TestClients(t *testing.T) {
	d := start(t, notify.Hello{RID: 7, Next: 5})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d.Refuse(notify.EndMaxClients)
	_, err := notify.Dial(d.Socket())
	if why, _ := notify.Refusal(err); why != notify.EndMaxClients {
		t.Errorf("refused: %v", err)
	}
	if h, err := new(notify.Dialer).Probe(ctx, d.Socket()); err != nil || h.RID != 7 || h.Next != 5 {
		t.Errorf("probe: %+v, %v", h, err)
	}
	d.Refuse(0)

	old, err := (&notify.Dialer{Version: notify.Version1, MaxRecords: 2}).DialContext(ctx, d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := d.Await(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := d.Send(open(5, 0), open(6, 0), &notify.Lost{First: 7, Last: 7, Count: 1}, open(8, 0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1} {
		if recs, err := old.ReadBatch(); err != nil || len(recs) != want {
			t.Errorf("%d records, %v, want %d", len(recs), err, want)
		}
	}
	d.Kill()
	if _, err := old.Next(); err != io.EOF {
		t.Errorf("killed: %v", err)
	}

	bad, err := net.Dial("unixpacket", d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	bad.Write([]byte("rubbish"))
	if n, err := bad.Read(make([]byte, 100)); n != 0 || err == nil {
		t.Errorf("a client that breaks the protocol reads %d bytes, %v", n, err)
	}
	if reqs := d.Requests(); !slices.ContainsFunc(reqs, func(r notify.Request) bool { return r.Probe }) || len(reqs) != 3 {
		t.Errorf("requests: %+v", reqs)
	}

	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err := d.Await(short, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody comes: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Await(ctx, 1); !errors.Is(err, notify.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := os.Stat(d.Socket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
