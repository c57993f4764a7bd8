// SPDX-License-Identifier: GPL-2.0-only

// Package mountinfo parses what proc_pid_mountinfo(5) describes:
//
//	36 35 0:42 / /mnt/scoutfs rw,noatime shared:1 - scoutfs /dev/vdb rw
package mountinfo

import "strings"

// Mount is one mount.
type Mount struct {
	Point string // where it is mounted
	Type  string // of the file system
}

// Parse returns the mounts in the order of the text, which is that of mounting. It
// skips lines that it does not understand.
func Parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) >= 5 && len(fs) >= 1 {
			mounts = append(mounts, Mount{Point: escapes.Replace(fields[4]), Type: fs[0]})
		}
	}
	return mounts
}

// escapes are what the kernel writes for characters that would end a field.
var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
