// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Patch is one file that git format-patch wrote.
type Patch struct {
	Name  string     // of the file
	Head  []string   // the mail's lines before the first diff, diffstat included
	Files []FileDiff // in the file's order
}

// A FileDiff is what a patch does to one file.
type FileDiff struct {
	Path  string   // of the file after the patch, or before it if the patch deletes it
	Added bool     // the patch creates the file
	Head  []string // from "diff --git" to the line before the first hunk
	Hunks []Hunk   // at least one
}

// A Hunk is one group of changed lines with its context.
type Hunk struct {
	OldStart, OldLines int
	NewStart, NewLines int
	Section            string   // what follows the second @@
	Lines              []string // with their leading ' ', '+', '-' or '\'
}

var hunkHead = regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$`)

// ParsePatch parses the text of a patch. Nothing is lost: [Patch.Bytes] gives the
// text back. Patches that change anything but text (modes, binary files) are
// refused. The name is for errors.
func ParsePatch(name string, text []byte) (*Patch, error) {
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, fmt.Errorf("parse %s: the last line has no end", name)
	}
	lines := strings.Split(string(text), "\n")
	lines = lines[:len(lines)-1]
	p := &Patch{Name: name}
	i := 0
	for ; i < len(lines) && !strings.HasPrefix(lines[i], "diff --git "); i++ {
		p.Head = append(p.Head, lines[i])
	}
	if len(p.Head) == 0 {
		return nil, fmt.Errorf("parse %s: no mail before the first diff", name)
	}
	for i < len(lines) {
		f, n, err := parseFile(lines[i:])
		if err != nil {
			return nil, fmt.Errorf("parse %s: line %d: %w", name, i+n+1, err)
		}
		p.Files = append(p.Files, f)
		i += n
	}
	if len(p.Files) == 0 {
		return nil, fmt.Errorf("parse %s: it has no diff", name)
	}
	return p, nil
}

// parseFile parses the diff of a file that lines start with and returns how many
// lines it took, or at which the error is.
func parseFile(lines []string) (FileDiff, int, error) {
	f := FileDiff{Head: lines[:1]}
	i := 1
	for ; i < len(lines) && !strings.HasPrefix(lines[i], "@@ ") && !strings.HasPrefix(lines[i], "diff --git "); i++ {
		for _, prefix := range []string{"--- a/", "+++ b/"} {
			if path, ok := strings.CutPrefix(lines[i], prefix); ok {
				f.Path = path
			}
		}
		f.Added = f.Added || strings.HasPrefix(lines[i], "new file mode ")
	}
	f.Head = lines[:i]
	for i < len(lines) && strings.HasPrefix(lines[i], "@@ ") {
		h, n, err := parseHunk(lines[i:])
		if err != nil {
			return f, i, err
		}
		f.Hunks = append(f.Hunks, h)
		i += n
	}
	switch {
	case f.Path == "" || len(f.Hunks) == 0:
		return f, 0, fmt.Errorf("%q changes no text", lines[0])
	case i < len(lines) && !strings.HasPrefix(lines[i], "diff --git "):
		return f, i, fmt.Errorf("%q follows a hunk: export with --no-signature", lines[i])
	}
	return f, i, nil
}

// parseHunk parses the hunk that lines start with and returns how many lines it
// took.
func parseHunk(lines []string) (Hunk, int, error) {
	m := hunkHead.FindStringSubmatch(lines[0])
	if m == nil {
		return Hunk{}, 0, fmt.Errorf("%q is not the head of a hunk", lines[0])
	}
	var n [4]int
	for i := range n {
		n[i] = 1
		if m[i+1] != "" {
			var err error
			if n[i], err = strconv.Atoi(m[i+1]); err != nil {
				return Hunk{}, 0, err
			}
		}
	}
	h := Hunk{OldStart: n[0], OldLines: n[1], NewStart: n[2], NewLines: n[3], Section: m[5]}
	if h.head() != lines[0] {
		return Hunk{}, 0, fmt.Errorf("git does not write %q", lines[0])
	}
	old, new := h.OldLines, h.NewLines
	i := 1
	for ; i < len(lines) && (old > 0 || new > 0 || strings.HasPrefix(lines[i], `\`)); i++ {
		switch lines[i][:min(1, len(lines[i]))] {
		case " ":
			old, new = old-1, new-1
		case "-":
			old--
		case "+":
			new--
		case `\`: // no newline at the end of the file
		default:
			return Hunk{}, 0, fmt.Errorf("%q is not a line of a hunk", lines[i])
		}
	}
	if old != 0 || new != 0 {
		return Hunk{}, 0, fmt.Errorf("%q gives another number of lines than the hunk has", lines[0])
	}
	h.Lines = lines[1:i]
	return h, i, nil
}

func (h *Hunk) head() string {
	span := func(start, n int) string {
		if n == 1 {
			return strconv.Itoa(start)
		}
		return fmt.Sprintf("%d,%d", start, n)
	}
	return fmt.Sprintf("@@ -%s +%s @@%s", span(h.OldStart, h.OldLines), span(h.NewStart, h.NewLines), h.Section)
}

// Bytes returns the text of the patch as git am takes it.
func (p *Patch) Bytes() []byte {
	lines := slices.Clone(p.Head)
	for _, f := range p.Files {
		lines = append(lines, f.Head...)
		for _, h := range f.Hunks {
			lines = append(append(lines, h.head()), h.Lines...)
		}
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// Subject returns the subject line, unfolded, without its prefix in brackets.
func (p *Patch) Subject() string {
	subject, found := "", false
	for _, l := range p.Head {
		if found && !strings.HasPrefix(l, " ") || l == "" {
			break
		}
		if found {
			subject += l
		} else {
			subject, found = strings.CutPrefix(l, "Subject: ")
		}
	}
	if !found {
		return ""
	}
	if prefix, rest, ok := strings.Cut(subject, "] "); ok && strings.HasPrefix(prefix, "[") {
		return rest
	}
	return subject
}

// Message returns the lines of the mail up to its diffstat: author, date, subject
// and body.
func (p *Patch) Message() []string {
	if i := slices.Index(p.Head, "---"); i >= 0 {
		return p.Head[:i]
	}
	return p.Head
}

// newText returns the lines that a diff adds, which is the text of a file that it
// creates.
func (f *FileDiff) newText() string {
	var b strings.Builder
	for _, h := range f.Hunks {
		for _, l := range h.Lines {
			if text, ok := strings.CutPrefix(l, "+"); ok {
				b.WriteString(text + "\n")
			}
		}
	}
	return b.String()
}
