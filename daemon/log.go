// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// logBacklog is how many lines can wait for a slow log.
	logBacklog = 1024

	// logPatience is how long the daemon's end waits for the last lines to be
	// written.
	logPatience = 2 * time.Second

	// logLimit is the least time between two lines of a logLimiter.
	logLimit = 10 * time.Second
)

// openLog returns a logger to a file that never waits for it, and a function that
// writes what is left. Nothing may be logged after that.
func openLog(file *os.File, verbose bool) (log *slog.Logger, end func()) {
	direct := newLogger(file, file, verbose)
	queue := newLogQueue(file, func(lost uint64) {
		direct.Warn("log lines were lost: nobody took them in time", "lines", lost)
	})
	return newLogger(file, queue, verbose), queue.close
}

// newLogger logs to w, which passes it on to the file. If that is the journal,
// the journal adds the time, and the logger tells it the priority of each line as
// sd-daemon(3) describes.
func newLogger(file *os.File, w io.Writer, verbose bool) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		opts.Level = slog.LevelDebug
	}
	if isJournal(file) {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			switch {
			case len(groups) > 0:
			case a.Key == slog.TimeKey:
				return slog.Attr{}
			case a.Key == slog.LevelKey: // the first one, without the time
				if level, ok := a.Value.Any().(slog.Level); ok {
					a.Key = priority(level) + a.Key
				}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// priority is how the start of a line tells the journal its level.
func priority(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "<3>"
	case level >= slog.LevelWarn:
		return "<4>"
	case level >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}

// isJournal compares a file with JOURNAL_STREAM, device:inode.
func isJournal(f *os.File) bool {
	stream := os.Getenv("JOURNAL_STREAM")
	if stream == "" {
		return false
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// logQueue writes log lines from a goroutine of its own. A log that nobody reads,
// such as a stopped terminal or a full pipe, must hold up neither the relay, which
// logs, nor its end. Lines that find the queue full are lost and counted.
type logQueue struct {
	out     io.Writer
	lines   chan []byte
	lost    atomic.Uint64
	logLost func(lost uint64) // writes to out that lines were lost
	done    chan struct{}
}

func newLogQueue(out io.Writer, logLost func(lost uint64)) *logQueue {
	q := &logQueue{out: out, lines: make(chan []byte, logBacklog), logLost: logLost, done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues a line. It never waits and never fails.
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
		q.out.Write(line) // there is nobody to report an error to
		if lost := q.lost.Swap(0); lost > 0 {
			q.logLost(lost)
		}
	}
}

// close writes what is queued, if that can be done in time. Nothing may be written
// after it.
func (q *logQueue) close() {
	close(q.lines)
	select {
	case <-q.done:
	case <-time.After(logPatience):
	}
}

// logLimiter is for what could be logged for every connection: it allows a line
// now and then.
type logLimiter struct{ next time.Time }

func (l *logLimiter) allow() bool {
	now := time.Now()
	if now.Before(l.next) {
		return false
	}
	l.next = now.Add(logLimit)
	return true
}
