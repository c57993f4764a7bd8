// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// count returns a number with a word, in the plural if it is not 1.
func count(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// conflict shows the conflict that waits in the clone, as lines: why the series changes
// what it changes, which is patch i, and for each file why upstream did, and the places.
func (b *rebase) conflict(ctx context.Context, i int) string {
	var all strings.Builder
	ours, err := b.r.c.git(ctx, "log", "-1", "--format=%B", b.r.commits[i+1])
	if err != nil {
		ours = err.Error()
	}
	fmt.Fprintf(&all, "Why the series changes it (%s):\n\n%s\n", b.r.Patches[i].Name, indent(withoutTrailers(ours)))
	for _, file := range b.c.conflicting(ctx) {
		theirs, err := b.upstreamsReasons(ctx, file)
		if err != nil {
			theirs = err.Error()
		}
		fmt.Fprintf(&all, "\nWhy upstream changed %s there:\n\n%s\n", file, indent(theirs))
		text, err := os.ReadFile(filepath.Join(b.c.dir, file))
		if err != nil {
			text = nil // one side has deleted it
		}
		places := conflictsIn(string(text))
		if len(places) == 0 {
			fmt.Fprintf(&all, "\n%s has no marks of a conflict: git status in the clone says what it is.\n", file)
		}
		for _, p := range places {
			fmt.Fprintf(&all, "\n%s:%d has upstream's lines, those that both changed, and the series':\n\n%s\n", file, p.line, indent(p.text))
		}
	}
	return all.String()
}

// hunkOfUpstream is the beginning of a hunk of "git diff" during a conflict, with the lines
// that it has at HEAD, in the first of three ranges.
var hunkOfUpstream = regexp.MustCompile(`^@@@ -(\d+)(?:,(\d+))? `)

// upstreamsReasons returns what upstream's commits say that changed a file where it has
// conflicts, or else anywhere. The newest is the first.
func (b *rebase) upstreamsReasons(ctx context.Context, file string) (string, error) {
	diff, err := b.c.git(ctx, "diff", "--", file)
	if err != nil {
		return "", err
	}
	args := []string{"log", "--no-merges", "--no-patch", "--format=%h %s%n%n%b"}
	since := b.r.commits[0] + ".." + b.base
	var lines []string
	for hunk := range strings.SplitSeq(strings.ReplaceAll(diff, "\n@@@ ", "\x00@@@ "), "\x00") {
		m := hunkOfUpstream.FindStringSubmatch(hunk)
		if m != nil && m[2] != "0" && strings.Contains(hunk, "\n++<<<<<<< ") {
			lines = append(lines, fmt.Sprintf("-L%s,+%s:%s", m[1], cmp.Or(m[2], "1"), file))
		}
	}
	out := ""
	if len(lines) > 0 {
		// The series' other patches do not touch this file: its lines have upstream's numbers.
		if out, err = b.c.git(ctx, append(append(args, lines...), since)...); err != nil {
			return "", err
		}
	}
	if out == "" {
		out, err = b.c.git(ctx, append(args, since, "--", file)...)
	}
	return withoutTrailers(out), err
}

// place is a conflict in a file, with some lines around it.
type place struct {
	line int // number of its first mark
	text string
}

// conflictsIn returns the places that git has marked.
func conflictsIn(text string) (all []place) {
	const around = 3
	lines := strings.Split(text, "\n")
	start := -1
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "<<<<<<< "):
			start = i
		case strings.HasPrefix(l, ">>>>>>> ") && start >= 0:
			all = append(all, place{start + 1, strings.Join(lines[max(0, start-around):min(len(lines), i+1+around)], "\n")})
			start = -1
		}
	}
	return all
}

var (
	trailer    = regexp.MustCompile(`(?m)^(Signed-off-by|Reviewed-by|Acked-by|Tested-by|Cc): .*\n?`)
	emptyLines = regexp.MustCompile(`\n{3,}`)
)

// withoutTrailers leaves out of a commit's message who signed it.
func withoutTrailers(message string) string {
	return strings.TrimSpace(emptyLines.ReplaceAllString(trailer.ReplaceAllString(message, ""), "\n\n"))
}

// indent puts four spaces before each line that is not empty.
func indent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "    " + l
		}
	}
	return strings.Join(lines, "\n")
}
