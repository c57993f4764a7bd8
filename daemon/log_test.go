// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// gate is a writer that lets writes pass when it is told to.
type gate struct {
	pass chan struct{}
	text strings.Builder
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.pass
	return g.text.Write(b)
}

// TestLogQueue: a log that nobody reads holds up nobody, and lines that were lost
// are told of once there is room.
func TestLogQueue(t *testing.T) {
	g := &gate{pass: make(chan struct{})}
	q := newLogQueue(g, func(lost uint64) { fmt.Fprintf(&g.text, "lost %d\n", lost) })
	const more = 10
	// One line is in the writer's hands, or still in the queue.
	for n := range logBacklog + 1 + more {
		fmt.Fprintf(q, "line %d\n", n)
	}
	lost := q.lost.Load()
	if lost != more && lost != more+1 {
		t.Errorf("%d lines were lost, not %d or one more", lost, more)
	}
	close(g.pass)
	q.close()
	text := g.text.String()
	if !strings.HasPrefix(text, fmt.Sprintf("line 0\nlost %d\nline 1\n", lost)) {
		t.Errorf("the log begins with %.60q", text)
	}
	if n := strings.Count(text, "line "); uint64(n)+lost != logBacklog+1+more {
		t.Errorf("%d lines were written and %d lost of %d", n, lost, logBacklog+1+more)
	}
}

// TestLogStuck: the end does not wait for a log for ever.
func TestLogStuck(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	q := newLogQueue(w, func(uint64) {})
	fmt.Fprintln(q, "nobody reads this")
	q.close()
	select {
	case <-q.done:
		t.Error("the line was written")
	default:
	}
}
