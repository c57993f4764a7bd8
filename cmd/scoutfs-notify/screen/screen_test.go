// SPDX-License-Identifier: GPL-2.0-only

package screen

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.Local)

// shown is a screen with a tally, two seconds after its start.
func shown(names tally.Names, w, h int, records ...*notify.Record) *model {
	t := tally.New(start, names)
	for _, r := range records {
		t.Add(r)
	}
	t.Next(start.Add(2 * time.Second))
	m := newModel(t, Options{Title: "/mnt/scoutfs", Interval: 2 * time.Second})
	m.now = func() time.Time { return start.Add(2 * time.Second) }
	m.Update(tea.WindowSizeMsg{Width: w, Height: h})
	return m
}

// sample are records of n files, the later ones with more bytes.
func sample(n int) []*notify.Record {
	var all []*notify.Record
	for i := range n {
		all = append(all,
			&notify.Record{Type: notify.TypeOpen, Ino: uint64(100 + i), PID: uint32(10 + i%3), UID: uint32(1000 + i%2)},
			&notify.Record{Type: notify.TypeRead, Ino: uint64(100 + i), PID: uint32(10 + i%3), UID: uint32(1000 + i%2), Length: uint64(2048 * (i + 1))})
	}
	return all
}

var sampleNames = tally.Names{
	Path:    func(ino uint64) string { return fmt.Sprintf("archive/run%d/data.%d", ino%2, ino) },
	User:    func(uid uint32) string { return []string{"ann", "bob"}[uid%2] },
	Command: func(r *notify.Record) string { return []string{"rsync", "cat", "tar"}[r.PID%3] },
}

// text is the screen without what text looks like, and without blanks at line ends.
func text(m *model) string {
	var lines []string
	for line := range strings.Lines(ansi.Strip(m.content())) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n")
}

func press(m *model, keys ...string) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k, Code: []rune(k)[0]}
		switch k {
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "shift+tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab, Mod: tea.ModShift}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "space":
			msg = tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
		case "backspace":
			msg = tea.KeyPressMsg{Code: tea.KeyBackspace}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		case "up":
			msg = tea.KeyPressMsg{Code: tea.KeyUp}
		case "pgdown":
			msg = tea.KeyPressMsg{Code: tea.KeyPgDown}
		case "pgup":
			msg = tea.KeyPressMsg{Code: tea.KeyPgUp}
		case "home":
			msg = tea.KeyPressMsg{Code: tea.KeyHome}
		}
		m.Update(msg)
	}
}

func TestContent(t *testing.T) {
	for _, tt := range []struct {
		name string
		w, h int
		keys []string
		want string
	}{
		{"usual", 80, 14, nil, `
scoutfs-notify top /mnt/scoutfs                        every 2s, up 2s  12:00:02
4.5 opens/s  4.5 reads/s  45.0 KiB/s                                           █
lost nothing
 1 Files   2 Directories   3 Users   4 Processes   5 Commands          9 of them
FILE                             OPENS/S    READS/S     BYTES/S HISTORY
archive/run0/data.108                0.5        0.5     9.0 KiB █
archive/run1/data.107                0.5        0.5     8.0 KiB █
archive/run0/data.106                0.5        0.5     7.0 KiB █
archive/run1/data.105                0.5        0.5     6.0 KiB █
archive/run0/data.104                0.5        0.5     5.0 KiB █
archive/run1/data.103                0.5        0.5     4.0 KiB █
archive/run0/data.102                0.5        0.5     3.0 KiB █

?:help  q:quit  space:pause  tab:next  s:sort by bytes  t:total  /:filter`},
		{"processes in all", 80, 12, []string{"4", "t"}, `
scoutfs-notify top /mnt/scoutfs                        every 2s, up 2s  12:00:02
9 opens  9 reads  90.0 KiB                                                     █
lost nothing
 1 Files   2 Directories   3 Users   4 Processes   5 Commands          3 of them
COMMAND                         PID USER            OPENS      READS       BYTES
rsync                            12 ann                 3          3    36.0 KiB
tar                              11 bob                 3          3    30.0 KiB
cat                              10 ann                 3          3    24.0 KiB



?:help  q:quit  space:pause  tab:next  s:sort by bytes  t:total  /:filter`},
		{"narrow", 40, 8, nil, `
4.5 opens/s  4.5 reads/s  45.0 KiB/s
lost nothing
 1 Files   2   3   4   5       9 of them
FILE                             BYTES/S
archive/run0/data.108            9.0 KiB
archive/run1/data.107            8.0 KiB
archive/run0/data.106            7.0 KiB
archive/run1/data.105            6.0 KiB`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := shown(sampleNames, tt.w, tt.h, sample(9)...)
			press(m, tt.keys...)
			if got, want := text(m), strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Keys change what is shown.
func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		keys []string
		want []string // on the screen
		not  []string
	}{
		{[]string{"tab"}, []string{"DIRECTORY", "\narchive/run1 "}, nil},
		{[]string{"shift+tab"}, []string{"\nCOMMAND", "\ntar "}, []string{"PID"}},
		{[]string{"3"}, []string{"USER ", "\nann  ", "\nbob "}, nil},
		{[]string{"s", "s"}, []string{"s:sort by opens"}, nil},
		{[]string{"/", "r", "u", "n", "1", "x", "backspace", "enter"}, []string{"15 of 30", "filter: run1", "data.129"}, []string{"data.128"}},
		{[]string{"/", "r", "q"}, []string{"0 of 30", "filter: rq_"}, nil},
		{[]string{"/", "r", "q", "esc"}, []string{"30 of them", "data.128"}, nil},
		{[]string{"/", "1", "enter", "esc"}, []string{"30 of them"}, []string{"filter:"}},
		{[]string{"down", "down", "up"}, []string{"from 2 of 30", "data.128"}, []string{"data.129"}},
		{[]string{"pgdown"}, []string{"from 18 of 30", "data.112"}, []string{"data.113"}},
		{[]string{"pgdown", "pgdown", "pgdown"}, []string{"from 30 of 30", "data.100"}, []string{"data.101"}},
		{[]string{"pgdown", "pgup"}, []string{"30 of them", "data.129"}, []string{"from"}},
		{[]string{"pgdown", "home"}, []string{"data.129"}, []string{"from"}},
		{[]string{"pgdown", "2"}, []string{"archive/run0"}, []string{"from"}},
		{[]string{"space"}, []string{" PAUSED "}, nil},
		{[]string{"space", "space"}, nil, []string{"PAUSED"}},
		{[]string{"?"}, []string{"suspend; fg comes back", "any key closes"}, []string{"data.129"}},
		{[]string{"?", "q"}, []string{"data.129"}, []string{"any key closes"}},
		{[]string{"r"}, []string{"first 2s under way", "0 of them"}, []string{"data.129"}},
		{[]string{"x", "é"}, []string{"data.129"}, nil},
	} {
		t.Run(strings.Join(tt.keys, " "), func(t *testing.T) {
			m := shown(sampleNames, 80, 24, sample(30)...)
			press(m, tt.keys...)
			got := "\n" + text(m)
			for _, s := range tt.want {
				if !strings.Contains(got, s) {
					t.Errorf("there is no %q in%s", s, got)
				}
			}
			for _, s := range tt.not {
				if strings.Contains(got, s) {
					t.Errorf("there is %q in%s", s, got)
				}
			}
		})
	}
	for _, k := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		m := shown(sampleNames, 80, 24)
		if _, cmd := m.Update(k); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%v does not quit", k)
		}
	}
}

// While it is paused nothing changes, and nothing goes uncounted.
func TestPause(t *testing.T) {
	m := shown(sampleNames, 80, 24, sample(1)...)
	press(m, "space")
	before := text(m)
	m.t.Add(&notify.Record{Type: notify.TypeRead, Ino: 500, Length: 1 << 20})
	m.Update(intervalMsg{})
	if got := text(m); got != before {
		t.Errorf("it was\n%s\nand is\n%s", before, got)
	}
	m.now = func() time.Time { return start.Add(6 * time.Second) }
	press(m, "space")
	m.Update(intervalMsg{})
	if got := text(m); !strings.Contains(got, "data.500") || !strings.Contains(got, "256.0 KiB/s") {
		t.Errorf("after it went on: %s", got)
	}
}

// Losses are in sight: in words, and where they were in time.
func TestLosses(t *testing.T) {
	m := shown(sampleNames, 80, 24, sample(1)...)
	m.t.Add(&notify.Lost{Count: 17, Cause: notify.LostQueue})
	m.now = func() time.Time { return start.Add(4 * time.Second) }
	m.Update(intervalMsg{})
	if got := m.content(); !strings.Contains(got, "\n"+red+"lost 17 records (queue)"+plain+"\n") || !strings.Contains(text(m), "█×\n") {
		t.Errorf("in the interval:\n%s", got)
	}
	m.Update(intervalMsg{})
	if got := text(m); !strings.Contains(got, "\nlost nothing; since 12:00:00: lost 17 records (queue)\n") || !strings.Contains(got, "█× \n") && !strings.Contains(got, "█×\n") {
		t.Errorf("after it:\n%s", got)
	}
}

// In any size the screen is full and nothing is beyond its edges.
func TestSizes(t *testing.T) {
	for _, by := range []string{"1", "2", "3", "4", "5", "?", "/"} {
		for _, w := range []int{1, 2, 5, 10, 19, 20, 30, 40, 59, 60, 69, 70, 80, 132, 250} {
			for _, h := range []int{1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 24, 70} {
				m := shown(sampleNames, w, h, sample(100)...)
				press(m, by)
				lines := strings.Split(m.content(), "\n")
				if len(lines) != h {
					t.Errorf("%s, %d by %d: %d lines", by, w, h, len(lines))
				}
				for _, l := range lines {
					if got := ansi.StringWidth(l); got > w {
						t.Errorf("%s, %d by %d: a line of %d columns: %q", by, w, h, got, l)
					}
				}
				if w == 250 && h == 70 && by == "1" && len(m.table.Rows) != 63 {
					t.Errorf("%d rows", len(m.table.Rows))
				}
			}
		}
	}
	if got := shown(sampleNames, 0, 0).content(); got != "" {
		t.Errorf("before the size is known: %q", got)
	}
}

// Whatever a file is called, its name does nothing to the terminal.
func TestAnyByte(t *testing.T) {
	for b := 1; b < 256; b++ {
		name := "x" + string([]byte{byte(b)}) + "\u202ey"
		any := tally.Names{
			Path: func(uint64) string { return name }, User: func(uint32) string { return name }, Command: func(*notify.Record) string { return name },
		}
		m := shown(any, 100, 24, sample(1)...)
		m.q.Filter = "x"
		for _, by := range []string{"1", "2", "3", "4", "5"} {
			press(m, by)
			got := text(m)
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Fatalf("byte %#x shows as %q", b, got)
			}
			if lines := strings.Count(got, "\n"); lines != 23 {
				t.Fatalf("byte %#x: %d line ends", b, lines)
			}
		}
	}
}

// The end of a path that is too long is shown, also if its letters are wide.
func TestLongNames(t *testing.T) {
	for name, want := range map[string]string{
		strings.Repeat("long/", 50) + "end": "…long/long/long/long/long/end ",
		strings.Repeat("文件", 50) + "end":    "文件end",
	} {
		m := shown(tally.Names{Path: func(uint64) string { return name }}, 80, 24, sample(1)...)
		if got := text(m); !strings.Contains(got, want) {
			t.Errorf("got\n%s", got)
		}
	}
}

// Where there is no UTF-8 there are no other letters.
func TestASCII(t *testing.T) {
	m := shown(tally.Names{Path: func(uint64) string { return strings.Repeat("x", 200) }}, 80, 24, sample(3)...)
	m.o.ASCII = true
	if got := text(m); strings.ContainsFunc(got, func(r rune) bool { return r > 126 }) || !strings.Contains(got, "<xxx") {
		t.Errorf("got\n%s", got)
	}
}
