/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _SCOUTFS_COUNTERS_H_
#define _SCOUTFS_COUNTERS_H_

#include <linux/kobject.h>
#include <linux/completion.h>
#include <linux/percpu_counter.h>

#include "super.h"

struct scoutfs_counters {
	struct percpu_counter notify_dropped_ring_full;
	struct percpu_counter notify_emitted;
	struct percpu_counter notify_reader_attached;

	struct kobject kobj;
	struct completion kobj_released;
};

#define SCOUTFS_PCPU_COUNTER_BATCH (1 << 30)

#define scoutfs_inc_counter(sb, which)					\
	percpu_counter_add_batch(&SCOUTFS_SB(sb)->counters->which, 1,	\
				 SCOUTFS_PCPU_COUNTER_BATCH)

#endif
