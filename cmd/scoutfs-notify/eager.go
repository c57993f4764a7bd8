// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"io"
	"sync"
	"time"
)

// eagerTime is how long output may wait for more, so that a busy stream is not written
// line by line.
const eagerTime = 5 * time.Millisecond

// eagerWriter collects what is written to it and passes it on soon.
type eagerWriter struct {
	mu    sync.Mutex
	w     *bufio.Writer
	timer *time.Timer
	armed bool
}

func newEagerWriter(w io.Writer) *eagerWriter {
	e := &eagerWriter{w: bufio.NewWriterSize(w, 64<<10)}
	e.timer = time.AfterFunc(time.Hour, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.armed = false
		e.w.Flush() // the next Write or close has the error, too
	})
	e.timer.Stop()
	return e
}

func (e *eagerWriter) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.armed {
		e.armed = true
		e.timer.Reset(eagerTime)
	}
	return e.w.Write(b)
}

// close passes on the rest.
func (e *eagerWriter) close() error {
	e.timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.w.Flush()
}
