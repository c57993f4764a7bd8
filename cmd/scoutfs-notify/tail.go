// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const tailAbout = `Prints a line for each access, in the order in which they happened, and one for
each gap in them: "lost 17 records". Ends, with exit status 0, when the file
system is unmounted or the daemon stops or is restarted, and says so.

With -json each line is an object. Its "type" is "open", "read", "lost", or
"type" and a number for one that this version does not know. A "lost" one has
"count" and the "seq" of the first record that is missing; the others have the
fields of the record, which scoutfs-notify(5) describes, and "time".
`

// runTail is the command tail.
func runTail(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print JSON Lines")
	var count uint64
	flags.Var(cli.Count(&count), "n", "end after `count` records; 0 for never (the default)")
	mount, err := parseFlags(env, flags, tailAbout, args)
	if err != nil {
		return err
	}

	c, err := connect(ctx, env, mount)
	if err != nil {
		return err
	}
	defer c.Close()
	// What has been received is printed before the end.
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(0, 1)) })()

	out := bufio.NewWriterSize(env.stdout, 64<<10)
	var p printer = &textPrinter{w: out}
	if *asJSON {
		p = &jsonPrinter{enc: json.NewEncoder(out)}
	}
	err = tail(c, p, out, count)
	if ctx.Err() != nil {
		err = nil
	}
	return ended(env, err, "tail", mount)
}

// ended turns the end of a stream into the end of the command: a success, but one
// that whoever waits for records, person or program, wants to know about.
func ended(env *environment, err error, command, mount string) error {
	if err == io.EOF {
		fmt.Fprintf(env.stderr, "scoutfs-notify: %s %s: the stream ended: the file system was unmounted, or scoutfs-notifyd was stopped or restarted\n", command, printable(mount))
		return nil
	}
	if err != nil {
		return explain(env, fmt.Errorf("%s %s: %w", command, mount, err), mount)
	}
	return nil
}

// tail prints count records, or if that is 0 all until the stream ends, with
// io.EOF.
func tail(c *notify.Client, p printer, out *bufio.Writer, count uint64) error {
	var lost, seq uint64
	for n := uint64(0); count == 0 || n < count; n++ {
		if c.Buffered() == 0 {
			// There is nothing more for now: show what there is.
			if err := out.Flush(); err != nil {
				return err
			}
		}
		r, err := c.Next()
		if err != nil {
			if ferr := out.Flush(); ferr != nil {
				return ferr
			}
			return err
		}
		if l := c.Lost() - lost; l > 0 {
			lost += l
			if err := p.lost(seq+1, l); err != nil {
				return err
			}
		}
		if err := p.record(&r); err != nil {
			return err
		}
		seq = r.Seq
	}
	return out.Flush()
}

// printer prints a stream's events.
type printer interface {
	record(r *notify.Record) error
	// lost prints that count records are missing, of which seq is the first.
	lost(seq, count uint64) error
}

// textPrinter prints lines for people.
type textPrinter struct {
	w   *bufio.Writer
	buf []byte
}

func (p *textPrinter) record(r *notify.Record) error {
	b := r.Time().Local().AppendFormat(p.buf[:0], "15:04:05.000000")
	b = fmt.Appendf(b, " %-4s ino %d", r.Type, r.Ino)
	if r.Type == notify.TypeRead {
		b = fmt.Appendf(b, " offset %d length %d", r.Offset, r.Length)
	}
	b = fmt.Appendf(b, " pid %d", r.PID)
	if r.TID != r.PID {
		b = fmt.Appendf(b, " tid %d", r.TID)
	}
	b = fmt.Appendf(b, " uid %d gid %d flags %s\n", r.UID, r.GID, flagNames(r.OpenFlags))
	p.buf = b
	_, err := p.w.Write(b)
	return err
}

func (p *textPrinter) lost(seq, count uint64) error {
	noun := "records"
	if count == 1 {
		noun = "record"
	}
	_, err := fmt.Fprintf(p.w, "lost %d %s\n", count, noun)
	return err
}

// jsonPrinter prints JSON Lines.
type jsonPrinter struct {
	enc *json.Encoder
}

func (p *jsonPrinter) record(r *notify.Record) error {
	return p.enc.Encode(struct {
		*notify.Record
		Time time.Time `json:"time"`
	}{r, r.Time()})
}

func (p *jsonPrinter) lost(seq, count uint64) error {
	return p.enc.Encode(struct {
		Type  string `json:"type"`
		Count uint64 `json:"count"`
		Seq   uint64 `json:"seq"`
	}{"lost", count, seq})
}
