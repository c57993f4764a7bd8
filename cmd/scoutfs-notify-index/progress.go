// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows on a terminal how far something has got. A nil one shows nothing.
type progress struct {
	out  *os.File
	what string
	n    int
	next time.Time
}

// startProgress returns nil if out is not a terminal.
func startProgress(out *os.File) *progress {
	if _, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err != nil {
		return nil
	}
	return &progress{out: out, next: time.Now().Add(time.Second)}
}

// count counts one more of something.
func (p *progress) count(what string) {
	if p == nil {
		return
	}
	if p.what != what {
		p.what, p.n = what, 0
	}
	if p.n++; p.n%4096 == 0 && time.Now().After(p.next) {
		p.next = time.Now().Add(time.Second)
		fmt.Fprintf(p.out, "\r\033[K%d %s", p.n, what)
	}
}

// end clears what was shown.
func (p *progress) end() {
	if p != nil {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
