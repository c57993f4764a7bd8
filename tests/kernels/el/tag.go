// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernelTag matches the tag of a kernel: its version, the packages' release, and the
// distribution's.
var kernelTag = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9]+)-([0-9][0-9.]*)\.el([0-9]+)_([0-9]+)$`)

// newest returns the newest tag, of a list with one on each line, of a release of the
// distribution such as 9, for its newest minor one, or 9.4.
func newest(list, el string) (string, error) {
	major, minor, exact := strings.Cut(el, ".")
	best := ""
	for line := range strings.Lines(list) {
		tag := strings.TrimSpace(line)
		m := kernelTag.FindStringSubmatch(tag)
		if m == nil || m[3] != major || exact && m[4] != minor {
			continue
		}
		if best == "" || slices.Compare(numbers(tag), numbers(best)) > 0 {
			best = tag
		}
	}
	if best == "" {
		return "", fmt.Errorf("find a kernel of EL%s: EL_KERNEL_SRC has no tag like 5.14.0-570.32.1.el9_6 for it", el)
	}
	return best, nil
}

var digits = regexp.MustCompile(`[0-9]+`)

// numbers returns what orders tags of one major release: the minor one, then the rest.
func numbers(tag string) []int {
	m := kernelTag.FindStringSubmatch(tag)
	var all []int
	for _, part := range []string{m[4], m[1], m[2]} {
		for _, d := range digits.FindAllString(part, -1) {
			n, _ := strconv.Atoi(d) // too large a number is the largest
			all = append(all, n)
		}
	}
	return all
}

// release returns what uname -r prints for the kernel of a tag.
func release(tag string) string { return tag + ".x86_64" }

// configName returns the name of the distribution's configuration among the files of a
// tag, or "".
func configName(files []string) string {
	matches := slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		return !regexp.MustCompile(`^[^/]+/kernel-x86_64(-rhel)?\.config$`).MatchString(f)
	})
	if len(matches) == 0 {
		return ""
	}
	return slices.MinFunc(matches, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
}
