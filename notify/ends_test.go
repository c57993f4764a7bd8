// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestEnds: whatever keeps a client from going on can be told from all else, by the error, or
// if that is io.EOF by the reason.
func TestEnds(t *testing.T) {
	all := []error{
		io.EOF, io.ErrUnexpectedEOF, ErrNotRunning, ErrRefused, ErrOtherMount, ErrTarget, ErrProtocol, ErrNotScoutFS, os.ErrNotExist, ErrClosed,
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	says := func(evs ...Event) func(*testing.T) string {
		return func(t *testing.T) string {
			ln := listen(t)
			go func() {
				conn, err := ln.AcceptUnix()
				if err != nil {
					return
				}
				defer conn.Close()
				var b [RequestSize2 + 1]byte
				conn.Read(b[:])
				conn.Write(events(evs...))
			}()
			return ln.Addr().String()
		}
	}
	path := func(p string) func(*testing.T) string { return func(*testing.T) string { return p } }
	for _, tt := range []struct {
		name   string
		target func(t *testing.T) string
		want   error
		why    Reason // with io.EOF and ErrRefused
	}{
		{"unmounted", says(hello(), &End{Reason: EndUnmounted}), io.EOF, EndUnmounted},
		{"stopped", says(hello(), &End{Reason: EndStopping}), io.EOF, EndStopping},
		{"restarted", says(hello(), &End{Reason: EndRestarting}), io.EOF, EndRestarting},
		{"failed", says(hello(), &End{Reason: EndFailed}), io.EOF, EndFailed},
		{"killed", says(hello()), io.ErrUnexpectedEOF, 0},
		{"no stream", says(hello(), hello()), ErrProtocol, 0},
		{"refused", says(&End{Reason: EndMaxClients}), ErrRefused, EndMaxClients},
		{"refused later", says(hello(), &End{Reason: EndProtocol}), ErrRefused, EndProtocol},
		{"mistyped", path(dir + "/none"), os.ErrNotExist, 0},
		{"a file", path(file), ErrTarget, 0},
		{"nothing mounted", path(dir), ErrNotScoutFS, 0},
		{"no daemon", path(filepath.Join(dir, SocketName)), ErrNotRunning, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial(tt.target(t))
			var why Reason
			if err == nil {
				defer c.Close()
				for err == nil {
					_, err = c.Next()
				}
				if c.End() != nil {
					why = c.End().Reason
				}
			}
			if r, ok := Refusal(err); ok {
				why = r
			}
			for _, e := range all {
				if errors.Is(err, e) != (e == tt.want) {
					t.Errorf("%v: is it %q: %v", err, e, errors.Is(err, e))
				}
			}
			if why != tt.why {
				t.Errorf("%v: the reason is %v, not %v", err, why, tt.why)
			}
		})
	}
}
