// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"syscall"
)

// Exit statuses of programs.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 64 // bad flags or arguments

	ExitNoInput      = 66 // what is named does not exist, or is nothing that can be taken
	ExitUnavailable  = 69 // nobody serves what is named
	ExitNoPermission = 77
)

// Failure is an exit status of its own for some errors.
type Failure struct {
	Status int
	Errors []error
}

// UsageError is about bad flags and arguments.
type UsageError struct {
	error
	command string // that they were given to, "" for the program itself
}

// Usagef makes a [UsageError], with a message that starts with the command's name.
func Usagef(command, format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	if command != "" {
		err = fmt.Errorf("%s: %w", command, err)
	}
	return UsageError{err, command}
}

// Program is one whose first argument is a command. It is for one goroutine.
type Program struct {
	Name    string
	Usage   string // with a line for each command
	Version string // that the linker was given

	Failures []Failure // of an error that is several the first counts

	Stdout io.Writer
	Mounts func() []string // the mount points that a shell can complete

	// Command returns what a command runs, nil if there is no such command.
	Command func(name string) func(args []string) error

	completion *Completion
}

// Commands is a Program's Command for a table of those that run in one environment.
func Commands[E any, F ~func(context.Context, E, []string) error](ctx context.Context, env E, table map[string]F) func(string) func([]string) error {
	return func(name string) func([]string) error {
		cmd, ok := table[name]
		if !ok {
			return nil
		}
		return func(args []string) error { return cmd(ctx, env, args) }
	}
}

// Run runs the command that the arguments name.
func (p *Program) Run(args []string) error {
	if len(args) == 0 {
		return Usagef("", "a command is missing")
	}
	switch args[0] {
	case "help":
		if len(args) > 1 && args[1] != "help" && args[1] != "version" && !IsFlag(args[1]) {
			return p.Run([]string{args[1], "-help"})
		}
		fallthrough
	case "-h", "-help", "--help":
		_, err := io.WriteString(p.Stdout, p.Usage)
		return err
	case "-version", "--version", "version":
		_, err := fmt.Fprintln(p.Stdout, p.Name, Version(p.Version))
		return err
	case "complete":
		return p.complete(args[1:])
	}
	cmd := p.Command(args[0])
	if cmd == nil {
		return Usagef("", "there is no command %q", args[0])
	}
	return cmd(args[1:])
}

// complete tells a shell what the last of some arguments could be.
func (p *Program) complete(args []string) error {
	p.completion = &Completion{W: p.Stdout, Mounts: p.Mounts}
	args = p.completion.Words(args)
	if len(args) < 2 || args[0] == "help" {
		return p.completion.Listed(p.Usage)
	}
	if cmd := p.Command(args[0]); cmd != nil {
		return cmd(args[1:])
	}
	return nil
}

// Completes tells whether a shell asks for completions, instead of running the command.
func (p *Program) Completes() bool { return p.completion != nil }

// Parse parses a command's flags, which may stand anywhere before a "--", and returns its
// other arguments. operands and about are for its usage. The error is [flag.ErrHelp] if
// that, or a completion, was asked for and printed, or a [UsageError].
func (p *Program) Parse(flags *flag.FlagSet, operands, about string, args []string) (rest []string, err error) {
	if p.completion != nil {
		return nil, cmp.Or(p.completion.Arguments(flags, operands, about, args), flag.ErrHelp)
	}
	flags.SetOutput(io.Discard)
	for {
		err = flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(p.Stdout)
			fmt.Fprintf(p.Stdout, "Usage: %s %s [flags] %s\n\n%s\nFlags:\n", p.Name, flags.Name(), operands, about)
			flags.PrintDefaults()
			return nil, err
		}
		if err != nil {
			return nil, Usagef(flags.Name(), "%w", err)
		}
		parsed := len(args) - flags.NArg()
		if flags.NArg() == 0 || parsed > 0 && args[parsed-1] == "--" {
			return append(rest, flags.Args()...), nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// Status says on stderr what a command failed with, and returns the exit status. A command
// that was interrupted has not failed, nor one whose output nobody wants any more, as in
// tail | head.
func (p *Program) Status(stderr io.Writer, err error) int {
	var bad UsageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), errors.Is(err, context.Canceled), errors.Is(err, syscall.EPIPE):
		return ExitOK
	case errors.As(err, &bad):
		try := p.Name
		if bad.command != "" {
			try += " " + bad.command
		}
		fmt.Fprintf(stderr, "%s: %s\nTry '%s -help'.\n", p.Name, Printable(err.Error()), try)
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %s\n", p.Name, Printable(err.Error()))
	for _, f := range p.Failures {
		if slices.ContainsFunc(f.Errors, func(e error) bool { return errors.Is(err, e) }) {
			return f.Status
		}
	}
	return ExitFailure
}
