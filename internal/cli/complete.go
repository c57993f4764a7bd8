// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Completion answers a shell that asks what the last of a command line's words could be.
// The answer is a list of texts with a NUL after each. The first says what the shell can
// complete by itself where none of the rest fits: "files", "directories", "users", or ""
// for nothing. The rest are pairs: a word, and how to list it. They are not only those
// that begin like the last word: the shell knows how that is quoted.
type Completion struct {
	W      io.Writer
	Mounts func() []string // the mount points that can be named
}

// Words joins what bash splits at each "=", as in -by=user.
func (c *Completion) Words(args []string) []string {
	var words []string
	for i, a := range args {
		if n := len(words); n > 0 && (a == "=" || i > 0 && args[i-1] == "=") {
			words[n-1] += a
		} else {
			words = append(words, a)
		}
	}
	return words
}

// listed is an entry of a list in a usage: a word and what it is.
var listed = regexp.MustCompile(`(?m)^  ([a-z]+) +(\S.*)$`)

// Listed completes one of the words that a usage lists.
func (c *Completion) Listed(usage string) error {
	var pairs []string
	for _, m := range listed.FindAllStringSubmatch(usage, -1) {
		pairs = append(pairs, m[1], m[2])
	}
	return c.answer("", pairs)
}

// Arguments completes the last of a command's arguments: a flag, its value, or an operand.
// operands and about are of the command's usage.
func (c *Completion) Arguments(flags *flag.FlagSet, operands, about string, args []string) error {
	if len(args) == 0 {
		return nil
	}
	before, last := args[:len(args)-1], args[len(args)-1]
	var valueOf *flag.Flag // whose value the next argument is
	operand, only := 0, false
	for _, a := range before {
		switch {
		case valueOf != nil:
			valueOf = nil
		case a == "--":
			only = true
		case IsFlag(a) && !only:
			if f, assigned := lookup(flags, a); f != nil && !assigned && !isBool(f) {
				valueOf = f
			}
		default:
			operand++
		}
	}
	if valueOf != nil {
		return c.value(valueOf)
	}
	if IsFlag(last) && !only {
		if f, assigned := lookup(flags, last); f != nil && assigned {
			return c.value(f)
		}
		return c.flags(flags, last)
	}
	names := append(strings.Fields(operands), "")
	switch strings.Trim(names[min(operand, max(len(names)-2, 0))], "[].") {
	case "MOUNT":
		// A folder below one is a mount, too, and often a file with a recording.
		var pairs []string
		for _, m := range c.Mounts() {
			pairs = append(pairs, m, "mount point")
		}
		return c.answer("files", pairs)
	case "KIND":
		return c.Listed(about)
	case "":
		return c.answer("", nil)
	default:
		return c.answer("files", nil)
	}
}

// lookup returns the flag that an argument names, nil if there is none, and whether its
// value follows.
func lookup(flags *flag.FlagSet, arg string) (f *flag.Flag, assigned bool) {
	name, _, assigned := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
	return flags.Lookup(name), assigned
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// flags completes the name of a flag, with one dash or two.
func (c *Completion) flags(flags *flag.FlagSet, last string) error {
	dash := "-"
	if strings.HasPrefix(last, "--") {
		dash = "--"
	}
	var pairs []string
	flags.VisitAll(func(f *flag.Flag) {
		_, usage := flag.UnquoteUsage(f)
		pairs = append(pairs, dash+f.Name, usage)
	})
	return c.answer("", pairs)
}

// value completes the value of a flag.
func (c *Completion) value(f *flag.Flag) error {
	if choice, ok := f.Value.(*choice); ok {
		var pairs []string
		for _, w := range choice.words {
			pairs = append(pairs, w, "")
		}
		return c.answer("", pairs)
	}
	switch what, _ := flag.UnquoteUsage(f); what {
	case "file":
		return c.answer("files", nil)
	case "directory", "folder":
		return c.answer("directories", nil)
	case "users":
		return c.answer("users", nil)
	}
	return c.answer("", nil)
}

// answer writes an answer. Each second text of pairs tells what the one before it is.
func (c *Completion) answer(also string, pairs []string) error {
	width := 0
	for pair := range slices.Chunk(pairs, 2) {
		width = max(width, len(pair[0]))
	}
	b := []byte(also + "\x00")
	for pair := range slices.Chunk(pairs, 2) {
		list := Printable(pair[0])
		if pair[1] != "" {
			list = fmt.Sprintf("%-*s  %s", width, list, pair[1])
		}
		b = fmt.Appendf(b, "%s\x00%s\x00", pair[0], list)
	}
	_, err := c.W.Write(b)
	return err
}
