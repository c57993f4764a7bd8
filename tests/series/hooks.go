// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The calls and methods that the series add.
const (
	readHook = "scoutfs_notify_read("
	openHook = "scoutfs_notify_open"
)

var method = regexp.MustCompile(`^\s*\.(open|read_iter|aio_read|splice_read)\s*=\s*(\w+)`)

// splices are the ->splice_read methods that go through ->read_iter.
var splices = []string{"generic_file_splice_read", "copy_splice_read"}

// These are the options of upstream's that compile a way to read for which a series
// may have an #error instead of a hook.
const (
	iomapOption = "KC_USE_IOMAP_FOR_IO"        // from upstream's main on, a second ->read_iter
	aioOption   = "KC_LINUX_HAVE_FOP_AIO_READ" // up to v1.32, ->aio_read for EL7
)

// checkHooks looks in patched source, given by path, for every way to read a file's
// data, and returns which hooks are missing.
//
// A patch can apply and still not work: upstream's main has a second
// scoutfs_file_read_iter, for iomap, that ends like the first. The hunk lands in one
// of the two and builds, but kernels that compile the other one report no reads. So
// each copy must have the hook.
func checkHooks(source map[string]string) []string {
	files := parseSource(source)
	entries, problems := checkOperations(files)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if entries[name] == ".aio_read" && hasGuard(source, aioOption) {
			continue // EL7 cannot build it
		}
		problems = append(problems, checkEntry(files, name, entries[name])...)
	}
	return append(problems, checkGuard(source)...)
}

// cFile is a C file with its functions and initializers.
type cFile struct {
	path     string
	lines    []string
	sections []section
}

// text returns the lines of a section.
func (f *cFile) text(s section) []string { return f.lines[s.first : s.last+1] }

// at returns a section's place, for messages.
func (f *cFile) at(s section) string { return fmt.Sprintf("%s:%d: %s", f.path, s.first+1, s.name) }

// parseSource returns the files, sorted by path.
func parseSource(source map[string]string) []cFile {
	var all []cFile
	for _, path := range slices.Sorted(maps.Keys(source)) {
		lines := strings.Split(source[path], "\n")
		all = append(all, cFile{path, lines, sections(lines)})
	}
	return all
}

// checkOperations checks all file operations. It returns the functions that are read
// methods of regular files, with the method's name.
func checkOperations(files []cFile) (entries map[string]string, problems []string) {
	entries = map[string]string{}
	for _, f := range files {
		for _, s := range f.sections {
			if !s.function {
				problems = append(problems, f.checkMethods(s, entries)...)
			}
		}
	}
	if len(entries) == 0 {
		problems = append(problems, "no file operations with a read method were found")
	}
	return entries, problems
}

// checkMethods checks the methods that an initializer sets and adds its read methods
// to entries. Only the operations of regular files have any.
func (f *cFile) checkMethods(s section, entries map[string]string) (problems []string) {
	methods := map[string][]string{} // a method has several where #ifdef chooses
	for _, l := range f.text(s) {
		if m := method.FindStringSubmatch(l); m != nil {
			methods[m[1]] = append(methods[m[1]], m[2])
		}
	}
	reads := false
	for _, name := range []string{"read_iter", "aio_read"} {
		for _, function := range methods[name] {
			reads = true
			entries[function] = "." + name
		}
	}
	if !reads {
		return nil
	}
	if !slices.Equal(methods["open"], []string{openHook}) {
		problems = append(problems, fmt.Sprintf("%s has no .open = %s, or another", f.at(s), openHook))
	}
	// Others, such as filemap_splice_read, bypass ->read_iter.
	for _, splice := range methods["splice_read"] {
		if !slices.Contains(splices, splice) {
			problems = append(problems, fmt.Sprintf("%s has .splice_read = %s, which may read past the hook", f.at(s), splice))
		}
	}
	return problems
}

// checkEntry looks for the read hook in every definition of a read method.
func checkEntry(files []cFile, name, method string) (problems []string) {
	copies := 0
	for _, f := range files {
		for _, s := range f.sections {
			if !s.function || s.name != name {
				continue
			}
			copies++
			if n := strings.Count(strings.Join(f.text(s), "\n"), readHook); n != 1 {
				problems = append(problems, fmt.Sprintf("%s calls the read hook %d times, not once", f.at(s), n))
			}
		}
	}
	if copies == 0 {
		problems = append(problems, fmt.Sprintf("%s is %s and has no definition to hook", name, method))
	}
	return problems
}

// hasGuard reports whether the ring's source has an #error for an option. A guard is
// three lines or more: #ifdef, #error, #endif, and comments.
func hasGuard(source map[string]string, option string) bool {
	for path, text := range source {
		if strings.HasSuffix(path, "/notify.c") && guardOf(option).MatchString(text) {
			return true
		}
	}
	return false
}

// guardOf matches the guard for an option, up to the empty line after it.
func guardOf(option string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^#ifdef ` + option + `\n(?:[^#\n].*\n)*#error.*\n#endif\n\n?`)
}

// checkGuard reports when upstream has the second read path for which notify.c has an
// #error. The guard stays until somebody has checked both paths.
func checkGuard(source map[string]string) (problems []string) {
	if !hasGuard(source, iomapOption) {
		return nil
	}
	for _, path := range slices.Sorted(maps.Keys(source)) {
		if !strings.HasSuffix(path, "/notify.c") && strings.Contains(source[path], iomapOption) {
			return []string{fmt.Sprintf("%s uses %s, for which notify.c has an #error", path, iomapOption)}
		}
	}
	return nil
}
