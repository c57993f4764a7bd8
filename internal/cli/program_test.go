// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What a command line prints, and with which status it ends.
func TestProgram(t *testing.T) {
	for _, tt := range []struct {
		args   string
		rest   []string // of the command, nil if it does not run
		err    error    // of the command
		status int
		stdout string
		stderr string
	}{
		{args: "", status: ExitUsage, stderr: "try: a command is missing\nTry 'try -help'.\n"},
		{args: "nothing", status: ExitUsage, stderr: "try: there is no command \"nothing\"\nTry 'try -help'.\n"},
		{args: "-help", stdout: "Usage: try\n"},
		{args: "help help", stdout: "Usage: try\n"},
		{args: "help nothing", status: ExitUsage, stderr: "try: there is no command \"nothing\"\nTry 'try -help'.\n"},
		{args: "version", stdout: "try 1.2\n"},
		{args: "do a", rest: []string{"a"}, stdout: "0\n"},
		{args: "do a -n 3 b -n=4", rest: []string{"a", "b"}, stdout: "4\n"},
		{args: "do -n 3 -- -n 4", rest: []string{"-n", "4"}, stdout: "3\n"},
		{args: "do a -- -n", rest: []string{"a", "-n"}, stdout: "0\n"},
		{args: "do -", rest: []string{"-"}, stdout: "0\n"},
		{args: "do -m", status: ExitUsage, stderr: "try: do: flag provided but not defined: -m\nTry 'try do -help'.\n"},
		{args: "do a -help", stdout: "Usage: try do [flags] [WHAT]\n\nDoes.\n\nFlags:\n  -n count\n    \tcount\n"},
		{args: "help do", stdout: "Usage: try do [flags] [WHAT]\n\nDoes.\n\nFlags:\n  -n count\n    \tcount\n"},
		{args: "complete do -", stdout: "\x00-n\x00-n  count\x00"},
		{args: "do", rest: []string{}, err: fmt.Errorf("write: %w", syscall.EPIPE), stdout: "0\n"},
		{args: "do", rest: []string{}, err: context.Canceled, stdout: "0\n"},
		{args: "do", rest: []string{}, err: errors.New("a\x1bb"), stdout: "0\n", status: ExitFailure, stderr: "try: a\\x1bb\n"},
		{args: "do", rest: []string{}, err: fmt.Errorf("it: %w", io.EOF), stdout: "0\n", status: 69, stderr: "try: it: EOF\n"},
		{args: "do", rest: []string{}, err: Usagef("do", "no"), stdout: "0\n", status: ExitUsage, stderr: "try: do: no\nTry 'try do -help'.\n"},
	} {
		var stdout, stderr strings.Builder
		var got []string
		p := Program{Name: "try", Usage: "Usage: try\n", Version: "1.2", Stdout: &stdout, Failures: []Failure{{ExitNoInput, []error{io.ErrNoProgress}}, {ExitUnavailable, []error{io.ErrShortWrite, io.EOF}}}}
		p.Command = func(name string) func([]string) error {
			if name != "do" {
				return nil
			}
			return func(args []string) error {
				flags := flag.NewFlagSet("do", flag.ContinueOnError)
				n := flags.Int("n", 0, "`count`")
				rest, err := p.Parse(flags, "[WHAT]", "Does.\n", args)
				if err != nil {
					return err
				}
				got = append([]string{}, rest...)
				fmt.Fprintln(&stdout, *n)
				return tt.err
			}
		}
		status := p.Status(&stderr, p.Run(strings.Fields(tt.args)))
		if status != tt.status || stdout.String() != tt.stdout || stderr.String() != tt.stderr || !slices.Equal(got, tt.rest) {
			t.Errorf("%q with %v: status %d, arguments %q, printed\n%q\n%q, want %d, %q\n%q\n%q",
				tt.args, tt.err, status, got, stdout.String(), stderr.String(), tt.status, tt.rest, tt.stdout, tt.stderr)
		}
	}
}
