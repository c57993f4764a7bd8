// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"regexp"
	"slices"
	"strings"
)

// A section is a function or the initializer of a variable, at the outermost level
// of a C file in kernel style: the closing brace is in column 0.
type section struct {
	name     string
	function bool
	first    int // index of the line with, or before, the opening brace
	last     int // index of the line with the closing brace
}

var (
	functionHead = regexp.MustCompile(`^(?:[A-Za-z_][^;={}(]*[\s*])?([A-Za-z_]\w*)\s*\(`)
	variableHead = regexp.MustCompile(`^[A-Za-z_][^;(]*?\b([A-Za-z_]\w*)\s*(?:\[[^\]]*\]\s*)?=\s*\{\s*$`)
)

// sections finds the functions and initializers of a C file. It relies on style
// instead of grammar, which is enough for upstream's files: a function starts with
// a line in column 0 with a parenthesis, before a lone opening brace.
func sections(lines []string) []section {
	var all []section
	head, at := "", 0
	open := -1
	for i, l := range lines {
		switch {
		case open >= 0:
			if strings.HasPrefix(l, "}") {
				all[open].last = i
				open, head = -1, ""
			}
		case strings.TrimRight(l, " \t") == "{" && head != "":
			all = append(all, section{name: head, function: true, first: at, last: len(lines) - 1})
			open = len(all) - 1
		case strings.HasPrefix(l, "}"):
			head = ""
		default:
			if m := variableHead.FindStringSubmatch(l); m != nil {
				all = append(all, section{name: m[1], first: i, last: len(lines) - 1})
				open = len(all) - 1
			} else if m := functionHead.FindStringSubmatch(l); m != nil && !strings.HasSuffix(strings.TrimRight(l, " \t"), ";") {
				head, at = m[1], i
			}
		}
	}
	return all
}

// sectionAt returns the section that contains a line, by its index, or nil.
func sectionAt(all []section, line int) *section {
	for i := range all {
		if all[i].first <= line && line <= all[i].last {
			return &all[i]
		}
	}
	return nil
}

// hasFunction reports whether the sections include a function called name.
func hasFunction(all []section, name string) bool {
	return slices.ContainsFunc(all, func(s section) bool { return s.function && s.name == name })
}

// isC reports whether a path names C source.
func isC(path string) bool {
	return strings.HasSuffix(path, ".c") || strings.HasSuffix(path, ".h")
}
