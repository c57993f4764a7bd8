// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// gate is a writer that blocks until pass is closed.
type gate struct {
	pass chan struct{}
	text strings.Builder
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.pass
	return g.text.Write(b)
}

// TestLogQueue: a log that nobody reads does not block its writers, and once there is
// room it says how many lines were lost.
func TestLogQueue(t *testing.T) {
	g := &gate{pass: make(chan struct{})}
	q := newLogQueue(g, func(lost uint64) { fmt.Fprintf(&g.text, "lost %d\n", lost) })
	const more = 10
	// One line may already be in Write, which makes room for another.
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

// TestLogStuck: close does not wait forever for a log that nobody reads.
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
