// SPDX-License-Identifier: GPL-2.0-only

// Package plant puts bugs into the notify files of the series that the tests build, to
// see that "make sanitize" finds them. Nothing of it ships.
package plant

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Env is the variable with the name of the bug to plant, if any.
const Env = "PLANT"

// Bug is one that a sanitizer has to find.
type Bug struct {
	Name   string
	Kernel string         // of tests/sanitize, the one that finds it
	Finds  *regexp.Regexp // what the log then has
	file   string
	edits  []edit
}

// edit replaces text that is there once.
type edit struct{ old, new string }

// Bugs are the kinds of faults that a reader's life invites.
var Bugs = []Bug{
	{
		Name: "no-grace-period", Kernel: "kasan", file: "notify.c",
		Finds: regexp.MustCompile(`BUG: KASAN: [a-z-]+ in \w*(notify_|lock)`),
		// What is to be found is short, and an emulated processor does little at once.
		edits: []edit{
			{"\tif (wait)\n\t\tsynchronize_rcu();\n", "\t(void)wait;\n"},
			{"\tif (unlikely(!ring))\n\t\tgoto out;\n\n\traw_spin_lock(&ring->lock);\n\n\thead", "\tif (unlikely(!ring))\n\t\tgoto out;\n\n\tudelay(1000);\n\traw_spin_lock(&ring->lock);\n\n\thead"},
			{"#include <linux/fs.h>\n", "#include <linux/fs.h>\n#include <linux/delay.h>\n"},
		},
	},
	{
		Name: "sleep-under-lock", Kernel: "kasan", file: "notify.c",
		Finds: regexp.MustCompile(`BUG: sleeping function called from invalid context|BUG: scheduling while atomic`),
		edits: []edit{{"\t\tring->unmounted = true;\n", "\t\tring->unmounted = true;\n\t\tkfree(kmalloc(8, GFP_KERNEL));\n"}},
	},
	{
		Name: "borrowed-after-unmount", Kernel: "kasan", file: "notify.c",
		Finds: regexp.MustCompile(`KASAN: use-after-free in notify_release`),
		edits: []edit{{"\t\tring->sb = NULL;\n\n\t\traw_spin_lock(&ring->lock);\n\t\tring->unmounted = true;\n", "\t\traw_spin_lock(&ring->lock);\n\t\tring->unmounted = true;\n"}},
	},
	{
		Name: "leak", Kernel: "kasan", file: "notify.c",
		Finds: regexp.MustCompile(`leak: unreferenced object`),
		edits: []edit{{"\t\tvfree(ring->recs);\n", ""}},
	},
	{
		Name: "tail-without-lock", Kernel: "kcsan", file: "notify.c",
		Finds: regexp.MustCompile(`KCSAN: data-race in .*notify_`),
		// KCSAN watches one access of hundreds for 80 microseconds, and reports it if the value
		// changes then: here it does so all the time that a drain takes.
		edits: []edit{{"#include <linux/fs.h>\n", "#include <linux/fs.h>\n#include <linux/delay.h>\n"}, {
			"\t\traw_spin_lock(&ring->lock);\n\t\tWRITE_ONCE(ring->tail, tail);\n\t\tring->limit = tail + SCOUTFS_NOTIFY_RING_RECORDS;\n\t\traw_spin_unlock(&ring->lock);\n",
			"\t\tfor (; ring->tail < tail; ring->tail++)\n" +
				"\t\t\tfor (chunk = 0; chunk < 20; chunk++, udelay(50))\n" +
				"\t\t\t\tring->limit = ring->tail + SCOUTFS_NOTIFY_RING_RECORDS - chunk;\n" +
				"\t\tring->limit = tail + SCOUTFS_NOTIFY_RING_RECORDS;\n",
		}},
	},
}

// Named returns a bug by its name.
func Named(name string) (*Bug, error) {
	var names []string
	for i := range Bugs {
		if Bugs[i].Name == name {
			return &Bugs[i], nil
		}
		names = append(names, Bugs[i].Name)
	}
	return nil, fmt.Errorf("plant %q: no such bug; there are %s", name, strings.Join(names, ", "))
}

// Apply returns the text of a notify file with the named bug, or as it is if the name is
// empty or the bug is in another file.
func Apply(name, file, text string) (string, error) {
	if name == "" {
		return text, nil
	}
	b, err := Named(name)
	if err != nil || path.Base(file) != b.file {
		return text, err
	}
	for _, e := range b.edits {
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("plant %s: %s has its place %d times, not once; adapt tests/plant to the series:\n%s", name, file, n, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	return text, nil
}
