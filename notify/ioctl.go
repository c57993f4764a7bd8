// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

// superMagic is SCOUTFS_SUPER_MAGIC of ScoutFS's format.h, the type that
// statfs(2) returns.
const superMagic = 0x554f4353

// Encoded ioctl numbers, as those of internal/scoutfs.
const (
	// IoctlReadNotify is SCOUTFS_IOC_READ_NOTIFY: _IOWR(0xe8, 25, 32 bytes).
	IoctlReadNotify = 0xc020e819

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

// referringArgs is struct scoutfs_ioctl_get_referring_entries of ScoutFS's ioctl.h.
type referringArgs struct {
	Ino          uint64
	DirIno       uint64
	DirPos       uint64
	EntriesPtr   uint64
	EntriesBytes uint64
}
