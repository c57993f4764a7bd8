// SPDX-License-Identifier: GPL-2.0-only

// Package screen is top's live screen: it shows a tally on a terminal, and takes keys.
package screen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
)

// firstTime is how often the screen is renewed in the first interval, so that something
// is to be seen before it is over.
const firstTime = 200 * time.Millisecond

// Options say what to show.
type Options struct {
	Title    string      // what is watched, as it is safe to print
	Query    tally.Query // at the start; Rows and Skip are the screen's own
	Interval time.Duration
	ASCII    bool // the terminal shows no UTF-8

	// Recorded is when the last event happened if that was before and no more come: then
	// there are no further intervals.
	Recorded time.Time
}

// Run shows a tally on a terminal until the user has had enough or the context is done,
// which is no error. It ends the tally's intervals. The terminal is as it was afterwards.
func Run(ctx context.Context, terminal *os.File, t *tally.Tally, o Options) error {
	m := newModel(t, o)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(os.Stdin), tea.WithOutput(terminal), tea.WithoutSignalHandler())
	var end func()
	m.stops, end = newStops(p.Send)
	defer end()
	_, err := p.Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("show the live screen: %w", err)
	}
	return nil
}

// model is the state of the screen.
type model struct {
	t     *tally.Tally
	o     Options
	q     tally.Query
	now   func() time.Time
	w, h  int
	table tally.Table

	paused  bool
	help    bool
	editing bool // the filter

	stops *stops // nil in tests
}

func newModel(t *tally.Tally, o Options) *model {
	m := &model{t: t, o: o, q: o.Query, now: time.Now}
	if !o.Recorded.IsZero() {
		m.now = func() time.Time { return o.Recorded }
	}
	return m
}

type (
	intervalMsg struct{} // an interval is over
	firstMsg    struct{} // the first one goes on
)

func (m *model) Init() tea.Cmd {
	if !m.o.Recorded.IsZero() {
		return nil
	}
	return tea.Batch(m.wait(), m.waitFirst())
}

func (m *model) wait() tea.Cmd {
	return tea.Tick(m.o.Interval, func(time.Time) tea.Msg { return intervalMsg{} })
}

func (m *model) waitFirst() tea.Cmd {
	return tea.Tick(firstTime, func(time.Time) tea.Msg { return firstMsg{} })
}

// look renews what is shown.
func (m *model) look() {
	// All of the rows that fit, and as many before them that a scroll can go back to.
	m.q.Rows = m.rows()
	m.q.Skip = max(min(m.q.Skip, m.table.Found-1), 0)
	m.table = m.t.Look(m.q, m.now())
	if m.q.Skip > 0 && m.q.Skip >= m.table.Found {
		m.q.Skip = max(m.table.Found-m.q.Rows, 0)
		m.table = m.t.Look(m.q, m.now())
	}
}

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
		m.look()
	case intervalMsg:
		// While it is paused the interval goes on, and so nothing goes uncounted.
		if !m.paused {
			m.t.Next(m.now())
			m.look()
		}
		return m, m.wait()
	case firstMsg:
		if m.table.First || m.table.Start.IsZero() {
			if !m.paused {
				m.look()
			}
			return m, m.waitFirst()
		}
	case stopMsg:
		return m, m.stops.stop()
	case continueMsg:
		return m, m.stops.again()
	case backMsg:
		m.look()
		return m, tea.ClearScreen
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		if m.editing {
			m.q.Filter += msg.Content
			m.look()
		}
	}
	return m, nil
}

func (m *model) View() tea.View {
	v := tea.NewView(m.content())
	v.AltScreen = true
	return v
}
