// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// openFlags are the names of open(2)'s flags, those with several bits first.
var openFlags = []struct {
	bits uint32
	name string
}{
	{unix.O_SYNC, "O_SYNC"},
	{unix.O_TMPFILE, "O_TMPFILE"},
	{unix.O_APPEND, "O_APPEND"},
	{unix.O_ASYNC, "O_ASYNC"},
	{unix.O_CLOEXEC, "O_CLOEXEC"},
	{unix.O_CREAT, "O_CREAT"},
	{unix.O_DIRECT, "O_DIRECT"},
	{unix.O_DIRECTORY, "O_DIRECTORY"},
	{unix.O_DSYNC, "O_DSYNC"},
	{unix.O_EXCL, "O_EXCL"},
	{unix.O_NOATIME, "O_NOATIME"},
	{unix.O_NOCTTY, "O_NOCTTY"},
	{unix.O_NOFOLLOW, "O_NOFOLLOW"},
	{unix.O_NONBLOCK, "O_NONBLOCK"},
	{unix.O_TRUNC, "O_TRUNC"},
	{fmodeExec, "FMODE_EXEC"},
}

// fmodeExec is __FMODE_EXEC of the kernel's fs.h: the file is being executed.
const fmodeExec = 0x20

// largefile is O_LARGEFILE. Every open of a 64-bit process has it, so it is not
// shown; package unix has it as 0, as the C headers of such a process do.
var largefile = func() uint32 {
	switch runtime.GOARCH {
	case "arm", "arm64":
		return 0o400000
	case "ppc64", "ppc64le":
		return 0o200000
	}
	return 0o100000
}()

// flagNames writes open flags as strace does, but without O_LARGEFILE. Bits
// without a name are in hexadecimal.
func flagNames(flags uint32) string {
	var b strings.Builder
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		b.WriteString("O_RDONLY")
	case unix.O_WRONLY:
		b.WriteString("O_WRONLY")
	case unix.O_RDWR:
		b.WriteString("O_RDWR")
	default:
		b.WriteString("O_ACCMODE")
	}
	flags &^= unix.O_ACCMODE | largefile
	for _, f := range openFlags {
		if f.bits != 0 && flags&f.bits == f.bits {
			b.WriteString("|" + f.name)
			flags &^= f.bits
		}
	}
	if flags != 0 {
		fmt.Fprintf(&b, "|%#x", flags)
	}
	return b.String()
}
