// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"regexp"
	"slices"
	"strings"
)

// kernelTrouble matches console lines by which a kernel reports something wrong.
var kernelTrouble = regexp.MustCompile(strings.Join([]string{
	`Kernel panic`,
	`\bOops\b`,
	`\bBUG\b`,
	`\bWARNING:`,
	`INFO: task .* blocked for more than`,
	`INFO: possible`, // lockdep
	`possible (recursive|circular) locking`,
	`suspicious RCU usage`,
	`\brcu.* stall`,
	`detected stalls`,
	`KASAN:|KCSAN:|KFENCE:|UBSAN:`,
	`(soft|hard) lockup`,
	`general protection fault`,
	`unable to handle`,
	`Unable to handle`,
	`refcount_t:`,
	`list_(add|del) corruption`,
	`Call Trace:`,
	`kmem_cache_destroy .*still has objects`,
	`Busy inodes after unmount`,
	`scheduling while atomic`,
	`Out of memory:`,
}, "|"))

// harmless matches a line of a kernel that was built without objtool, as EL8's is by
// tests/kernels/el: its stack traces are guesses.
var harmless = regexp.MustCompile(`WARNING: Bad or missing \.orc_unwind table\.`)

// trouble collects the console lines that report something wrong, except for those
// that allow matches, and those of reports that known tells apart.
type trouble struct {
	allow []*regexp.Regexp
	known []Known
	lines []string

	report []string // the lines of the one that goes on
	ended  bool     // its call trace has begun
	found  map[string]int
}

// Known tells apart reports of the kernel's that are not about what is tested.
type Known struct {
	Name string // for Result.Known
	// Head matches the line by which the report begins, and Has one of its others, if it
	// is not nil. No line may match Not, if that is not nil.
	Head, Has, Not *regexp.Regexp
}

func (k *Known) matches(report []string) bool {
	if !k.Head.MatchString(report[0]) {
		return false
	}
	return (k.Has == nil || slices.ContainsFunc(report, k.Has.MatchString)) &&
		(k.Not == nil || !slices.ContainsFunc(report, k.Not.MatchString))
}

// maxTrouble limits how many lines are kept: the first ones give the reason.
const maxTrouble = 20

// maxReport limits how long a report can be. A lock's history can have many lines.
const maxReport = 400

var (
	// The rules of '=' around some reports, and the parts of the others after the first
	// line of the trace: what the kernel prints indented, and the registers.
	reportRule  = regexp.MustCompile(`={50}`)
	reportTrace = regexp.MustCompile(`Call Trace:`)
	reportGoes  = regexp.MustCompile(`^(\[ *[0-9.]+\] )?( |$|RIP: |Code: |RSP: |RAX: |RDX: |RBP: |R10: |R13: |---\[ )`)
	reportHead  = regexp.MustCompile(`\bBUG: |\bWARNING: |\bINFO: |Kernel panic|\bOops\b|UBSAN: `)
)

// check takes a line of the console. Reports of several processors may be mixed: then a
// report ends early and its rest is trouble.
func (t *trouble) check(line string) {
	if len(t.known) > 0 {
		t.collect(line)
		return
	}
	t.judge(line)
}

func (t *trouble) judge(line string) {
	if len(t.lines) == maxTrouble || !kernelTrouble.MatchString(line) || harmless.MatchString(line) {
		return
	}
	for _, a := range t.allow {
		if a.MatchString(line) {
			return
		}
	}
	t.lines = append(t.lines, line)
}

func (t *trouble) collect(line string) {
	if len(t.report) > 0 {
		switch {
		case reportRule.MatchString(line) && len(t.report) > 3: // its end
			t.flush()
			return
		case t.ended && (!reportGoes.MatchString(line) || reportHead.MatchString(line)), len(t.report) == maxReport:
			t.flush()
		default:
			t.ended = t.ended || reportTrace.MatchString(line)
			t.report = append(t.report, line)
			return
		}
	}
	if reportHead.MatchString(line) {
		t.report, t.ended = append(t.report, line), false
		return
	}
	t.judge(line)
}

// flush ends the report.
func (t *trouble) flush() {
	report := t.report
	t.report = nil
	if len(report) == 0 {
		return
	}
	for _, k := range t.known {
		if k.matches(report) {
			if t.found == nil {
				t.found = map[string]int{}
			}
			t.found[k.Name]++
			return
		}
	}
	for _, line := range report {
		t.judge(line)
	}
}
