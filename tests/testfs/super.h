/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SCOUTFS_SUPER_H_
#define _SCOUTFS_SUPER_H_

/*
 * The fields of a mount that notify.c uses, named as in ScoutFS, and the
 * stand-in's own.
 */

#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/completion.h>
#include <linux/atomic.h>

struct scoutfs_counters;
struct scoutfs_notify_ring;

struct scoutfs_sb_info {
	u64 fsid;
	u64 rid;

	struct scoutfs_notify_ring __rcu *notify_ring;
	u64 notify_seq;

	struct scoutfs_counters *counters;

	atomic64_t next_ino;

	/* /sys/fs/scoutfs/f.FSID.r.RID; counters/ is below it */
	struct kobject kobj;
	struct completion kobj_released;
};

static inline struct scoutfs_sb_info *SCOUTFS_SB(struct super_block *sb)
{
	return sb->s_fs_info;
}

/* how trace events store a mount's ids and print the start of each */
#define SCSBF			"f.%06x.r.%06x"
#define SCSB_TRACE_FIELDS	__field(u64, fsid) __field(u64, rid)
#define SCSB_TRACE_ARGS		(u32)(__entry->fsid >> 40), (u32)(__entry->rid >> 40)

/* ScoutFS's name for this on all kernels */
#ifdef TESTFS_VMALLOC_PGPROT
#define kc__vmalloc(size, gfp)	__vmalloc(size, gfp, PAGE_KERNEL)
#else
#define kc__vmalloc		__vmalloc
#endif

int testfs_sysfs_init(void);
void testfs_sysfs_exit(void);
int testfs_sysfs_setup(struct super_block *sb);
void testfs_sysfs_destroy(struct super_block *sb);

#endif
