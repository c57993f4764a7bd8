// SPDX-License-Identifier: GPL-2.0-only

package screen

import (
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
)

// help are the keys and what they do.
var help = [][2]string{
	{"1 2 3 4 5", "files, directories, users, processes, commands"},
	{"tab", "the next of them"},
	{"s", "sort by bytes, reads, opens or events (opens and reads)"},
	{"t", "since the start, or the last interval"},
	{"r", "start anew"},
	{"/", "show only what has a text in its name or number; esc shows all"},
	{"space", "pause and go on; what happens meanwhile is counted"},
	{"up down pgup pgdn home", "scroll"},
	{"ctrl-L", "draw anew"},
	{"ctrl-Z", "suspend; fg comes back"},
	{"? q", "this help; quit"},
}

// key does what a key is for.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	switch k.String() {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return m.stops.stop()
	case "ctrl+l":
		return tea.ClearScreen
	}
	switch {
	case m.editing:
		m.edit(k)
	case m.help:
		m.help = false
	case k.String() == "q":
		return tea.Quit
	default:
		m.command(k.String())
	}
	m.look()
	return nil
}

// command does what a key is for that changes what is shown.
func (m *model) command(key string) {
	switch key {
	case "1", "2", "3", "4", "5":
		m.show(tally.By(key[0] - '1'))
	case "tab":
		m.show((m.q.By + 1) % (tally.ByCommand + 1))
	case "shift+tab":
		m.show((m.q.By + tally.ByCommand) % (tally.ByCommand + 1))
	case "s":
		m.q.Order = (m.q.Order + 1) % (tally.Events + 1)
	case "t":
		m.q.Total = !m.q.Total
	case "r":
		m.t.Reset(m.now())
		m.q.Skip = 0
	case "/":
		m.editing = true
	case "esc":
		m.q.Filter = ""
	case "space", "p":
		m.paused = !m.paused
	case "?", "h":
		m.help = true
	case "up", "k":
		m.q.Skip--
	case "down", "j":
		m.q.Skip++
	case "pgup":
		m.q.Skip -= m.rows()
	case "pgdown":
		m.q.Skip += m.rows()
	case "home":
		m.q.Skip = 0
	}
}

func (m *model) show(by tally.By) {
	m.q.By, m.q.Skip = by, 0
}

// edit changes the filter.
func (m *model) edit(k tea.KeyPressMsg) {
	m.q.Skip = 0
	switch k.String() {
	case "enter":
		m.editing = false
	case "esc":
		m.editing, m.q.Filter = false, ""
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.q.Filter)
		m.q.Filter = m.q.Filter[:len(m.q.Filter)-n]
	case "ctrl+u":
		m.q.Filter = ""
	default:
		m.q.Filter += k.Text
	}
}
