// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Reports as kernels print them, shortened.
const (
	sleeps = `[   12.345678] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:935
[   12.345679] in_atomic(): 0, irqs_disabled(): 0, non_block: 0, pid: 77, name: cat
[   12.345680] Call Trace:
[   12.345681]  dump_stack+0x96/0xc4
[   12.345682]  scoutfs_d_revalidate+0x21/0x90 [scoutfs]
[   12.345683] RIP: 0033:0x7f
[   12.345684] RAX: ffffffffffffffda RBX: 1
`
	race = `[   13.000001] ==================================================================
[   13.000002] BUG: KCSAN: data-race in ktime_get / update
[   13.000003] 
[   13.000004] write to 0xffff88 of 8 bytes by task 10 on cpu 1:
[   13.000005]  update+0x1/0x2
[   13.000006] 
[   13.000007] read to 0xffff88 of 8 bytes by task 11 on cpu 0:
[   13.000008]  ktime_get+0x1/0x2
[   13.000009]  FUNCTION+0x1/0x2 [scoutfs]
[   13.000010] 
[   13.000011] Reported by Kernel Concurrency Sanitizer on:
[   13.000012] CPU: 0 PID: 11 Comm: guest.test Not tainted
[   13.000013] ==================================================================
`
	plain = "[   14.000000] scoutfs: a line of no matter\n"
)

func TestKnown(t *testing.T) {
	known := []Known{
		{Name: "sleeps", Head: regexp.MustCompile(`sleeping function`), Has: regexp.MustCompile(`scoutfs_d_revalidate`)},
		{Name: "race", Head: regexp.MustCompile(`KCSAN`), Not: regexp.MustCompile(`\bnotify_`)},
	}
	others := strings.ReplaceAll(race, "FUNCTION", "scoutfs_inc")
	ours := strings.ReplaceAll(race, "FUNCTION", "notify_emit")
	for _, tt := range []struct {
		name, console string
		found         map[string]int
		trouble       string // in the first line of it; "" for none
	}{
		{"nothing", plain, nil, ""},
		{"known", plain + sleeps + plain + others + plain, map[string]int{"sleeps": 1, "race": 1}, ""},
		{"known twice in a row", sleeps + sleeps + others + others, map[string]int{"sleeps": 2, "race": 2}, ""},
		{"of our own", sleeps + ours + plain, map[string]int{"sleeps": 1}, "KCSAN"},
		{"another sleeper", strings.ReplaceAll(sleeps, "d_revalidate", "notify_stop"), nil, "sleeping function"},
		{"after a known one", sleeps + "[   15.000000] kernel: refcount_t: underflow\n", map[string]int{"sleeps": 1}, "refcount_t"},
		{"cut off", others[:400], map[string]int{"race": 1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := trouble{known: known}
			for line := range strings.Lines(tt.console) {
				c.check(strings.TrimRight(line, "\n"))
			}
			c.flush()
			if !maps.Equal(c.found, tt.found) {
				t.Errorf("found %v, not %v", c.found, tt.found)
			}
			if tt.trouble == "" && len(c.lines) > 0 || tt.trouble != "" && (len(c.lines) == 0 || !strings.Contains(c.lines[0], tt.trouble)) {
				t.Errorf("trouble %q, not %q", c.lines, tt.trouble)
			}
		})
	}
	if k := slices.IndexFunc(known, func(k Known) bool { return k.matches([]string{"x"}) }); k >= 0 {
		t.Errorf("%s matches anything", known[k].Name)
	}
}
