// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// superMagic is SCOUTFS_SUPER_MAGIC of ScoutFS's format.h, the type that
// statfs(2) returns.
const superMagic = 0x554f4353

// Encoded ioctl numbers. They include the direction, the size and
// SCOUTFS_IOCTL_MAGIC (0xe8), so a command of another size with the same number
// never matches.
const (
	// IoctlReadNotify is SCOUTFS_IOC_READ_NOTIFY: _IOWR(0xe8, 25, 32 bytes).
	IoctlReadNotify = 0xc020e819

	// iocStatfsMore is SCOUTFS_IOC_STATFS_MORE: _IOR(0xe8, 10, 48 bytes).
	iocStatfsMore = 0x8030e80a

	// iocWalkInodes is SCOUTFS_IOC_WALK_INODES: _IOW(0xe8, 1, 72 bytes).
	iocWalkInodes = 0x4048e801

	// iocGetReferringEntries is SCOUTFS_IOC_GET_REFERRING_ENTRIES: _IOW(0xe8, 17, 40
	// bytes).
	iocGetReferringEntries = 0x4028e811
)

// readNotifyArgs is struct scoutfs_ioctl_read_notify of the series'
// notify_ioctl.h.
type readNotifyArgs struct {
	RecordsPtr uint64
	RecordsNr  uint32
	Flags      uint32
	Dropped    uint64
	Reserved   uint64
}

// statfsMore is struct scoutfs_ioctl_statfs_more of ScoutFS's ioctl.h.
type statfsMore struct {
	FSID               uint64
	RID                uint64
	CommittedSeq       uint64
	TotalMetaBlocks    uint64
	TotalDataBlocks    uint64
	ReservedMetaBlocks uint64
}

// referringArgs is struct scoutfs_ioctl_get_referring_entries of ScoutFS's ioctl.h.
type referringArgs struct {
	Ino          uint64
	DirIno       uint64
	DirPos       uint64
	EntriesPtr   uint64
	EntriesBytes uint64
}

// walkEntry is struct scoutfs_ioctl_walk_inodes_entry of ScoutFS's ioctl.h.
type walkEntry struct {
	Major uint64
	Ino   uint64
	Minor uint32
	_     uint32
}

// walkArgs is struct scoutfs_ioctl_walk_inodes of ScoutFS's ioctl.h. An index of 0 is
// that by meta_seq.
type walkArgs struct {
	First, Last walkEntry
	EntriesPtr  uint64
	NrEntries   uint32
	Index       uint8
	_           [11]uint8
}

// ioctl calls ioctl(2), again if a signal interrupts it, and returns its value.
func ioctl(fd int, cmd uintptr, arg unsafe.Pointer) (int, error) {
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
