// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A patch is one file that git format-patch wrote.
type patch struct {
	name  string     // base name of its file
	head  []string   // the mail's lines before the first diff, diffstat included
	files []fileDiff // in the order of the file
}

// A fileDiff is what a patch does to one file.
type fileDiff struct {
	path  string   // of the file after the patch, before it for a deletion
	added bool     // the patch makes the file
	head  []string // from "diff --git" to the line before the first hunk
	hunks []hunk
}

// A hunk is one group of changed lines with its context.
type hunk struct {
	oldStart, oldLines int
	newStart, newLines int
	section            string   // what follows the second @@
	lines              []string // with their leading ' ', '+', '-' or '\'
}

var hunkHead = regexp.MustCompile(`^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)$`)

// parsePatch parses the text of a patch. Nothing of it is lost: bytes gives the
// text back. The name is only for reports.
func parsePatch(name string, text []byte) (*patch, error) {
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, fmt.Errorf("parse %s: the last line does not end", name)
	}
	lines := strings.Split(string(text), "\n")
	lines = lines[:len(lines)-1]
	p := &patch{name: name}
	i := 0
	for ; i < len(lines) && !strings.HasPrefix(lines[i], "diff --git "); i++ {
		p.head = append(p.head, lines[i])
	}
	if len(p.head) == 0 {
		return nil, fmt.Errorf("parse %s: no mail before the first diff", name)
	}
	for i < len(lines) {
		f := fileDiff{head: []string{lines[i]}}
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "@@ ") && !strings.HasPrefix(lines[i], "diff --git "); i++ {
			f.head = append(f.head, lines[i])
			if path, ok := strings.CutPrefix(lines[i], "+++ b/"); ok {
				f.path = path
			} else if path, ok := strings.CutPrefix(lines[i], "--- a/"); ok {
				f.path = path
			} else if strings.HasPrefix(lines[i], "new file mode ") {
				f.added = true
			}
		}
		for i < len(lines) && strings.HasPrefix(lines[i], "@@ ") {
			h, n, err := parseHunk(lines[i:])
			if err != nil {
				return nil, fmt.Errorf("parse %s: line %d: %w", name, i+1, err)
			}
			f.hunks = append(f.hunks, h)
			i += n
		}
		if f.path == "" || len(f.hunks) == 0 {
			return nil, fmt.Errorf("parse %s: line %d: %q changes no text; the series hold only text changes", name, i, f.head[0])
		}
		p.files = append(p.files, f)
		if i < len(lines) && !strings.HasPrefix(lines[i], "diff --git ") {
			return nil, fmt.Errorf("parse %s: line %d: %q follows a hunk (export with --no-signature)", name, i+1, lines[i])
		}
	}
	if len(p.files) == 0 {
		return nil, fmt.Errorf("parse %s: no diff in it", name)
	}
	return p, nil
}

// parseHunk parses the hunk that lines start with, and tells how many it took.
func parseHunk(lines []string) (hunk, int, error) {
	m := hunkHead.FindStringSubmatch(lines[0])
	if m == nil {
		return hunk{}, 0, fmt.Errorf("%q is no head of a hunk", lines[0])
	}
	var n [5]int
	for i := 1; i <= 4; i++ {
		n[i] = 1
		if m[i] != "" {
			var err error
			if n[i], err = strconv.Atoi(m[i]); err != nil {
				return hunk{}, 0, err
			}
		}
	}
	h := hunk{oldStart: n[1], oldLines: n[2], newStart: n[3], newLines: n[4], section: m[5]}
	if h.head() != lines[0] {
		return hunk{}, 0, fmt.Errorf("git does not write %q", lines[0])
	}
	old, new := h.oldLines, h.newLines
	i := 1
	for ; i < len(lines); i++ {
		l := lines[i]
		if strings.HasPrefix(l, `\`) && i > 1 {
			h.lines = append(h.lines, l)
			continue
		}
		if old == 0 && new == 0 {
			break
		}
		switch {
		case strings.HasPrefix(l, " "):
			old, new = old-1, new-1
		case strings.HasPrefix(l, "-"):
			old--
		case strings.HasPrefix(l, "+"):
			new--
		default:
			return hunk{}, 0, fmt.Errorf("%q is no line of a hunk", l)
		}
		if old < 0 || new < 0 {
			return hunk{}, 0, fmt.Errorf("more lines in the hunk than %q says", lines[0])
		}
		h.lines = append(h.lines, l)
	}
	if old != 0 || new != 0 {
		return hunk{}, 0, fmt.Errorf("fewer lines in the hunk than %q says", lines[0])
	}
	return h, i, nil
}

func (h *hunk) head() string {
	span := func(start, n int) string {
		if n == 1 {
			return strconv.Itoa(start)
		}
		return fmt.Sprintf("%d,%d", start, n)
	}
	return fmt.Sprintf("@@ -%s +%s @@%s", span(h.oldStart, h.oldLines), span(h.newStart, h.newLines), h.section)
}

// bytes returns the text of the patch as git am takes it.
func (p *patch) bytes() []byte {
	var b bytes.Buffer
	put := func(lines ...string) {
		for _, l := range lines {
			b.WriteString(l)
			b.WriteByte('\n')
		}
	}
	put(p.head...)
	for _, f := range p.files {
		put(f.head...)
		for _, h := range f.hunks {
			put(h.head())
			put(h.lines...)
		}
	}
	return b.Bytes()
}

// subject returns the subject line without its prefix in brackets.
func (p *patch) subject() string {
	var s string
	for i, l := range p.head {
		if l == "" {
			break
		}
		rest, ok := strings.CutPrefix(l, "Subject: ")
		if !ok {
			continue
		}
		s = rest
		for _, l := range p.head[i+1:] {
			if !strings.HasPrefix(l, " ") {
				break
			}
			s += l
		}
	}
	if i := strings.Index(s, "] "); strings.HasPrefix(s, "[") && i >= 0 {
		s = s[i+2:]
	}
	return s
}

// message returns the mail up to its diffstat: author, date, subject, body.
func (p *patch) message() []string {
	if i := slices.Index(p.head, "---"); i >= 0 {
		return p.head[:i]
	}
	return p.head
}

// added returns the text of a file that the patch makes, "" if it makes none of
// that path.
func (p *patch) added(path string) string {
	for _, f := range p.files {
		if f.path == path && f.added {
			var b strings.Builder
			for _, l := range f.hunks[0].lines {
				if text, ok := strings.CutPrefix(l, "+"); ok {
					b.WriteString(text + "\n")
				}
			}
			return b.String()
		}
	}
	return ""
}

// A series is the patches of one folder.
type series struct {
	version string // the folder's name and the tag that it applies to
	patches []*patch
}

// sum returns a hash of the series' text.
func (s *series) sum() string {
	h := sha256.New()
	for _, p := range s.patches {
		// The names and lengths keep one text apart from the next.
		text := p.bytes()
		fmt.Fprintf(h, "%s %d\n%s", p.name, len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

var release = regexp.MustCompile(`^v(\d+)\.(\d+)$`)

// versions returns the names of the folders in dir that hold a series, oldest
// release first. This is the project's list of supported versions.
func versions(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the supported versions: %w", err)
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() && release.MatchString(e.Name()) {
			all = append(all, e.Name())
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("list the supported versions: no folder vX.YY in %s", dir)
	}
	slices.SortFunc(all, compareVersions)
	return all, nil
}

// compareVersions orders names like v1.9 and v1.30 by their numbers.
func compareVersions(a, b string) int {
	x, y := release.FindStringSubmatch(a), release.FindStringSubmatch(b)
	if x == nil || y == nil {
		return strings.Compare(a, b)
	}
	for i := 1; i <= 2; i++ {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m - n
		}
	}
	return 0
}

// readSeries reads the series of a version from the folder of all series.
func readSeries(dir, version string) (*series, error) {
	folder := filepath.Join(dir, version)
	base, err := os.ReadFile(filepath.Join(folder, "base.txt"))
	if err != nil {
		return nil, fmt.Errorf("read the series for %s: %w", version, err)
	}
	if string(base) != version+"\n" {
		return nil, fmt.Errorf("read the series for %s: base.txt holds %q, not the folder's name and a line feed", version, base)
	}
	names, err := filepath.Glob(filepath.Join(folder, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read the series for %s: no *.patch in %s", version, folder)
	}
	slices.Sort(names)
	s := &series{version: version}
	for i, name := range names {
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(filepath.Base(name), want) {
			return nil, fmt.Errorf("read the series for %s: %s should start with %s", version, filepath.Base(name), want)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p, err := parsePatch(filepath.Base(name), text)
		if err != nil {
			return nil, fmt.Errorf("read the series for %s: %w", version, err)
		}
		s.patches = append(s.patches, p)
	}
	return s, nil
}

// write puts a series into its folder and removes patches that it no longer has.
func (s *series) write(dir string) error {
	folder := filepath.Join(dir, s.version)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(folder, "*.patch"))
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, p := range s.patches {
		name := filepath.Join(folder, p.name)
		keep[name] = true
		if err := os.WriteFile(name, p.bytes(), 0o644); err != nil {
			return err
		}
	}
	for _, name := range old {
		if !keep[name] {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(folder, "base.txt"), []byte(s.version+"\n"), 0o644)
}
