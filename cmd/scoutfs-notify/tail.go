// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"iter"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const tailAbout = `Prints a line for each access, in the order in which they happened, and one for
each loss as soon as it is known: "lost 17 records (queue)". Ends with the stream
and says why; with -f it goes on when the daemon is back or the file system is
mounted again, and prints what it missed meanwhile.

scoutfs-notify(1) says what the lines mean, and what the objects of -json are.
`

// runTail is the command tail.
func runTail(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print JSON Lines")
	follow := flags.Bool("f", false, "go on over restarts of the daemon, unmounts and mounts")
	flags.BoolVar(follow, "follow", false, "the same as -f")
	var count uint64
	flags.Var(cli.Count(&count), "n", "end after `count` records; 0 for never (the default)")
	var idle time.Duration
	flags.Var(cli.Duration(&idle, notify.IdleMin, notify.IdleMax), "idle", "print a sign of life whenever there was nothing to tell for `duration`, at least 10ms")
	var ff filterFlags
	ff.define(flags)
	mount, err := parseFlags(env, flags, tailAbout, args)
	if err != nil {
		return err
	}
	f, err := ff.filter("tail")
	if err != nil {
		return err
	}
	d := dialer(env, f)
	d.Idle = idle.Truncate(time.Millisecond)

	out := newEagerWriter(env.stdout)
	var p printer = &textPrinter{w: out, follow: *follow}
	if *asJSON {
		p = newJSONPrinter(out)
	}
	src, err := openSource(ctx, env, mount, options{dialer: d, follow: *follow})
	if err != nil {
		return err
	}
	defer src.close()
	end, err := tail(src.events, p, count)
	if ferr := out.close(); ferr != nil {
		return ferr // also if it was a write that failed before
	}
	return ended(env, end, err, "tail", mount)
}

// ended turns the end of a stream into the end of the command: one that whoever waits
// for records, person or program, wants to know about, and a success unless something
// failed. end is nil if the command did not wait for it.
func ended(env *environment, end *notify.End, err error, command, mount string) error {
	switch {
	case err != nil:
		return explain(env, fmt.Errorf("%s %s: %w", command, mount, err), mount)
	case end == nil:
		return nil
	case end.Reason == notify.EndFailed:
		return fmt.Errorf("%s %s: the stream ended: %v: %s", command, mount, end.Reason, logHint(env, mount))
	}
	fmt.Fprintf(env.stderr, "scoutfs-notify: %s %s: the stream ended: %v\n", command, printable(mount), end.Reason)
	return nil
}

// tail prints events until there have been count records, or if that is 0 all. It
// returns the last event if that is the end of the stream.
func tail(events iter.Seq2[notify.Event, error], p printer, count uint64) (end *notify.End, err error) {
	n := uint64(0)
	for ev, err := range events {
		if err != nil {
			return nil, err
		}
		if err := p.print(ev); err != nil {
			return nil, err
		}
		end = nil
		switch ev := ev.(type) {
		case *notify.Record:
			if n++; n == count {
				return nil, nil
			}
		case *notify.End:
			end = ev
		}
	}
	return end, nil
}

// printer prints a stream's events.
type printer interface {
	print(ev notify.Event) error
}

// textPrinter prints lines for people.
type textPrinter struct {
	w      io.Writer
	follow bool // tell one stream from the next
	buf    []byte
}

func (p *textPrinter) print(ev notify.Event) error {
	b := p.buf[:0]
	switch ev := ev.(type) {
	case *notify.Record:
		b = appendRecord(b, ev)
	case *notify.Lost:
		b = fmt.Appendln(b, ev)
	case *notify.Idle:
		b = appendTime(b, ev.Time)
		b = fmt.Appendf(b, " idle, told up to number %d\n", ev.Seq)
	case *notify.Hello:
		if !p.follow {
			return nil
		}
		b = fmt.Appendf(b, "connected: mount %v of file system %v, next is number %s\n", ev.RID, ev.FSID, number(ev.Next))
	case *notify.End:
		if !p.follow {
			return nil // the command ends with it
		}
		b = fmt.Appendf(b, "ended: %v\n", ev.Reason)
	case *notify.Waiting:
		b = fmt.Appendf(b, "waiting: %s\n", printable(ev.Err.Error()))
	}
	p.buf = b
	_, err := p.w.Write(b)
	return err
}

// number writes the number of an access.
func number(seq uint64) string {
	if seq == 0 {
		return "not known yet"
	}
	return fmt.Sprint(seq)
}

func appendTime(b []byte, t time.Time) []byte { return t.Local().AppendFormat(b, "15:04:05.000000") }

func appendRecord(b []byte, r *notify.Record) []byte {
	b = appendTime(b, r.Time())
	b = fmt.Appendf(b, " %-4s ino %d", r.Type, r.Ino)
	if r.Type == notify.TypeRead {
		b = fmt.Appendf(b, " offset %d length %d", r.Offset, r.Length)
	}
	b = fmt.Appendf(b, " pid %d", r.PID)
	if r.TID != r.PID {
		b = fmt.Appendf(b, " tid %d", r.TID)
	}
	return fmt.Appendf(b, " uid %d gid %d flags %s\n", r.UID, r.GID, flagNames(r.OpenFlags))
}

// jsonPrinter prints JSON Lines. The order of the types' fields is that of the output.
type jsonPrinter struct {
	enc *json.Encoder
	raw *json.Encoder // for texts from outside
}

func newJSONPrinter(w io.Writer) *jsonPrinter {
	return &jsonPrinter{json.NewEncoder(w), json.NewEncoder(printableJSON{w})}
}

// control is what the objects for control records begin with.
type control struct {
	Type   notify.Type `json:"type"`
	TimeNS uint64      `json:"time_ns"`
}

func newControl(typ notify.Type, t time.Time) control { return control{typ, uint64(t.UnixNano())} }

func (p *jsonPrinter) print(ev notify.Event) error {
	switch ev := ev.(type) {
	case *notify.Record:
		return p.enc.Encode(struct {
			*notify.Record
			Time time.Time `json:"time"`
		}{ev, ev.Time()})
	case *notify.Hello:
		return p.enc.Encode(struct {
			control
			*notify.Hello
		}{newControl(notify.TypeHello, ev.Time), ev})
	case *notify.Lost:
		return p.enc.Encode(struct {
			control
			*notify.Lost
		}{newControl(notify.TypeLost, ev.Time), ev})
	case *notify.Idle:
		return p.enc.Encode(struct {
			control
			*notify.Idle
		}{newControl(notify.TypeIdle, ev.Time), ev})
	case *notify.End:
		return p.enc.Encode(struct {
			control
			*notify.End
			Code uint32 `json:"code"`
		}{newControl(notify.TypeEnd, ev.Time), ev, uint32(ev.Reason)})
	case *notify.Waiting:
		return p.raw.Encode(struct {
			Type  string `json:"type"`
			Error string `json:"error"`
		}{"waiting", ev.Err.Error()})
	}
	return nil
}
