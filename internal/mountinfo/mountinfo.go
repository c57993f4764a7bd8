// SPDX-License-Identifier: GPL-2.0-only

// Package mountinfo parses what proc_pid_mountinfo(5) describes:
//
//	36 35 0:42 / /mnt/scoutfs rw,noatime shared:1 - scoutfs /dev/vdb rw
package mountinfo

import (
	"fmt"
	"strings"
)

// Mount is one mount.
type Mount struct {
	ID     int    // never used for two mounts at the same time
	Parent int    // ID of the mount that it is on
	Major  uint32 // number of the file system's device
	Minor  uint32
	Point  string // where it is mounted
	Type   string // of the file system
}

// Parse returns the mounts in the order of the text, which is that of mounting. It
// skips lines that it does not understand.
func Parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		// A mount point can have other white space in it: strings.Fields would not do.
		fields, fs := strings.Split(before, " "), strings.Split(strings.TrimSuffix(after, "\n"), " ")
		if !ok || len(fields) < 5 {
			continue
		}
		m := Mount{Point: escapes.Replace(fields[4]), Type: escapes.Replace(fs[0])}
		numbers := strings.Join(fields[:3], " ")
		if n, err := fmt.Sscanf(numbers, "%d %d %d:%d", &m.ID, &m.Parent, &m.Major, &m.Minor); n == 4 && err == nil {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// escapes are what the kernel writes for characters that would end a field.
var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// Find returns the mount that a clean absolute path without symbolic links is on. It
// goes from mount to mount as a path walk does: the longest mount point would not do,
// because one can be hidden below another.
func Find(mounts []Mount, path string) (Mount, bool) {
	cur, ok := root(mounts)
	for range mounts {
		next, found := child(mounts, cur, path)
		if !found {
			break
		}
		cur = next
	}
	return cur, ok
}

// root returns the mount that all others are on.
func root(mounts []Mount) (Mount, bool) {
	ids := make(map[int]bool, len(mounts))
	for _, m := range mounts {
		ids[m.ID] = true
	}
	for _, m := range mounts {
		if m.Point == "/" && (!ids[m.Parent] || m.Parent == m.ID) {
			return m, true
		}
	}
	return Mount{}, false
}

// child returns the first mount on another that a walk along the path comes to.
func child(mounts []Mount, on Mount, path string) (found Mount, ok bool) {
	for _, m := range mounts {
		if m.Parent == on.ID && m.ID != on.ID && Below(path, m.Point) && (!ok || len(m.Point) < len(found.Point)) {
			found, ok = m, true
		}
	}
	return found, ok
}

// Below tells whether a clean absolute path is dir or below it.
func Below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
