// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Client receives a mount's records from the daemon. [Dial] makes one.
//
// Only one goroutine may receive at a time. Close, Lost and SetReadDeadline are
// safe to call from others meanwhile.
type Client struct {
	conn  net.Conn
	hello *Hello // nil in version 1
	exact bool   // every number is accounted for: version 2 without a filter

	buf  []byte
	recs []Record // of the last packet
	next int      // index of the first of recs that was not returned

	seq   uint64        // the last number accounted for
	any   bool          // seq is known
	lost  atomic.Uint64 // see Lost
	owed  *Record       // the record that follows a loss, in version 1
	met   bool          // Events has yielded hello
	end   *End          // once it has come
	reset bool          // the daemon left without reading what was sent to it
}

func newClient(conn net.Conn) *Client {
	return &Client{
		conn: conn,
		// The kernel silently cuts off what does not fit. A byte more than a packet
		// may have shows one that is too long.
		buf:  make([]byte, RingRecords*RecordSize+1),
		recs: make([]Record, 0, RingRecords),
	}
}

// Hello returns what the daemon said at the start; nil in [Version1].
func (c *Client) Hello() *Hello { return c.hello }

// Next waits for the record of an access and returns it. It does not allocate.
//
// The error is [io.EOF] when the stream ends: the file system was unmounted, or the
// daemon was stopped or restarted, as an update of its package does; End says which. To
// go on, dial again for as long as the file system is mounted, or use [Follow]. It is
// [io.ErrUnexpectedEOF] if the stream broke off because the daemon was killed. Other
// errors are [ErrRefused], [ErrProtocol], [ErrClosed], and [os.ErrDeadlineExceeded],
// after which Next can be called again.
//
// Next does not show losses: see Lost, or use Events.
func (c *Client) Next() (Record, error) {
	for {
		ev, err := c.event()
		if err != nil {
			return Record{}, err
		}
		if rec, ok := ev.(*Record); ok {
			return *rec, nil
		}
	}
}

// ReadBatch waits for records and returns all of one packet, or those that Next has
// left of it, up to the next control record. The slice is valid until the next call of
// ReadBatch, Next or Events. Errors are those of Next.
func (c *Client) ReadBatch() ([]Record, error) {
	for {
		ev, err := c.event()
		if err != nil {
			return nil, err
		}
		if _, ok := ev.(*Record); !ok {
			continue
		}
		first := c.next - 1
		for c.next < len(c.recs) && !c.recs[c.next].Type.IsControl() {
			if _, err := c.take(&c.recs[c.next]); err != nil {
				return nil, err
			}
			c.next++
			c.owed = nil // its loss is in Lost
		}
		return c.recs[first:c.next], nil
	}
}

// Events waits for what the stream tells and yields it: the *[Hello], then each access,
// and each loss before the access that follows it. The last event is an *[End]. What is yielded is
// valid until the next iteration: copy a *[Record] to keep it.
//
// A stream that does not end with an *[End] yields an error last, one of those of Next
// or the context's.
func (c *Client) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		// What has been received is yielded before the end.
		defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(0, 1)) })()
		if c.hello != nil && !c.met {
			c.met = true
			if !yield(c.hello, nil) {
				return
			}
		}
		for {
			ev, err := c.event()
			if err != nil && ctx.Err() != nil {
				err = ctx.Err()
			}
			if err == io.EOF && c.end != nil {
				return // it was yielded
			}
			if !yield(ev, err) || err != nil {
				return
			}
		}
	}
}

// End returns the end of the stream once it has come, nil before that, or if it broke
// off, or in [Version1].
func (c *Client) End() *End { return c.end }

// Buffered returns how many records have been received but not returned.
func (c *Client) Buffered() int { return len(c.recs) - c.next }

// Lost returns how many records are missing so far: the sum of [Lost.Count], and in
// [Version1] of the gaps in the numbers. In that, losses before the first record and
// after the last are not counted.
func (c *Client) Lost() uint64 { return c.lost.Load() }

// Seq returns the last number that is accounted for, as a [Resume] needs it; 0 if none
// is.
func (c *Client) Seq() uint64 { return c.seq }

// SetReadDeadline makes receiving fail with [os.ErrDeadlineExceeded] from t on;
// the zero time means never. No record is lost by that. The error is [ErrClosed]
// after Close.
func (c *Client) SetReadDeadline(t time.Time) error {
	if err := c.conn.SetReadDeadline(t); err != nil {
		return fmt.Errorf("set deadline: %w", unwrapNet(err))
	}
	return nil
}

// Close ends the connection. A goroutine that waits in Next gets [ErrClosed].
// Closing it again returns [ErrClosed].
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("close connection: %w", unwrapNet(err))
	}
	return nil
}

// event returns the next event. It allocates for control records only.
func (c *Client) event() (Event, error) {
	if c.owed != nil {
		rec := c.owed
		c.owed = nil
		return rec, nil
	}
	for c.end == nil {
		for c.next == len(c.recs) {
			if err := c.fill(); err != nil {
				return nil, err
			}
		}
		rec := &c.recs[c.next]
		ev, err := c.take(rec)
		if err != nil {
			return nil, err
		}
		c.next++
		if ev != nil {
			return ev, nil
		}
	}
	return nil, io.EOF
}

// take accounts for a record and returns the event that it is, nil for none.
func (c *Client) take(rec *Record) (Event, error) {
	if !rec.Type.IsControl() {
		return c.access(rec)
	}
	if c.hello == nil {
		return nil, nil // version 1 has none; this is of a later one
	}
	switch ev := rec.Control().(type) {
	case *Lost:
		return ev, c.loss(ev)
	case *Idle:
		return ev, c.reach(ev.Seq)
	case *End:
		if ev.Reason.refusal() {
			return nil, fmt.Errorf("receive records: %w", &refusedError{ev.Reason})
		}
		if err := c.reach(ev.Seq); err != nil {
			return nil, err
		}
		c.end = ev
		return ev, nil
	case *Hello:
		return nil, fmt.Errorf("receive records: %w: another start", ErrProtocol)
	}
	return nil, nil
}

// access accounts for the record of an access. In version 1 it returns the loss before
// it instead, and the record is owed.
func (c *Client) access(rec *Record) (Event, error) {
	if c.any && rec.Seq <= c.seq {
		return nil, fmt.Errorf("receive records: %w: number %d came after %d", ErrProtocol, rec.Seq, c.seq)
	}
	missing := rec.Seq - c.seq - 1
	if !c.any {
		missing = 0
	}
	first := c.seq + 1
	if missing > 0 && c.exact {
		return nil, fmt.Errorf("receive records: %w: number %d came after %d, and no loss was told", ErrProtocol, rec.Seq, c.seq)
	}
	c.seq, c.any = rec.Seq, true
	if missing > 0 && c.hello == nil {
		c.lost.Add(missing)
		c.owed = rec
		return &Lost{First: first, Last: rec.Seq - 1, Count: missing, Time: rec.Time()}, nil
	}
	return rec, nil
}

// loss accounts for a loss.
func (c *Client) loss(l *Lost) error {
	if c.any && l.First != 0 && l.First <= c.seq && l.Cause&(LostAway|LostUnattended) == 0 ||
		c.any && c.exact && l.First > c.seq+1 || l.Last < l.First {
		return fmt.Errorf("receive records: %w: a loss of numbers %d to %d came after %d", ErrProtocol, l.First, l.Last, c.seq)
	}
	c.lost.Add(l.Count)
	if l.Last > c.seq {
		c.seq, c.any = l.Last, true
	}
	return nil
}

// reach accounts for all numbers up to seq.
func (c *Client) reach(seq uint64) error {
	switch {
	case seq == 0 || c.any && seq == c.seq:
		return nil
	case c.any && (seq < c.seq || c.exact):
		return fmt.Errorf("receive records: %w: the stream is at number %d after %d", ErrProtocol, seq, c.seq)
	}
	c.seq, c.any = seq, true
	return nil
}

// start waits for the daemon's hello. Records before that are of version 1, sent before
// the daemon had the request.
func (c *Client) start(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	for c.hello == nil {
		for c.next == len(c.recs) {
			if err := c.fill(); err != nil {
				if ctx.Err() != nil {
					err = ctx.Err()
				}
				return err
			}
		}
		rec := &c.recs[c.next]
		c.next++
		switch ev := rec.Control().(type) {
		case *Hello:
			c.hello = ev
		case *End:
			return &refusedError{ev.Reason}
		}
	}
	if c.hello.Next > 0 {
		c.seq, c.any = c.hello.Next-1, true
	}
	if !stop() {
		<-ctx.Done() // it has fired
		return ctx.Err()
	}
	return nil
}

// fill receives one packet.
func (c *Client) fill() error {
	ended := false
	for {
		n, err := c.conn.Read(c.buf)
		switch {
		case err == nil:
			return c.accept(c.buf[:n])
		case errors.Is(err, syscall.ECONNRESET) && !c.reset:
			// The kernel reports it once, ahead of packets that were sent before it and
			// can still be read.
			c.reset = true
		case err == io.EOF && !ended:
			// The kernel looks for packets first and for the end after that. A last
			// packet or a reset that came in between shows only in another read.
			ended = true
		case err == io.EOF && c.reset && !c.any && c.hello == nil:
			return fmt.Errorf("receive records: %w", ErrRefused)
		case err == io.EOF && c.hello != nil:
			return fmt.Errorf("receive records: %w: scoutfs-notifyd was killed", io.ErrUnexpectedEOF)
		case err == io.EOF:
			return io.EOF
		default:
			return fmt.Errorf("receive records: %w", unwrapNet(err))
		}
	}
}

// accept takes one packet's bytes.
func (c *Client) accept(pkt []byte) error {
	c.recs, c.next = c.recs[:0], 0
	if len(pkt) > RingRecords*RecordSize {
		return fmt.Errorf("receive records: %w: a packet of more than %d records", ErrProtocol, RingRecords)
	}
	recs, err := Decode(c.recs, pkt)
	if err != nil {
		return fmt.Errorf("receive records: %w: %w", ErrProtocol, err)
	}
	c.recs = recs
	return nil
}

// unwrapNet strips what package net adds to an error, the operation and both
// addresses: messages here name them already.
func unwrapNet(err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) {
		if errors.Is(oe.Err, net.ErrClosed) {
			return ErrClosed
		}
		return oe.Err
	}
	return err
}
