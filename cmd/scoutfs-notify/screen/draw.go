// SPDX-License-Identifier: GPL-2.0-only

package screen

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

// What text looks like. The library leaves out colours where they are not wanted.
const (
	bold    = "\x1b[1m"
	reverse = "\x1b[7m"
	red     = "\x1b[1;31m"
	green   = "\x1b[32m"
	plain   = "\x1b[m"
)

// Heights from which there is room for more than the sums and the rows.
const (
	heightHeader = 4
	heightTabs   = 7
	heightAll    = 12
)

// rows is how many rows there is room for.
func (m *model) rows() int {
	switch {
	case m.h >= heightAll:
		return m.h - 7
	case m.h >= heightTabs:
		return m.h - 4
	case m.h >= heightHeader:
		return m.h - 3
	}
	return max(m.h-2, 0)
}

// content draws the screen: m.h lines of at most m.w columns.
func (m *model) content() string {
	lines := m.lines()
	lines = append(lines, make([]string, max(m.h-len(lines), 0))...)[:m.h]
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, m.w, "")
	}
	return strings.Join(lines, "\n")
}

func (m *model) lines() []string {
	var lines []string
	if m.h >= heightAll {
		lines = append(lines, m.title())
	}
	if m.editing && m.h < heightAll {
		lines = append(lines, m.footer())
	} else {
		lines = append(lines, m.sums())
	}
	lines = append(lines, m.losses())
	if m.h >= heightTabs {
		lines = append(lines, m.tabs())
	}
	if m.help {
		for _, h := range help {
			lines = append(lines, fmt.Sprintf(" %s%-22s%s %s", bold, h[0], plain, h[1]))
		}
		return append(lines, " any key closes this")
	}
	cols := m.columns()
	if m.h >= heightHeader {
		lines = append(lines, reverse+pad(m.row(cols, func(c column) string { return c.header }), m.w)+plain)
	}
	for i := range m.table.Rows {
		lines = append(lines, m.row(cols, func(c column) string { return c.text(&m.table.Rows[i]) }))
	}
	if m.h < heightAll {
		return lines
	}
	if rest := m.table.Rest; rest.Events() > 0 {
		lines = append(lines, fmt.Sprintf("and more, for which there is no room: %s", m.sum(rest)))
	}
	for len(lines) < m.h-1 {
		lines = append(lines, "")
	}
	return append(lines[:m.h-1], m.footer())
}

// title says what is watched since when, and the time.
func (m *model) title() string {
	now := m.now()
	left := bold + "scoutfs-notify top " + plain + m.o.Title
	state := "every " + m.o.Interval.String()
	switch {
	case m.paused:
		state = reverse + " PAUSED " + plain
	case m.table.First:
		state = "first " + m.o.Interval.String() + " under way"
	}
	right := fmt.Sprintf("%s, up %s  %s", state, max(now.Sub(m.table.Start), 0).Truncate(time.Second), now.Local().Format(time.TimeOnly))
	if !m.o.Recorded.IsZero() {
		right = fmt.Sprintf("recorded from %s to %s", m.table.Start.Local().Format(time.DateTime), now.Local().Format(time.DateTime))
	}
	if over := ansi.StringWidth(left) + 2 + ansi.StringWidth(right) - m.w; over > 0 && m.w > 60 {
		left = ansi.Truncate(left, m.w-ansi.StringWidth(right)-2, m.ellipsis())
	}
	return between(left, right, m.w)
}

// sums says how much there is in all, with the rates of the last intervals.
func (m *model) sums() string {
	left := m.sum(m.table.All)
	room := m.w - ansi.StringWidth(left) - 2
	if room < 4 {
		return left
	}
	values := make([]float64, 0, len(m.table.Moments))
	marks := make([]bool, 0, len(m.table.Moments))
	for _, mo := range m.table.Moments {
		v := mo.Events
		if m.q.Order == tally.Bytes {
			v = mo.Bytes
		}
		values, marks = append(values, v), append(marks, mo.Lost)
	}
	from := max(len(values)-min(room, 60), 0)
	return between(left, m.spark(values[from:], marks[from:]), m.w)
}

func (m *model) sum(c tally.Count) string {
	if m.q.Total {
		return fmt.Sprintf("%d opens  %d reads  %s", c.Opens, c.Reads, Size(float64(c.Bytes)))
	}
	s := m.table.Seconds
	return fmt.Sprintf("%s opens/s  %s reads/s  %s/s", Rate(c.Opens, s), Rate(c.Reads, s), Size(float64(c.Bytes)/s))
}

// losses says what was lost in the time that the table is about, and in all, and before that
// why nothing comes.
func (m *model) losses() string {
	if m.table.Waiting == "" {
		return m.lost()
	}
	return red + "waiting: " + cli.Printable(m.table.Waiting) + plain + "; " + m.lost()
}

func (m *model) lost() string {
	if !m.table.TotalLoss.Any() {
		return green + "lost nothing" + plain
	}
	text := m.table.Loss.String()
	if m.table.Loss.Any() {
		text = red + text + plain
	}
	if m.table.Loss != m.table.TotalLoss {
		text += fmt.Sprintf("; since %s: %s%s%s", m.table.Start.Local().Format(time.TimeOnly), red, m.table.TotalLoss, plain)
	}
	return text
}

// tabs says what the rows are, in which order, and which are shown.
func (m *model) tabs() string {
	var b strings.Builder
	for i, name := range []string{"Files", "Directories", "Users", "Processes", "Commands"} {
		style := ""
		if tally.By(i) == m.q.By {
			style = reverse
		}
		if m.w < 60 && style == "" {
			name = "" // only their keys
		}
		fmt.Fprintf(&b, "%s %s %s ", style, strings.TrimSpace(strconv.Itoa(i+1)+" "+name), plain)
	}
	left := b.String()
	what := fmt.Sprintf("%d of them", m.table.Found)
	if m.table.Found < m.table.Keys {
		what = fmt.Sprintf("%d of %d", m.table.Found, m.table.Keys)
	}
	if m.q.Skip > 0 {
		what = fmt.Sprintf("from %d of %d", m.q.Skip+1, m.table.Found)
	}
	return between(left, what, m.w)
}

// footer says what keys do, or shows the filter.
func (m *model) footer() string {
	switch filter := cli.Printable(m.q.Filter); {
	case m.editing:
		return "filter: " + bold + filter + plain + "_  (enter keeps it, esc shows all)"
	case filter != "":
		return "filter: " + bold + filter + plain + "  (esc shows all)"
	}
	return "?:help  q:quit  space:pause  tab:next  s:sort by " + m.q.Order.String() + "  t:total  /:filter"
}

// column is one of the table.
type column struct {
	header string
	width  int // 0 for what is left
	right  bool
	text   func(*tally.Row) string
}

// columns are those that there is room for, the label first.
func (m *model) columns() []column {
	s := m.table.Seconds
	unit := "/S"
	amount := func(n uint64) string { return Rate(n, s) }
	bytes := func(n uint64) string { return Size(float64(n) / s) }
	if m.q.Total {
		unit = ""
		amount = func(n uint64) string { return strconv.FormatUint(n, 10) }
		bytes = func(n uint64) string { return Size(float64(n)) }
	}
	all := m.labels()
	numbers := []column{
		{"BYTES" + unit, 11, true, func(r *tally.Row) string { return bytes(r.Bytes) }},
		{"READS" + unit, 10, true, func(r *tally.Row) string { return amount(r.Reads) }},
		{"OPENS" + unit, 10, true, func(r *tally.Row) string { return amount(r.Opens) }},
		{"HISTORY", tally.History, false, func(r *tally.Row) string { return m.spark(r.History, nil) }},
	}
	// What a label should have at least.
	room := m.w - 20
	for _, c := range all[1:] {
		room -= c.width + 1
	}
	n := 0
	for ; n < len(numbers) && room > numbers[n].width; n++ {
		room -= numbers[n].width + 1
	}
	numbers = numbers[:n]
	if n > 2 {
		slices.Reverse(numbers[:3]) // opens, reads, bytes
	}
	return append(all, numbers...)
}

// labels are the columns that say what a row is about, the one for names first.
func (m *model) labels() []column {
	name := func(unknown string) func(r *tally.Row) string {
		return func(r *tally.Row) string {
			if r.Name == "" {
				return unknown
			}
			return cli.Printable(r.Name)
		}
	}
	number := func(r *tally.Row) string { return strconv.FormatUint(r.ID, 10) }
	switch m.q.By {
	case tally.ByFile:
		return []column{{"FILE", 0, false, func(r *tally.Row) string {
			if r.Name == "" {
				return "inode " + number(r)
			}
			return cli.Printable(r.Name)
		}}}
	case tally.ByDirectory:
		return []column{{"DIRECTORY", 0, false, name("not known")}}
	case tally.ByUser:
		return []column{{"USER", 0, false, name("-")}, {"UID", 10, true, number}}
	case tally.ByProcess:
		user := func(r *tally.Row) string {
			if r.User == "" {
				return strconv.FormatUint(uint64(r.UID), 10)
			}
			return cli.Printable(r.User)
		}
		pid := column{"PID", 10, true, number}
		if m.w < 70 {
			return []column{{"COMMAND", 0, false, name("-")}, pid}
		}
		return []column{{"COMMAND", 0, false, name("-")}, pid, {"USER", 10, false, user}}
	}
	return []column{{"COMMAND", 0, false, name("not known")}}
}

// row writes a row.
func (m *model) row(cols []column, text func(column) string) string {
	left := m.w - len(cols) + 1
	for _, c := range cols {
		left -= c.width
	}
	var b strings.Builder
	for i, c := range cols {
		if i > 0 {
			b.WriteByte(' ')
		}
		width := c.width
		if width == 0 {
			width = max(left, 1)
		}
		s := text(c)
		if over := ansi.StringWidth(s) - width; over > 0 {
			// The end of a path says more than its start.
			s = m.ellipsis() + ansi.TruncateLeft(s, over+1, "")
		}
		if c.right {
			b.WriteString(strings.Repeat(" ", max(width-ansi.StringWidth(s), 0)) + s)
		} else {
			b.WriteString(pad(s, width))
		}
	}
	return b.String()
}

func (m *model) ellipsis() string {
	if m.o.ASCII {
		return "<"
	}
	return "…"
}

// spark draws values as bars, with a cross for those that are marked.
func (m *model) spark(values []float64, marks []bool) string {
	bars, cross := []rune(" ▁▂▃▄▅▆▇█"), "×"
	if m.o.ASCII {
		bars, cross = []rune(" .:-=+*#@"), "x"
	}
	most := slices.Max(append([]float64{0}, values...))
	var b strings.Builder
	for i, v := range values {
		switch {
		case marks != nil && marks[i]:
			b.WriteString(red + cross + plain)
		case v <= 0:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[1+min(int(v/most*8), 7)])
		}
	}
	return b.String()
}

// between puts texts at the left and right edge. If they do not fit, the right one is left
// out.
func between(left, right string, width int) string {
	gap := width - ansi.StringWidth(left) - ansi.StringWidth(right)
	if gap < 1 {
		return left
	}
	return left + strings.Repeat(" ", gap) + right
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
}

// Rate writes how many there were in a second.
func Rate(n uint64, seconds float64) string {
	return strconv.FormatFloat(float64(n)/seconds, 'f', 1, 64)
}

// Size writes a number of bytes, such as "1.5 MiB".
func Size(v float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f PiB", v)
}
