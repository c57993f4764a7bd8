// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Verdicts on tests that the suite itself does not report.
const (
	noEnd  = "no end"
	notRun = "not run"
)

// A result says how one test of the suite ended.
type result struct {
	name    string
	verdict string // "passed", "failed", "skipped", or one of the above
	detail  string // seconds, or the reason
}

// run-tests.sh starts a line when a test starts, and completes it when the test ends.
var resultLine = regexp.MustCompile(
	`^  (\S+) .*?(?:  passed: (?:last: \S+)?\s*(\d+s)|  \[ (failed|skipped(?: \(permitted\))?): (.*) \])$`)

// parseResult reads the line of a test that ended.
func parseResult(line string) (result, bool) {
	m := resultLine.FindStringSubmatch(strings.TrimRight(line, " \r\n"))
	if m == nil {
		return result{}, false
	}
	if m[2] != "" {
		return result{m[1], "passed", m[2]}, true
	}
	verdict, _, _ := strings.Cut(m[3], " ")
	return result{m[1], verdict, m[4]}, true
}

// results are those of one run, in the order of the suite.
type results []result

func (r results) find(name string) (result, bool) {
	i := slices.IndexFunc(r, func(x result) bool { return x.name == name })
	if i < 0 {
		return result{}, false
	}
	return r[i], true
}

// complete adds the tests that should have run and did not. If the machine ended
// before the suite did, the first of them is the one that hung.
func (r results) complete(sequence []string, ended bool) results {
	out := slices.Clone(r)
	hung := !ended
	for _, name := range sequence {
		if _, ok := r.find(name); ok {
			continue
		}
		if hung {
			out = append(out, result{name, noEnd, "the machine ended first"})
			hung = false
		} else {
			out = append(out, result{name, notRun, ""})
		}
	}
	return out
}

// names returns the tests that ended with one of these verdicts.
func (r results) names(verdicts ...string) []string {
	var names []string
	for _, x := range r {
		if slices.Contains(verdicts, x.verdict) {
			names = append(names, x.name)
		}
	}
	return names
}

// sequence returns the names of the suite's tests, without what is left out.
func sequence(text string, leftOut map[string]string, only *regexp.Regexp) []string {
	var names []string
	for line := range strings.Lines(text) {
		name := strings.TrimSuffix(strings.TrimSpace(line), ".sh")
		if name == "" || strings.HasPrefix(name, "#") || leftOut[name] != "" || !only.MatchString(name) {
			continue
		}
		names = append(names, name)
	}
	return names
}

// compare writes both runs side by side and returns the tests that the patches
// made worse: those that pass without the patches but not with them. A test that
// only the patched tree has must pass, too.
func compare(w io.Writer, unpatched, patched results) (worse []string) {
	fmt.Fprintf(w, "%-32s %-16s %-16s\n", "test", "unpatched", "patched")
	cell := func(r result, ok bool) string {
		if !ok {
			return "-"
		}
		if r.verdict == "passed" {
			return r.verdict + " " + r.detail
		}
		return r.verdict
	}
	for _, p := range patched {
		u, ok := unpatched.find(p.name)
		note := ""
		if p.verdict != "passed" && (!ok || u.verdict == "passed") {
			worse = append(worse, p.name)
			note = "WORSE"
		}
		if p.verdict != "passed" && p.detail != "" {
			note = strings.TrimSpace(note + " " + p.detail)
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-32s %-16s %-16s %s", p.name, cell(u, ok), cell(p, true), note), " "))
	}
	for _, u := range unpatched {
		if _, ok := patched.find(u.name); !ok {
			worse = append(worse, u.name)
			fmt.Fprintf(w, "%-32s %-16s %-16s WORSE not in the patched suite\n", u.name, cell(u, true), "-")
		}
	}
	return worse
}

// count says how many tests ended with each verdict.
func (r results) count() string {
	var parts []string
	for _, verdict := range []string{"passed", "failed", "skipped", noEnd, notRun} {
		if n := len(r.names(verdict)); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, verdict))
		}
	}
	return strings.Join(parts, ", ")
}

// includes returns the options that make run-tests.sh run only these tests.
func includes(names []string) string {
	var words []string
	for _, n := range names {
		words = append(words, `-I ^`+n+`\.sh$`)
	}
	return strings.Join(words, " ")
}
