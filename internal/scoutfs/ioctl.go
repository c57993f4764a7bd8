// SPDX-License-Identifier: MIT OR GPL-2.0-only

// Package scoutfs has the ioctls of ScoutFS's ioctl.h that more than one package calls.
package scoutfs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Encoded ioctl numbers. They include the direction, the size and SCOUTFS_IOCTL_MAGIC
// (0xe8), so a command of another size with the same number never matches.
const (
	IocWalkInodes = 0x4048e801 // _IOW(0xe8, 1, 72 bytes), with WalkArgs
	IocStatfsMore = 0x8030e80a // _IOR(0xe8, 10, 48 bytes), with StatfsMore
)

// StatfsMore is struct scoutfs_ioctl_statfs_more.
type StatfsMore struct {
	FSID               uint64
	RID                uint64
	CommittedSeq       uint64
	TotalMetaBlocks    uint64
	TotalDataBlocks    uint64
	ReservedMetaBlocks uint64
}

// WalkEntry is struct scoutfs_ioctl_walk_inodes_entry.
type WalkEntry struct {
	Major uint64
	Ino   uint64
	Minor uint32
	_     uint32
}

// Indexes of inodes, for WalkArgs: by the transaction that last changed the inode, or its
// data, which only regular files have.
const (
	WalkMetaSeq = 0
	WalkDataSeq = 1
)

// WalkArgs is struct scoutfs_ioctl_walk_inodes.
type WalkArgs struct {
	First, Last WalkEntry
	EntriesPtr  uint64
	NrEntries   uint32
	Index       uint8
	_           [11]uint8
}

// Ioctl calls ioctl(2), again if a signal interrupts it, and returns its value.
func Ioctl(fd int, cmd uintptr, arg unsafe.Pointer) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, uintptr(arg))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
