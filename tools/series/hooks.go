// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The calls and methods that the series add, and how upstream's files name the
// methods they belong to.
const (
	readHook = "scoutfs_notify_read("
	openHook = "scoutfs_notify_open"
)

var (
	readMethod   = regexp.MustCompile(`^\s*\.(read_iter|aio_read)\s*=\s*(\w+)`)
	openMethod   = regexp.MustCompile(`^\s*\.open\s*=\s*(\w+)`)
	spliceMethod = regexp.MustCompile(`^\s*\.splice_read\s*=\s*(\w+)`)
)

// checkHooks looks through patched source, path by path, for every way that a
// file's data is read, and returns what is missing.
//
// A patch that applies does not say that it works: upstream's main has a second
// scoutfs_file_read_iter, for iomap, whose end is like that of the first. The
// hunk lands in one of the two and builds, and on a kernel that compiles the
// other one the reader never sees a record. So each copy must have the hook.
func checkHooks(source map[string]string) []string {
	var problems []string
	paths := make([]string, 0, len(source))
	for path := range source {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	lines := map[string][]string{}
	found := map[string][]section{}
	for _, path := range paths {
		lines[path] = strings.Split(source[path], "\n")
		found[path] = sections(lines[path])
	}

	// The file operations of regular files are those that have a read method.
	entries := map[string]string{} // function -> method
	for _, path := range paths {
		for _, s := range found[path] {
			if s.function {
				continue
			}
			reads, open := false, ""
			splice := ""
			for _, l := range lines[path][s.first : s.last+1] {
				if m := readMethod.FindStringSubmatch(l); m != nil {
					reads = true
					entries[m[2]] = "." + m[1]
				} else if m := openMethod.FindStringSubmatch(l); m != nil {
					open = m[1]
				} else if m := spliceMethod.FindStringSubmatch(l); m != nil {
					splice = m[1]
				}
			}
			if !reads {
				continue
			}
			if open != openHook {
				problems = append(problems, fmt.Sprintf("%s:%d: %s has no .open = %s", path, s.first+1, s.name, openHook))
			}
			// Others, like filemap_splice_read, go past ->read_iter.
			if splice != "" && splice != "generic_file_splice_read" {
				problems = append(problems, fmt.Sprintf("%s:%d: %s has .splice_read = %s, which may read past the hook", path, s.first+1, s.name, splice))
			}
		}
	}
	if len(entries) == 0 {
		problems = append(problems, "no file operations with a read method were found")
	}

	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		copies := 0
		for _, path := range paths {
			for _, s := range found[path] {
				if !s.function || s.name != name {
					continue
				}
				copies++
				calls := strings.Count(strings.Join(lines[path][s.first:s.last+1], "\n"), readHook)
				if calls != 1 {
					problems = append(problems, fmt.Sprintf("%s:%d: %s calls the read hook %d times, not once", path, s.first+1, name, calls))
				}
			}
		}
		if copies == 0 {
			problems = append(problems, fmt.Sprintf("%s is %s and has no definition to hook", name, entries[name]))
		}
	}

	// The guard in notify.c stays until somebody has looked at both copies.
	defines, guard := "", false
	for _, path := range paths {
		if strings.HasSuffix(path, "/notify.c") {
			guard = strings.Contains(source[path], "#ifdef KC_USE_IOMAP_FOR_IO")
		} else if defines == "" && strings.Contains(source[path], "KC_USE_IOMAP_FOR_IO") {
			defines = path
		}
	}
	if guard && defines != "" {
		problems = append(problems, fmt.Sprintf("%s knows KC_USE_IOMAP_FOR_IO, for which notify.c has an #error", defines))
	}
	return problems
}
