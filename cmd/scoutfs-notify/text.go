// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// printer prints a stream's events.
type printer interface {
	print(ev notify.Event) error
}

// asked are the names that are to be printed.
type asked struct {
	namer
	ctx          context.Context // of the command
	names, paths bool
}

// where returns a file's path.
func (a *asked) where(rec *notify.Record) names.Path { return a.path(a.ctx, rec.Ino) }

// noPath says for people why there is no path: nothing that a path could be.
func noPath(err error) string {
	switch {
	case errors.Is(err, notify.ErrUnlinked):
		return "unlinked"
	case errors.Is(err, names.ErrUnknown), errors.Is(err, errNotRecorded):
		return "path unknown"
	}
	return "no path: " + printable(err.Error())
}

// word returns a name as it is safe to print between others: without spaces.
func word(name string) string { return strings.ReplaceAll(printable(name), " ", `\x20`) }

// times are the formats of times.
var times = map[string]func(b []byte, t time.Time) []byte{
	"clock": func(b []byte, t time.Time) []byte { return t.Local().AppendFormat(b, "15:04:05.000000") },
	"date":  func(b []byte, t time.Time) []byte { return t.Local().AppendFormat(b, "2006-01-02 15:04:05.000000") },
	"iso":   func(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, isoTime) },
	"unix": func(b []byte, t time.Time) []byte {
		return fmt.Appendf(b, "%d.%09d", t.Unix(), t.Nanosecond())
	},
}

// isoTime has all digits always, so that times sort as texts.
const isoTime = "2006-01-02T15:04:05.000000000Z07:00"

// textPrinter prints lines for people and for grep: words with what they are before them.
type textPrinter struct {
	w      io.Writer
	names  asked
	time   func(b []byte, t time.Time) []byte
	follow bool // tell one stream from the next
	buf    []byte
}

func (p *textPrinter) print(ev notify.Event) error {
	b := p.buf[:0]
	if rec, ok := ev.(*notify.Record); ok {
		b = p.appendRecord(b, rec)
	} else {
		b = appendControl(b, ev, p.time, p.follow)
	}
	p.buf = b
	if len(b) == 0 {
		return nil
	}
	_, err := p.w.Write(b)
	return err
}

// appendControl appends the line for a control record, if there is one.
func appendControl(b []byte, ev notify.Event, appendTime func([]byte, time.Time) []byte, follow bool) []byte {
	switch ev := ev.(type) {
	case *notify.Lost:
		return fmt.Appendln(b, ev)
	case *notify.Idle:
		b = appendTime(b, ev.Time)
		return fmt.Appendf(b, " idle, told up to number %d\n", ev.Seq)
	case *notify.Waiting:
		return fmt.Appendf(b, "waiting: %s\n", printable(ev.Err.Error()))
	}
	if !follow {
		return b // the command ends with an End
	}
	switch ev := ev.(type) {
	case *notify.Hello:
		return fmt.Appendf(b, "connected: mount %v of file system %v, next is number %s\n", ev.RID, ev.FSID, number(ev.Next))
	case *notify.End:
		return fmt.Appendf(b, "ended: %v\n", ev.Reason)
	}
	return b
}

// number writes the number of an access.
func number(seq uint64) string {
	if seq == 0 {
		return "not known yet"
	}
	return fmt.Sprint(seq)
}

func (p *textPrinter) appendRecord(b []byte, r *notify.Record) []byte {
	b = p.time(b, r.Time())
	b = fmt.Appendf(b, " %-4s ino %d", r.Type, r.Ino)
	if r.Type == notify.TypeRead {
		b = fmt.Appendf(b, " offset %d length %d", r.Offset, r.Length)
	}
	b = fmt.Appendf(b, " pid %d", r.PID)
	if r.TID != r.PID {
		b = fmt.Appendf(b, " tid %d", r.TID)
	}
	b = fmt.Appendf(b, " uid %d gid %d flags %s", r.UID, r.GID, flagNames(r.OpenFlags))
	if comm := r.Comm.String(); comm != "" {
		b = fmt.Appendf(b, " comm %s", word(comm))
	}
	if p.names.names {
		for _, n := range []struct{ what, name string }{
			{"user", p.names.user(r.UID)}, {"group", p.names.group(r.GID)}, {"command", p.names.command(r)},
		} {
			if n.name != "" {
				b = fmt.Appendf(b, " %s %s", n.what, word(n.name))
			}
		}
	}
	if p.names.paths {
		b = p.appendPath(b, r)
	}
	return append(b, '\n')
}

// appendPath appends a file's path, which is the last on its line: it may have spaces.
func (p *textPrinter) appendPath(b []byte, r *notify.Record) []byte {
	path := p.names.where(r)
	if path.Err != nil {
		return append(append(b, ' '), noPath(path.Err)...)
	}
	return fmt.Appendf(b, " path: %s", printable(path.Text))
}

// pathPrinter prints the paths of files, with a NUL after each.
type pathPrinter struct {
	w     io.Writer
	names asked
}

func (p *pathPrinter) print(ev notify.Event) error {
	rec, ok := ev.(*notify.Record)
	if !ok {
		return nil
	}
	path := p.names.where(rec)
	if path.Err != nil {
		return nil
	}
	_, err := io.WriteString(p.w, path.Text+"\x00")
	return err
}
