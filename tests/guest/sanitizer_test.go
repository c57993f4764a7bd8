// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// What kernels with sanitizers have, see tests/sanitize.
const (
	kcsanSwitch = "/sys/kernel/debug/kcsan"
	kcsanSkip   = "/sys/module/kcsan/parameters/skip_watch"
	kmemleak    = "/sys/kernel/debug/kmemleak"
	lockdep     = "/proc/lockdep_stats"
)

// sanitized reports whether the kernel is one of tests/sanitize.
func sanitized() bool {
	for _, file := range []string{kcsanSkip, kmemleak} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

// startSanitizers starts those that wait for it. A kernel without them has nothing to
// start.
func startSanitizers() {
	for _, s := range []struct{ file, text string }{
		{kcsanSkip, "400"}, // watch an access in so many: ten times as often as by default
		{kcsanSwitch, "on"},
		{kmemleak, "scan=off"}, // the tests scan when there is something to see
		{kmemleak, "clear"},    // what the boot leaked
	} {
		if _, err := os.Stat(s.file); err != nil {
			continue
		}
		if err := os.WriteFile(s.file, []byte(s.text), 0); err != nil {
			fmt.Fprintf(os.Stderr, "write %q to %s: %v\n", s.text, s.file, err)
			os.Exit(1)
		}
	}
}

// ours matches a line of a trace that is in this project's part of the module, and one
// of a module that was removed since: modules are above the kernel, with and without KASLR.
var ours = regexp.MustCompile(`\b_*(scoutfs_)?(ioc_read_)?notify(_\w+)?\+0x|\] 0xffffffff[a-f][0-9a-f]{7}\b`)

// wantNoLeaks checks that no memory was leaked by what the module's notify.c allocates,
// if the kernel can tell. Not after the module's removal: its functions have no names
// then.
func wantNoLeaks(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(kmemleak); errors.Is(err, os.ErrNotExist) {
		return
	}
	// What is in a register or on its way between two lists is found by the second scan.
	for range 2 {
		if err := os.WriteFile(kmemleak, []byte("scan"), 0); err != nil {
			t.Fatalf("scan for leaks: %v", err)
		}
	}
	text, err := os.ReadFile(kmemleak)
	if err != nil {
		t.Fatalf("read the leaks: %v", err)
	}
	others := 0
	for _, leak := range strings.Split(string(text), "unreferenced object")[1:] {
		switch {
		case ours.MatchString(leak):
			t.Errorf("leak: unreferenced object%s", leak)
		case others == 0:
			t.Logf("the first that is of others: unreferenced object%s", leak)
			fallthrough
		default:
			others++
		}
	}
	t.Logf("looked for leaks; %d are of others", others)
}

// tellLockdep says whether lockdep has looked at all of it: the kernel switches it off at its
// first report of anything, also at one that is upstream's.
func tellLockdep(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(lockdep)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatalf("ask whether lockdep is on: %v", err)
	}
	switch {
	case regexp.MustCompile(`debug_locks: +1`).Match(text):
		t.Log("lockdep was on to the end")
	case regexp.MustCompile(`debug_locks: +0`).Match(text):
		t.Log("not all of it was looked at by lockdep: the kernel has switched it off at the first report in the log")
	default:
		t.Errorf("%s does not say whether lockdep is on", lockdep)
	}
}
