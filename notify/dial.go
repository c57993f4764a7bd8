// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Errors of connecting and of a Client, to be tested for with [errors.Is].
var (
	// ErrNotRunning: no daemon serves the file system. Its socket is missing, or
	// nobody listens on it any more.
	ErrNotRunning = errors.New("scoutfs-notifyd is not running")

	// ErrRefused: the daemon turned the client away. The message says why, unless the
	// daemon closed the connection without a word: it is of a release that knows
	// [Version1] only, or has no resources left to say so. Its log says which.
	ErrRefused = errors.New("scoutfs-notifyd refused the connection")

	// ErrOtherMount: the daemon serves another mount than the one that was asked for.
	ErrOtherMount = errors.New("scoutfs-notifyd serves another mount")

	// ErrTarget: what to connect to is neither a directory nor a socket.
	ErrTarget = errors.New("neither a directory of a mounted ScoutFS nor a socket")

	// ErrProtocol: what was received is not a stream of records.
	ErrProtocol = errors.New("not a stream of records")
)

// refusedError is an ErrRefused with the daemon's reason.
type refusedError struct{ reason Reason }

func (e *refusedError) Error() string { return fmt.Sprintf("%v: %v", ErrRefused, e.reason) }

func (e *refusedError) Is(target error) bool { return target == ErrRefused }

// Dialer holds options for connecting to the daemon. The zero value is ready
// for use.
type Dialer struct {
	// RunDir is the directory of the daemons' sockets if it is not [RunDir].
	RunDir string

	// Version is the protocol to speak if it is not [Version2].
	Version uint32

	// MaxRecords is how many records to take in one packet, 1 to [RingRecords];
	// 0 means as many as there can be, which is the cheapest for both sides.
	MaxRecords int

	// Idle, Filter and Resume are those of the [Request], in [Version2].
	Idle   time.Duration
	Filter Filter
	Resume Resume
}

// Dial connects to the daemon with the default options. See [Dialer.DialContext].
func Dial(target string) (*Client, error) {
	return new(Dialer).DialContext(context.Background(), target)
}

// DialContext connects to the daemon that serves target: a directory of a mounted
// ScoutFS, such as its mount point, or the path of the daemon's socket. What is accessed
// after DialContext has returned is told. The context bounds finding the socket,
// connecting, and the daemon's answer, not what follows.
//
// The error is [ErrNotRunning], [ErrRefused], [ErrOtherMount], [ErrNotScoutFS],
// [ErrTarget], [os.ErrPermission] if the caller is not root, [ErrRequest] if an option
// is out of range, the context's, or the system's.
func (d *Dialer) DialContext(ctx context.Context, target string) (*Client, error) {
	return d.dial(ctx, target, false)
}

// Probe asks the daemon that serves target who it is. The daemon does not count that as
// a client, and answers even if it has all the clients it may. Errors are those of
// [Dialer.DialContext].
func (d *Dialer) Probe(ctx context.Context, target string) (*Hello, error) {
	c, err := d.dial(ctx, target, true)
	if err != nil {
		return nil, err
	}
	c.Close()
	return c.hello, nil
}

func (d *Dialer) dial(ctx context.Context, target string, probe bool) (*Client, error) {
	req, err := d.request(probe)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", target, err)
	}
	// Looking up the file system opens it, and it cannot be unmounted meanwhile. The
	// state file of a daemon that serves it, or was killed, makes that unnecessary.
	if s, ok := d.Served(target); ok {
		return d.connect(ctx, s, req)
	}
	s, err := await(ctx, "find the socket for "+target, func() (Service, error) { return d.lookUp(target) }, nil)
	if err != nil {
		return nil, err
	}
	return d.connect(ctx, s, req)
}

// request returns the encoded request.
func (d *Dialer) request(probe bool) (*Request, error) {
	records := cmp.Or(d.MaxRecords, RingRecords)
	if records < 1 || records > RingRecords {
		return nil, fmt.Errorf("%w: %d records a packet, not 1 to %d", ErrRequest, records, RingRecords)
	}
	req := &Request{
		Version: cmp.Or(d.Version, Version2), MaxRecords: uint32(records),
		Idle: d.Idle, Filter: d.Filter, Resume: d.Resume, Probe: probe,
	}
	return req, req.check()
}

// connect connects to a socket, sends the request, and waits for the answer.
func (d *Dialer) connect(ctx context.Context, s Service, req *Request) (*Client, error) {
	conn, err := dial(ctx, s.Socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.Socket, unwrapNet(err))
	}
	c, err := d.greet(ctx, conn, s, req)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", s.Socket, err)
	}
	return c, nil
}

// greet sends the request over a new connection and waits for the answer.
func (d *Dialer) greet(ctx context.Context, conn net.Conn, s Service, req *Request) (*Client, error) {
	pkt, err := req.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
	}
	// A daemon that turns the client away may have closed the connection already. What
	// it said is there to be read all the same.
	_, err = conn.Write(pkt)
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return nil, fmt.Errorf("send request: %w", unwrapNet(err))
	}
	c := newClient(conn)
	c.exact = req.Filter.All()
	if req.Version == Version1 {
		if err != nil {
			return nil, ErrRefused
		}
		c.exact = false
		return c, nil
	}
	switch err := c.start(ctx); {
	case errors.Is(err, io.EOF):
		return nil, ErrRefused
	case err != nil:
		return nil, err
	}
	return c, s.check(c.hello)
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
