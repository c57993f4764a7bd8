// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// Errors of a Client, to be tested for with [errors.Is].
var (
	// ErrNotRunning: no daemon serves the file system. Its socket is missing, or
	// nobody listens on it any more.
	ErrNotRunning = errors.New("scoutfs-notifyd is not running")

	// ErrRefused: the daemon closed the connection before any record, because it
	// has all the clients it will take or because of who the caller is. Its log
	// says which.
	ErrRefused = errors.New("scoutfs-notifyd refused the connection")

	// ErrTarget: what to connect to is neither a directory nor a socket.
	ErrTarget = errors.New("neither a directory of a mounted ScoutFS nor a socket")

	// ErrProtocol: what was received is not a stream of records.
	ErrProtocol = errors.New("not a stream of records")
)

// Dialer holds options for connecting to the daemon. The zero value is ready
// for use.
type Dialer struct {
	// RunDir is the directory of the daemons' sockets if it is not [RunDir].
	RunDir string

	// MaxRecords is how many records to take in one packet, 1 to [RingRecords];
	// 0 means as many as there can be, which is the cheapest for both sides.
	MaxRecords int
}

// Dial connects to the daemon with the default options. See [Dialer.DialContext].
func Dial(target string) (*Client, error) {
	return new(Dialer).DialContext(context.Background(), target)
}

// DialContext connects to the daemon that serves target: a directory of a
// mounted ScoutFS, such as its mount point, or the path of the daemon's socket.
// The context bounds finding the socket and connecting, not what follows.
//
// The error is [ErrNotRunning], [ErrRefused], [ErrNotScoutFS], [ErrTarget],
// [os.ErrPermission] if the caller is not root, [ErrRequest] if MaxRecords is out
// of range, the context's, or the system's.
func (d *Dialer) DialContext(ctx context.Context, target string) (*Client, error) {
	// Looking up the file system opens it, and it cannot be unmounted meanwhile. The
	// state file of a daemon that serves it makes that unnecessary.
	if path, ok := d.Served(target); ok {
		c, err := d.connect(ctx, path)
		if !errors.Is(err, ErrNotRunning) {
			return c, err
		}
	}
	path, err := await(ctx, "find the socket for "+target, func() (string, error) { return d.SocketPath(target) }, nil)
	if err != nil {
		return nil, err
	}
	return d.connect(ctx, path)
}

// connect connects to a socket and asks for batches.
func (d *Dialer) connect(ctx context.Context, path string) (*Client, error) {
	records := cmp.Or(d.MaxRecords, RingRecords)
	if records < 1 || records > RingRecords {
		return nil, fmt.Errorf("connect to %s: %w: %d records a packet, not 1 to %d", path, ErrRequest, records, RingRecords)
	}
	pkt, _ := Request{MaxRecords: uint32(records)}.MarshalBinary() // which is in range
	conn, err := dial(ctx, path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, unwrapNet(err))
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
	}
	if _, err := conn.Write(pkt); err != nil {
		conn.Close()
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			err = ErrRefused
		}
		return nil, fmt.Errorf("send request to %s: %w", path, unwrapNet(err))
	}
	return newClient(conn), nil
}

// Served returns the socket of the one daemon whose state file names target as
// its mount point. It reads the daemons' files only: looking up the file system
// would keep it from being unmounted meanwhile. A daemon that was killed leaves
// its files, so the answer can be out of date.
func (d *Dialer) Served(target string) (path string, ok bool) {
	mount, err := filepath.Abs(target)
	if err != nil {
		return "", false
	}
	runDir := cmp.Or(d.RunDir, RunDir)
	dirs, err := os.ReadDir(runDir)
	if err != nil {
		return "", false
	}
	for _, dir := range dirs {
		st, err := ReadState(filepath.Join(runDir, dir.Name(), StateName))
		if err != nil || st.MountPoint != mount {
			continue
		}
		if ok {
			return "", false // one of them is left over
		}
		path, ok = filepath.Join(runDir, dir.Name(), SocketName), true
	}
	return path, ok
}

// dial connects to a socket. It retries while the backlog is full: connect(2)
// would wait for room, but fails on the non-blocking descriptors of package net.
func dial(ctx context.Context, path string) (net.Conn, error) {
	const interval = 10 * time.Millisecond
	for {
		var nd net.Dialer
		conn, err := nd.DialContext(ctx, "unixpacket", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// SocketPath returns the path of the socket of the daemon that serves target. For
// a directory it looks up the file system with [Statfs], and can block like it.
// The path of a socket is returned as it is, and so is a path that ends in
// [SocketName] and does not exist. The error is [ErrTarget] for anything else.
func (d *Dialer) SocketPath(target string) (string, error) {
	fi, err := os.Stat(target)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && filepath.Base(target) == SocketName {
			return target, nil
		}
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err // the message names the path already
		}
		return "", fmt.Errorf("find the socket for %s: %w", target, err)
	}
	if fi.Mode().Type() == os.ModeSocket {
		return target, nil
	}
	if !fi.IsDir() {
		return "", fmt.Errorf("find the socket for %s: %w", target, ErrTarget)
	}
	m, err := Statfs(target)
	if err != nil {
		return "", err
	}
	return filepath.Join(cmp.Or(d.RunDir, RunDir), m.FSID.String(), SocketName), nil
}

// Client receives a mount's records from the daemon.
//
// Only one goroutine may receive at a time. Close, Lost and SetReadDeadline are
// safe to call from others meanwhile.
type Client struct {
	conn  net.Conn
	buf   []byte
	recs  []Record // of the last packet
	next  int      // index of the first of recs that was not returned
	gaps  Gaps
	lost  atomic.Uint64 // copy of gaps.Lost() for other goroutines
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

// Next waits for a record and returns it. It does not allocate.
//
// The error is [io.EOF] when the stream ends: the file system was unmounted, or
// the daemon was stopped or restarted, as an update of its package does. To go
// on, dial again for as long as the file system is mounted. Other errors are
// [ErrRefused], [ErrProtocol], [ErrClosed], and [os.ErrDeadlineExceeded], after
// which Next can be called again.
func (c *Client) Next() (Record, error) {
	if c.next == len(c.recs) {
		if err := c.fill(); err != nil {
			return Record{}, err
		}
	}
	r := c.recs[c.next]
	if err := c.observe(&r); err != nil {
		return Record{}, err
	}
	c.next++
	return r, nil
}

// ReadBatch waits for records and returns all of one packet, or those that
// Next has left of it. The slice is valid until the next call of ReadBatch or
// Next. Errors are those of Next.
func (c *Client) ReadBatch() ([]Record, error) {
	if c.next == len(c.recs) {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	batch := c.recs[c.next:]
	for i := range batch {
		if err := c.observe(&batch[i]); err != nil {
			return nil, err
		}
	}
	c.next = len(c.recs)
	return batch, nil
}

// Buffered returns how many records Next can return without waiting.
func (c *Client) Buffered() int { return len(c.recs) - c.next }

// Lost returns how many records are missing among those returned so far,
// counted from the gaps in their numbers. Losses before the first record are not
// counted.
func (c *Client) Lost() uint64 { return c.lost.Load() }

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

// observe counts what is missing before r.
func (c *Client) observe(r *Record) error {
	last := c.gaps.Last()
	if _, ok := c.gaps.Observe(r.Seq); !ok {
		return fmt.Errorf("receive records: %w: number %d came after %d", ErrProtocol, r.Seq, last)
	}
	c.lost.Store(c.gaps.Lost())
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
		case err == io.EOF && c.reset && c.gaps.Last() == 0:
			return fmt.Errorf("receive records: %w", ErrRefused)
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
