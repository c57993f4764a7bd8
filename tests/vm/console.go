// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"regexp"
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

// trouble collects the console lines that report something wrong, except for those
// that allow matches.
type trouble struct {
	allow []*regexp.Regexp
	lines []string
}

// maxTrouble limits how many lines are kept: the first ones give the reason.
const maxTrouble = 20

func (t *trouble) check(line string) {
	if len(t.lines) == maxTrouble || !kernelTrouble.MatchString(line) {
		return
	}
	for _, a := range t.allow {
		if a.MatchString(line) {
			return
		}
	}
	t.lines = append(t.lines, line)
}
