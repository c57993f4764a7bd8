// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify/notifytest"
)

const replayAbout = `Serves a recording on a socket, as scoutfs-notifyd serves a mount: to try a consumer
without ScoutFS. It waits for the consumer, sends what was recorded in the time in which
it happened, and ends. A SOCKET is the path of a new socket, in a folder that is there. Some consumers
want its name to be ` + notify.SocketName + `.
`

// runReplay is the command replay.
func runReplay(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	r := replayer{env: env, speed: 1}
	clients := 1
	flags.Func("speed", "how many times as fast as it happened, or max to wait for nothing but the consumers; `factor` 1 is the default", r.setSpeed)
	flags.Var(cli.Int(&clients, 1, math.MaxInt), "clients", "wait for `count` consumers at each start of a stream")
	var ff filterFlags
	ff.define(flags)
	rest, err := env.program.Parse(flags, "FILE SOCKET", replayAbout, args)
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return usagef("replay", "expected a recording and the path of a socket, got %d arguments", len(rest))
	}
	if !isRecording(env, rest[0]) {
		return usagef("replay", "%s is not a file", rest[0])
	}
	f, err := ff.filter("replay")
	if err != nil {
		return err
	}
	pick := ff.picker()
	src, err := openSource(ctx, env, "replay", rest[0], options{dialer: dialer(env, f), pick: pick})
	if err != nil {
		return err
	}
	defer src.close()
	defer pick.tell(env.stderr, "replay")
	r.socket, r.clients = rest[1], clients
	r.numbers.filtered = !f.All() || pick.active()
	return r.run(ctx, src.events)
}

// replayer serves a recording.
type replayer struct {
	env     *environment
	socket  string
	clients int
	speed   float64 // 0 for as fast as can be

	d       *notifytest.Daemon // nil before the first stream
	held    *notify.Hello      // the start of a stream, until it is known what follows
	numbers numbering
	there   int            // consumers, when it looked last
	batch   []notify.Event // that is due
	begun   time.Time      // when the stream began
	first   time.Time      // when it began in the recording, zero if that is not known
	ended   bool           // the stream is
	records uint64
}

// maxReplayBatch is how many events are sent at once.
const maxReplayBatch = notify.RingRecords

func (r *replayer) setSpeed(s string) error {
	if s == "max" {
		r.speed = 0
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return errors.New("neither a number above 0 nor max")
	}
	r.speed = v
	return nil
}

func (r *replayer) run(ctx context.Context, events iter.Seq2[notify.Event, error]) (err error) {
	defer func() {
		if r.d != nil {
			r.d.Close()
		}
	}()
	for ev, err := range events {
		if err == nil {
			err = r.event(ctx, ev)
		} else if ctx.Err() == nil {
			err = cmp.Or(r.begin(ctx), err)
		}
		if err != nil {
			r.stop(notify.EndFailed)
			return err
		}
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	if r.d == nil {
		return fmt.Errorf("replay: the recording has no stream")
	}
	if err := r.stop(notify.EndStopping); err != nil {
		return err
	}
	fmt.Fprintf(r.env.stderr, "scoutfs-notify: replay: %d accesses sent\n", r.records)
	return nil
}

// stop ends a stream that the recording does not end.
func (r *replayer) stop(why notify.Reason) error {
	if r.d == nil || r.ended {
		return nil
	}
	if err := r.send(); err != nil {
		return err
	}
	r.look()
	return r.d.End(why)
}

// event sends an event when it is due.
func (r *replayer) event(ctx context.Context, ev notify.Event) error {
	if h, ok := ev.(*notify.Hello); ok {
		err := r.begin(ctx)
		c := *h
		r.held = &c
		return err
	}
	if lost, ok := ev.(*notify.Lost); ok && lost.AtMost {
		r.numbers.filtered = true // by the recorder
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	ev = r.numbers.event(ev)
	at := time.Time{}
	switch ev := ev.(type) {
	case *notify.Record:
		r.records++
		at = ev.Time()
	case *notify.Lost:
		if ev.Cause&notify.LostAway != 0 {
			return nil // the recorder was away; each consumer is told what itself has missed
		}
		at = ev.Time
	case *notify.Idle:
		at = ev.Time
	case *notify.End:
		at = ev.Time
	}
	r.batch = append(r.batch, ev)
	if r.d == nil {
		return fmt.Errorf("replay: the recording does not start with a stream")
	}
	if err := r.wait(ctx, at); err != nil {
		return err
	}
	_, end := ev.(*notify.End)
	if end || r.speed > 0 || len(r.batch) >= maxReplayBatch {
		if err := r.send(); err != nil {
			return err
		}
	}
	if end {
		r.ended = true
		r.d.Kill() // they know already
	}
	return nil
}

// begin starts the stream that was held back.
func (r *replayer) begin(ctx context.Context) error {
	h := r.held
	r.held = nil
	if h == nil {
		return nil
	}
	return r.hello(ctx, h)
}

// hello starts a stream, and waits for its consumers.
func (r *replayer) hello(ctx context.Context, h *notify.Hello) error {
	if r.d != nil && !r.ended {
		// The recorder was not told why.
		if err := r.send(); err != nil {
			return err
		}
		r.d.Kill()
	}
	r.ended, r.first = false, time.Time{}
	hello := r.numbers.hello(*h)
	if r.d == nil {
		var err error
		if r.d, err = notifytest.Start(r.socket, hello); err != nil {
			return fmt.Errorf("serve %s: %w", r.socket, unwrapAddress(err))
		}
		fmt.Fprintf(r.env.stderr, "scoutfs-notify: replay: waiting at %s for a consumer\n", printable(r.socket))
	}
	if r.numbers.filtered {
		r.d.Filtered()
	}
	r.d.Hello(hello)
	err := r.d.Await(ctx, r.clients)
	r.begun, r.there = r.env.now(), r.d.Clients()
	return err
}

// send sends what is due.
func (r *replayer) send() error {
	r.look()
	batch := r.batch
	r.batch = nil
	if len(batch) == 0 {
		return nil
	}
	if r.numbers.filtered {
		r.d.Filtered()
	}
	if err := r.d.Send(batch...); err != nil {
		// A consumer that left is its own affair.
		fmt.Fprintf(r.env.stderr, "scoutfs-notify: replay: a consumer left before the end of the stream: %s\n", printable(err.Error()))
		r.there = r.d.Clients()
	}
	return nil
}

// look says so if consumers have left, which shows in no error. It is to be called before
// the end of a stream is sent, after which they may.
func (r *replayer) look() {
	n := r.d.Clients()
	if n < r.there {
		fmt.Fprintf(r.env.stderr, "scoutfs-notify: replay: %d of %d consumers left before the end of the stream\n", r.there-n, r.there)
	}
	r.there = n
}

// wait waits until it is as long after the start of the stream as it was.
func (r *replayer) wait(ctx context.Context, at time.Time) error {
	if r.speed == 0 || at.IsZero() {
		return ctx.Err()
	}
	if r.first.IsZero() {
		r.first = at
	}
	due := r.begun.Add(time.Duration(float64(at.Sub(r.first)) / r.speed))
	left := due.Sub(r.env.now())
	if left <= 0 {
		return ctx.Err()
	}
	// What is due already is not to wait.
	last := r.batch[len(r.batch)-1]
	r.batch = r.batch[:len(r.batch)-1]
	if err := r.send(); err != nil {
		return err
	}
	select {
	case <-time.After(left):
	case <-ctx.Done():
		return ctx.Err()
	}
	r.batch = append(r.batch, last)
	return nil
}

// unwrapAddress strips what package net adds to an error.
func unwrapAddress(err error) error {
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err
	}
	return err
}

const socketAbout = `Prints the path of the socket on which a mount's daemon listens, for consumers that take
one. It need not run.
`

// runSocket is the command socket.
func runSocket(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("socket", flag.ContinueOnError)
	nul := flags.Bool("0", false, "print a NUL after it instead of a new line, and the path as it is")
	mount, err := parseFlags(env, flags, socketAbout, args)
	if err != nil {
		return err
	}
	socket := mount
	if !isSocketPath(mount) {
		s, ok := dialer(env, notify.Filter{}).Served(mount)
		socket = s.Socket
		if !ok {
			m, err := env.statfs(ctx, mount)
			if err != nil {
				return explain(env, err, mount)
			}
			socket = filepath.Join(env.runDir, m.FSID.String(), notify.SocketName)
		}
	}
	if *nul {
		_, err = fmt.Fprintf(env.stdout, "%s\x00", socket)
	} else {
		_, err = fmt.Fprintln(env.stdout, printable(socket))
	}
	return err
}
