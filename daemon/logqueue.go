// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"
)

const (
	// logBacklog is how many lines can wait for a log that is slow.
	logBacklog = 1024

	// logPatience is how long the daemon's end waits for the last lines to be
	// written.
	logPatience = 2 * time.Second
)

// logQueue writes log lines from a goroutine of its own. The relay logs, and a
// log that nobody reads, such as a stopped terminal or a full pipe, must hold up
// neither it nor its end. Lines that find the queue full are lost and counted.
type logQueue struct {
	out   io.Writer
	lines chan []byte
	lost  atomic.Uint64
	told  func(lost uint64) // writes to out that lines were lost
	done  chan struct{}
}

func newLogQueue(out io.Writer, told func(lost uint64)) *logQueue {
	q := &logQueue{out: out, lines: make(chan []byte, logBacklog), told: told, done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes a line. It never waits and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) run() {
	defer close(q.done)
	for line := range q.lines {
		q.out.Write(line) // nobody is left to be told of an error
		if lost := q.lost.Swap(0); lost > 0 {
			q.told(lost)
		}
	}
}

// close writes what waits, if that can be done in time. Nothing may be written
// any more.
func (q *logQueue) close() {
	close(q.lines)
	select {
	case <-q.done:
	case <-time.After(logPatience):
	}
}
