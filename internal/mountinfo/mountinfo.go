// SPDX-License-Identifier: MIT OR GPL-2.0-only

// Package mountinfo parses what proc_pid_mountinfo(5) describes:
//
//	36 35 0:42 / /mnt/scoutfs rw,noatime shared:1 - scoutfs /dev/vdb rw
package mountinfo

import (
	"bytes"
	"strings"
)

// Mount is one mount.
type Mount struct {
	ID     int    // unique while the mount exists
	Parent int    // ID of the mount that it is mounted on
	Major  uint32 // of the file system's device number
	Minor  uint32
	Point  string // where it is mounted
	Type   string // of the file system
}

// Parse returns the mounts in the order of the text, which is that of mounting. It
// skips lines that it does not understand.
func Parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		if f, ok := split([]byte(line)); ok {
			mounts = append(mounts, f.mount())
		}
	}
	return mounts
}

// At returns the mount that a path leads into, if it is mounted exactly there: the
// topmost one, which no mount on a folder above it hides. The path is absolute and
// clean, and has no symbolic links. Nothing is allocated for other mounts, of which
// there may be thousands.
func At(text []byte, path string) (m Mount, ok bool) {
	// Those that a walk along the path can meet.
	var near []Mount
	for line := range bytes.Lines(text) {
		if f, ok := split(line); ok && f.leadsTo(path) {
			near = append(near, f.mount())
		}
	}
	m, ok = walk(near)
	return m, ok && m.Point == path
}

// Find returns the mount that a path is on. The path is as for At.
func Find(mounts []Mount, path string) (Mount, bool) {
	var near []Mount
	for _, m := range mounts {
		if Below(path, m.Point) {
			near = append(near, m)
		}
	}
	return walk(near)
}

// Below tells whether a clean absolute path is dir or below it.
func Below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// walk returns the last mount that a walk meets, of those that it can meet.
func walk(near []Mount) (m Mount, ok bool) {
	// No walk is longer, except in a circle, which no kernel shows.
	for range near {
		next, found := step(near, m, ok)
		if !found {
			break
		}
		m, ok = next, true
	}
	return m, ok
}

// step returns the mount that a walk meets after a mount, or first of all.
func step(near []Mount, from Mount, walking bool) (next Mount, found bool) {
	for _, m := range near {
		// It starts in the mounts whose parent cannot be seen from here: the root's, or
		// none if the process is in a chroot.
		if walking && (m.Parent != from.ID || m.ID == from.ID) || !walking && !topmost(near, m) {
			continue
		}
		// It crosses into the first that it meets. Of several at one place the last lies
		// on the others.
		if !found || len(m.Point) <= len(next.Point) {
			next, found = m, true
		}
	}
	return next, found
}

// topmost tells whether none of the mounts is the parent of m.
func topmost(mounts []Mount, m Mount) bool {
	for _, p := range mounts {
		if p.ID == m.Parent && p.ID != m.ID {
			return false
		}
	}
	return true
}

// fields are those of a line that matter here, as the kernel writes them.
type fields struct {
	id, parent, major, minor uint32
	point, fsType            []byte
}

// split parses a line. Fields are separated by single spaces; other white space can
// be part of a name.
func split(line []byte) (f fields, ok bool) {
	before, after, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" - "))
	if !ok {
		return f, false
	}
	var id, parent, dev []byte
	for _, field := range []*[]byte{&id, &parent, &dev, nil, &f.point} {
		var part []byte
		part, before, _ = bytes.Cut(before, []byte(" "))
		if field != nil {
			*field = part
		}
	}
	f.fsType, _, _ = bytes.Cut(after, []byte(" "))
	major, minor, _ := bytes.Cut(dev, []byte(":"))
	ok = number(id, &f.id) && number(parent, &f.parent) && number(major, &f.major) && number(minor, &f.minor)
	return f, ok && len(f.point) > 0 && len(f.fsType) > 0
}

// number parses a decimal number without allocating.
func number(text []byte, n *uint32) bool {
	v := uint64(0)
	for _, c := range text {
		if v = v*10 + uint64(c-'0'); c < '0' || c > '9' || v > 1<<31-1 {
			return false
		}
	}
	*n = uint32(v)
	return len(text) > 0
}

func (f fields) mount() Mount {
	return Mount{
		ID: int(f.id), Parent: int(f.parent), Major: f.major, Minor: f.minor,
		Point: string(unescape(f.point)), Type: string(unescape(f.fsType)),
	}
}

// leadsTo tells whether the mount point is the path or a folder above it.
func (f fields) leadsTo(path string) bool {
	point := f.point
	if bytes.IndexByte(point, '\\') >= 0 {
		point = unescape(point)
	}
	n := len(point)
	if n > len(path) || string(point) != path[:n] {
		return false
	}
	return n == len(path) || point[n-1] == '/' || path[n] == '/'
}

// unescape decodes what the kernel writes for bytes that would end a field: a
// backslash and three octal digits.
func unescape(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if e := text[i:]; e[0] == '\\' && len(e) >= 4 && e[1] >= '0' && e[1] <= '3' && octal(e[2]) && octal(e[3]) {
			out = append(out, (e[1]-'0')<<6|(e[2]-'0')<<3|(e[3]-'0'))
			i += 3
			continue
		}
		out = append(out, text[i])
	}
	return out
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
