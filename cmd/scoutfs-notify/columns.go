// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Colours of a terminal.
const (
	green  = "\x1b[32m"
	red    = "\x1b[1;31m"
	dim    = "\x1b[2m"
	normal = "\x1b[m"
)

// columns prints lines for a terminal, which never are wider than that.
type columns struct {
	w      io.Writer
	names  asked
	time   func(b []byte, t time.Time) []byte
	width  func() int
	follow bool
	colour bool

	fitted int // the width that shown is for
	shown  []column
	rest   int // room for the file
	buf    []byte
	titled bool
}

// column is one of the columns before the file.
type column struct {
	title string
	width int
	right bool // it has numbers
	cell  func(p *columns, r *notify.Record) string
}

// allColumns are the columns before the file.
func allColumns(timeWidth int) []column {
	return []column{
		{"TIME", timeWidth, false, func(p *columns, r *notify.Record) string { return string(p.time(nil, r.Time())) }},
		{"TYPE", 4, false, func(_ *columns, r *notify.Record) string { return r.Type.String() }},
		{"PID", 7, true, func(_ *columns, r *notify.Record) string { return fmt.Sprint(r.PID) }},
		{"COMMAND", 10, false, func(p *columns, r *notify.Record) string { return p.names.command(r) }},
		{"USER", 8, false, func(p *columns, r *notify.Record) string {
			if name := p.names.user(r.UID); name != "" {
				return name
			}
			return fmt.Sprint(r.UID)
		}},
		{"OFFSET", 10, true, func(_ *columns, r *notify.Record) string { return readOnly(r, r.Offset) }},
		{"LENGTH", 7, true, func(_ *columns, r *notify.Record) string { return readOnly(r, r.Length) }},
	}
}

// readOnly writes a number that reads have.
func readOnly(r *notify.Record, n uint64) string {
	if r.Type != notify.TypeRead {
		return ""
	}
	return fmt.Sprint(n)
}

// dropped are the columns that go where there is no room, first those that matter least.
var dropped = []string{"USER", "OFFSET", "PID", "TIME", "COMMAND", "LENGTH", "TYPE"}

func newColumns(w io.Writer, a asked, appendTime func([]byte, time.Time) []byte, width func() int, follow, colour bool) *columns {
	return &columns{w: w, names: a, time: appendTime, width: width, follow: follow, colour: colour}
}

// fit chooses the columns for the terminal, which can change its size.
func (p *columns) fit() {
	width := p.width()
	if width == p.fitted && p.titled {
		return
	}
	p.fitted = width
	p.shown = allColumns(len(p.time(nil, time.Unix(0, 0))))
	least := 12
	if p.names.paths {
		least = 20
	}
	for _, title := range dropped {
		p.rest = width
		for _, c := range p.shown {
			p.rest -= c.width + 1
		}
		if p.rest >= least {
			break
		}
		p.shown = slices.DeleteFunc(p.shown, func(c column) bool { return c.title == title })
	}
	p.rest = width
	for _, c := range p.shown {
		p.rest -= c.width + 1
	}
	p.rest = max(p.rest, 1)
	p.titled = false
}

func (p *columns) print(ev notify.Event) error {
	p.fit()
	b := p.buf[:0]
	if rec, ok := ev.(*notify.Record); ok {
		b = p.appendTitles(b)
		b = p.appendRecord(b, rec)
	} else if line := string(appendControl(nil, ev, p.time, p.follow)); line != "" {
		colour := dim
		if _, ok := ev.(*notify.Lost); ok {
			colour = red
		}
		b = append(p.paint(b, colour, ansi.Wrap(strings.TrimSuffix(line, "\n"), p.fitted, "")), '\n')
	}
	p.buf = b
	_, err := p.w.Write(b)
	return err
}

// appendTitles appends the first line, and another when the columns have changed.
func (p *columns) appendTitles(b []byte) []byte {
	if p.titled {
		return b
	}
	p.titled = true
	var line strings.Builder
	for _, c := range p.shown {
		line.WriteString(c.fill(c.title) + " ")
	}
	file := "INODE"
	if p.names.paths {
		file = "FILE"
	}
	return append(p.paint(b, dim, line.String()+ansi.Truncate(file, p.rest, "")), '\n')
}

func (p *columns) appendRecord(b []byte, r *notify.Record) []byte {
	for _, c := range p.shown {
		cell := c.fill(printable(c.cell(p, r)))
		if c.title == "TYPE" && r.Type == notify.TypeOpen {
			b = p.paint(b, green, cell)
		} else {
			b = append(b, cell...)
		}
		b = append(b, ' ')
	}
	var path names.Path
	if p.names.paths {
		path = p.names.where(r)
	}
	return append(p.appendFile(b, r.Ino, path, p.rest), '\n')
}

// appendFile appends a file: as much of the end of its path as there is room for.
func (p *columns) appendFile(b []byte, ino uint64, path names.Path, room int) []byte {
	switch {
	case !p.names.paths:
		return append(b, ansi.Truncate(fmt.Sprint(ino), room, "…")...)
	case path.Err != nil:
		return p.paint(b, dim, ansi.Truncate(fmt.Sprintf("%d (%s)", ino, noPath(path.Err)), room, "…"))
	}
	text := printable(path.Text)
	if over := ansi.StringWidth(text) - room; over > 0 {
		text = ansi.TruncateLeft(text, over+1, "…")
		text = ansi.Truncate(text, room, "") // half of a wide character is left
	}
	return append(b, text...)
}

// fill makes a text as wide as the column. What is too long is cut off, with a sign.
func (c *column) fill(text string) string {
	text = ansi.Truncate(text, c.width, "…")
	space := strings.Repeat(" ", max(0, c.width-ansi.StringWidth(text)))
	if c.right {
		return space + text
	}
	return text + space
}

func (p *columns) paint(b []byte, colour, text string) []byte {
	if !p.colour || text == "" {
		return append(b, text...)
	}
	return append(append(append(b, colour...), text...), normal...)
}

func (p *columns) asks() *asked { return &p.names }

// sum prints what was accessed of a file in columns of its own.
func (p *columns) sum(s *fileSum, at time.Time) error {
	p.fit()
	line := fmt.Sprintf("%s %7d opens %8d reads %10s ", p.time(nil, at), s.Opens, s.Reads, inBytes(s.Bytes))
	b := append(p.buf[:0], ansi.Truncate(line, p.fitted, "…")...)
	if room := p.fitted - ansi.StringWidth(line); room > 0 {
		if s.Ino == 0 {
			b = append(b, ansi.Truncate("(other files)", room, "…")...)
		} else {
			b = p.appendFile(b, s.Ino, s.path, room)
		}
	}
	p.buf = append(b, '\n')
	_, err := p.w.Write(p.buf)
	return err
}

// inBytes writes a number of bytes with its unit.
func inBytes(n uint64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f TiB", v)
}
