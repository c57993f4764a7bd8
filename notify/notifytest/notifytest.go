// SPDX-License-Identifier: MIT OR GPL-2.0-only

// Package notifytest is a scoutfs-notifyd for the tests of consumers: it speaks the
// daemon's protocol on a real socket, without ScoutFS, and says what the test has it say.
//
//	d, err := notifytest.Start(filepath.Join(dir, notify.SocketName), notify.Hello{RID: 7, Next: 1})
//	...
//	d.Await(ctx, 1) // the consumer has connected
//	d.Send(&notify.Record{Seq: 1, Ino: 42, Type: notify.TypeOpen})
//	d.Send(&notify.Lost{First: 2, Last: 9, Count: 8, Cause: notify.LostQueue})
//	d.End(notify.EndUnmounted)
//
// It serves both versions of the protocol, with filters, and tells a client that resumes
// what it has missed. Other than the daemon it waits for clients that are slow, never loses
// a record by itself, and sends no signs of life but those that it is given.
package notifytest

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// SendTimeout is how long a client may take to make room in its queue, before it is
// disconnected.
const SendTimeout = 10 * time.Second

// Daemon acts as scoutfs-notifyd. Its methods are safe for concurrent use.
type Daemon struct {
	ln   *net.UnixListener
	done chan struct{} // closed when it accepts no more

	mu       sync.Mutex // guards what follows
	changed  *sync.Cond // when clients is
	hello    notify.Hello
	refuse   notify.Reason // 0 to accept clients
	filtered bool          // see Filtered
	clients  map[*client]bool
	requests []notify.Request
}

// client is a connection.
type client struct {
	conn    *net.UnixConn
	pid     uint32
	req     notify.Request // MaxRecords is 1 if it has not sent one
	greeted bool
}

// Start listens on a socket, which only the caller's user can connect to. What hello has is
// what clients get when they connect; zero fields are filled in, but for Next: it is the
// number of the next access, and grows with what is sent.
func Start(socket string, hello notify.Hello) (*Daemon, error) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	d := &Daemon{ln: ln, done: make(chan struct{}), clients: make(map[*client]bool)}
	d.changed = sync.NewCond(&d.mu)
	d.Hello(hello)
	go d.accept()
	return d, nil
}

// Socket returns the path of the socket.
func (d *Daemon) Socket() string { return d.ln.Addr().String() }

// Hello sets what clients get that connect from now on: another mount, or the same after
// a restart of the daemon. Those that are connected stay so.
func (d *Daemon) Hello(hello notify.Hello) {
	now := time.Now()
	for _, t := range []*time.Time{&hello.DaemonStart, &hello.ReaderStart} {
		if t.IsZero() {
			*t = now
		}
	}
	if hello.Version == 0 {
		hello.Version = notify.Version2
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hello = hello
}

// Refuse has clients turned away that connect from now on, or accepted again if the reason
// is 0.
func (d *Daemon) Refuse(why notify.Reason) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = why
}

// Filtered says that what is sent was filtered before: of what a client that resumes has
// missed, nobody knows how much it would have got.
func (d *Daemon) Filtered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.filtered = true
}

// Requests returns what clients have asked for so far, in the order in which they
// connected.
func (d *Daemon) Requests() []notify.Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]notify.Request(nil), d.requests...)
}

// Await waits until at least n clients are connected and have got their hello: what is
// sent from then on they get. Clients of version 1 that send no request do not count. The
// error is the context's, or [notify.ErrClosed].
func (d *Daemon) Await(ctx context.Context, n int) error {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.changed.Broadcast()
	})()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.greeted() < n {
		select {
		case <-d.done:
			return notify.ErrClosed
		default:
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.changed.Wait()
	}
	return nil
}

// Clients returns how many clients are connected and have got their hello: fewer than were
// awaited if some have left.
func (d *Daemon) Clients() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.greeted()
}

// greeted returns how many clients have got their hello.
func (d *Daemon) greeted() (n int) {
	for c := range d.clients {
		if c.greeted {
			n++
		}
	}
	return n
}

// Send sends events to all clients that are connected, in as few packets as they take. It
// waits for those that are slow. Clients get what they have asked for: a *[notify.Waiting]
// none. The error is of those that could not be sent to, which are disconnected.
func (d *Daemon) Send(events ...notify.Event) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ev := range events {
		switch ev := ev.(type) {
		case *notify.Record:
			d.hello.Next = max(d.hello.Next, ev.Seq+1)
		case *notify.Lost:
			d.hello.Next = max(d.hello.Next, ev.Last+1)
		}
	}
	var errs []error
	for c := range d.clients {
		if err := c.send(events); err != nil {
			errs = append(errs, err)
			d.drop(c)
		}
	}
	return errors.Join(errs...)
}

// End ends the streams of all clients that are connected, and says why.
func (d *Daemon) End(why notify.Reason) error {
	d.mu.Lock()
	end := &notify.End{Seq: max(d.hello.Next, 1) - 1, Reason: why, Time: time.Now()}
	d.mu.Unlock()
	err := d.Send(end)
	d.Kill()
	return err
}

// Kill breaks off the streams of all clients that are connected, as a daemon that is killed
// does.
func (d *Daemon) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.clients {
		d.drop(c)
	}
}

// Close breaks off all streams and removes the socket.
func (d *Daemon) Close() error {
	err := d.ln.Close()
	<-d.done
	d.Kill()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed.Broadcast()
	return err
}

// drop disconnects a client.
func (d *Daemon) drop(c *client) {
	c.conn.Close()
	delete(d.clients, c)
	d.changed.Broadcast()
}

func (d *Daemon) accept() {
	defer close(d.done)
	for {
		conn, err := d.ln.AcceptUnix()
		if err != nil {
			return
		}
		c := &client{conn: conn, pid: peer(conn), req: notify.Request{Version: notify.Version1, MaxRecords: 1}}
		d.mu.Lock()
		d.clients[c] = true
		d.mu.Unlock()
		go d.serve(c)
	}
}

// peer returns the process at the other end.
func peer(conn *net.UnixConn) (pid uint32) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = uint32(cred.Pid)
		}
	})
	return pid
}

// serve reads what a client sends: a request, and nothing more until it leaves.
func (d *Daemon) serve(c *client) {
	var b [notify.RequestSize2 + 1]byte
	for {
		n, err := c.conn.Read(b[:])
		d.mu.Lock()
		if err != nil || n == 0 || !d.request(c, b[:n]) {
			d.drop(c)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
}

// request takes a client's request, and returns whether it stays.
func (d *Daemon) request(c *client, pkt []byte) bool {
	var req notify.Request
	if err := req.UnmarshalBinary(pkt); err != nil || c.greeted {
		return false
	}
	d.requests = append(d.requests, req)
	if req.Version == notify.Version1 {
		c.req, c.greeted = req, d.refuse == 0
		d.changed.Broadcast()
		return c.greeted
	}
	now := time.Now()
	if d.refuse != 0 && !req.Probe {
		c.req = req
		c.send([]notify.Event{&notify.End{Reason: d.refuse, Time: now}})
		return false
	}
	hello := d.hello
	hello.Time = now
	events := []notify.Event{&hello}
	if lost := d.missed(&req, now); lost != nil {
		events = append(events, lost)
	}
	if req.Probe {
		events = []notify.Event{&hello, &notify.End{Seq: max(hello.Next, 1) - 1, Reason: notify.EndProbe, Time: now}}
	}
	c.req, c.greeted = req, true
	err := c.send(events)
	d.changed.Broadcast()
	return err == nil && !req.Probe
}

// missed returns what a client was not told since the place where it resumes, nil for
// nothing.
func (d *Daemon) missed(req *notify.Request, now time.Time) *notify.Lost {
	from, next := req.Resume, d.hello.Next
	switch {
	case from.RID == 0:
		return nil
	case from.RID != d.hello.RID:
		return &notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended, Time: now}
	case from.Seq+1 >= next:
		return nil
	}
	n := next - 1 - from.Seq
	return &notify.Lost{First: from.Seq + 1, Last: next - 1, Count: n, AtMost: d.filtered || !req.Filter.All(), Cause: notify.LostAway, Time: now}
}

// send sends the events that the client has asked for.
func (c *client) send(events []notify.Event) error {
	var pkt []byte
	for _, ev := range events {
		if !c.wants(ev) {
			continue
		}
		if lost, ok := ev.(*notify.Lost); ok && !c.req.Filter.All() {
			vague := *lost
			vague.AtMost, ev = true, &vague
		}
		pkt, _ = ev.(encoding.BinaryAppender).AppendBinary(pkt)
	}
	c.conn.SetWriteDeadline(time.Now().Add(SendTimeout))
	for most := int(c.req.MaxRecords) * notify.RecordSize; len(pkt) > 0; {
		n := min(len(pkt), most)
		if _, err := c.conn.Write(pkt[:n]); err != nil {
			return fmt.Errorf("send to process %d: %w", c.pid, err)
		}
		pkt = pkt[n:]
	}
	return nil
}

// wants tells whether an event is for the client.
func (c *client) wants(ev notify.Event) bool {
	rec, ok := ev.(*notify.Record)
	if !ok {
		_, control := ev.(encoding.BinaryAppender)
		return control && c.req.Version >= notify.Version2
	}
	return c.req.Filter.Match(rec, c.pid)
}
