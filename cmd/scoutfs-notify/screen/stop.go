// SPDX-License-Identifier: GPL-2.0-only

package screen

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	tea "charm.land/bubbletea/v2"
)

// stopTime is how long it takes to stop this process, or the library's renderer, at most. The
// kernel does not stop a process that no shell could have go on.
const stopTime = 200 * time.Millisecond

type (
	stopMsg     struct{} // a signal asks to stop
	continueMsg struct{} // it goes on, after a stop that could not be caught
	backMsg     struct{} // the terminal is the screen's again
)

// stops are the signals that stop the process and have it go on. A shell has its terminal
// as it was in between.
type stops struct{ signals chan os.Signal }

// newStops catches the signals and tells send. The function ends that.
func newStops(send func(tea.Msg)) (*stops, func()) {
	s := &stops{make(chan os.Signal, 4)}
	s.catch()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-s.signals:
				if sig == syscall.SIGTSTP {
					send(stopMsg{})
				} else {
					send(continueMsg{})
				}
			case <-done:
				return
			}
		}
	}()
	return s, func() {
		signal.Stop(s.signals)
		close(done)
	}
}

func (s *stops) catch() { signal.Notify(s.signals, syscall.SIGTSTP, syscall.SIGCONT) }

// stop returns what stops the process as the kernel would for ctrl-Z, with all of its job.
func (s *stops) stop() tea.Cmd { return released(s.run) }

// again returns what takes the terminal anew, which a shell may have changed. Not at once: the
// library's renderer, when it ends, would end the one that takes its place.
func (s *stops) again() tea.Cmd {
	return released(func() error {
		time.Sleep(stopTime)
		return nil
	})
}

func (s *stops) run() error {
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, syscall.SIGCONT)
	defer signal.Stop(goesOn)
	signal.Stop(s.signals)
	defer s.catch()
	// Go ignores a SIGTSTP that it has caught once.
	var standard, caught sigaction
	if err := swap(&standard, &caught); err != nil {
		return err
	}
	if err := syscall.Kill(0, syscall.SIGTSTP); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	select {
	case <-goesOn:
	case <-time.After(stopTime):
	}
	return swap(&caught, nil)
}

// sigaction is the kernel's struct of that name: handler, flags, restorer and mask. All zero
// is what it does by itself.
type sigaction [4]uint64

// swap sets what SIGTSTP does, and keeps what it did in old.
func swap(act, old *sigaction) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGTSTP),
		uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(act[3]), 0, 0)
	if errno != 0 {
		return fmt.Errorf("set what SIGTSTP does: %w", errno)
	}
	return nil
}

// released returns what calls f while the terminal is as it was before.
func released(f func() error) tea.Cmd {
	return tea.Exec(function(f), func(error) tea.Msg { return backMsg{} })
}

// function is a tea.ExecCommand that uses no terminal.
type function func() error

func (f function) Run() error          { return f() }
func (f function) SetStdin(io.Reader)  {}
func (f function) SetStdout(io.Writer) {}
func (f function) SetStderr(io.Writer) {}
