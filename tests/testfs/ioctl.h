/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SCOUTFS_IOCTL_H_
#define _SCOUTFS_IOCTL_H_

#include <linux/types.h>
#include <linux/ioctl.h>

#define SCOUTFS_IOCTL_MAGIC 0xE8  /* arbitrarily chosen hole in ioctl-number.rst */

/* the ScoutFS ioctl by which daemon and command recognize a mount */
struct scoutfs_ioctl_statfs_more {
	__u64 fsid;
	__u64 rid;
	__u64 committed_seq;
	__u64 total_meta_blocks;
	__u64 total_data_blocks;
	__u64 reserved_meta_blocks;
};

#define SCOUTFS_IOC_STATFS_MORE \
	_IOR(SCOUTFS_IOCTL_MAGIC, 10, struct scoutfs_ioctl_statfs_more)

/* the ScoutFS ioctl by which names of inodes are found */
struct scoutfs_ioctl_get_referring_entries {
	__u64 ino;
	__u64 dir_ino;
	__u64 dir_pos;
	__u64 entries_ptr;
	__u64 entries_bytes;
};

struct scoutfs_ioctl_dirent {
	__u64 dir_ino;
	__u64 dir_pos;
	__u64 ino;
	__u16 entry_bytes;
	__u8 flags;
	__u8 d_type;
	__u8 name_len;
	__u8 name[3];
};

#define SCOUTFS_IOC_GET_REFERRING_ENTRIES \
	_IOW(SCOUTFS_IOCTL_MAGIC, 17, struct scoutfs_ioctl_get_referring_entries)

#endif
