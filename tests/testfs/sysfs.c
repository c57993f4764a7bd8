// SPDX-License-Identifier: GPL-2.0-only
/*
 * The part of ScoutFS's sysfs tree that shows mounts and their counters:
 * /sys/fs/scoutfs/f.FSID.r.RID/{fsid,rid,counters/NAME}.
 */
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "super.h"
#include "counters.h"

static struct kset *testfs_kset;

struct testfs_attr {
	struct attribute attr;
	ssize_t (*show)(struct kobject *kobj, char *buf);
};

#define TESTFS_ATTR(_name)						\
	static struct testfs_attr _name##_attr = {			\
		.attr = { .name = #_name, .mode = 0444 },		\
		.show = _name##_show,					\
	}

static ssize_t testfs_attr_show(struct kobject *kobj, struct attribute *attr,
				char *buf)
{
	return container_of(attr, struct testfs_attr, attr)->show(kobj, buf);
}

static const struct sysfs_ops testfs_sysfs_ops = {
	.show = testfs_attr_show,
};

static ssize_t fsid_show(struct kobject *kobj, char *buf)
{
	return sprintf(buf, "%016llx\n",
		       container_of(kobj, struct scoutfs_sb_info, kobj)->fsid);
}
TESTFS_ATTR(fsid);

static ssize_t rid_show(struct kobject *kobj, char *buf)
{
	return sprintf(buf, "%016llx\n",
		       container_of(kobj, struct scoutfs_sb_info, kobj)->rid);
}
TESTFS_ATTR(rid);

static struct attribute *mount_attrs[] = {
	&fsid_attr.attr,
	&rid_attr.attr,
	NULL,
};
ATTRIBUTE_GROUPS(mount);

static void mount_kobj_release(struct kobject *kobj)
{
	complete(&container_of(kobj, struct scoutfs_sb_info, kobj)->kobj_released);
}

static struct kobj_type mount_ktype = {
	.release = mount_kobj_release,
	.sysfs_ops = &testfs_sysfs_ops,
	.default_groups = mount_groups,
};

#define TESTFS_COUNTER(_name)						\
	static ssize_t _name##_show(struct kobject *kobj, char *buf)	\
	{								\
		struct scoutfs_counters *counters =			\
			container_of(kobj, struct scoutfs_counters, kobj); \
									\
		return sprintf(buf, "%lld\n",				\
			       percpu_counter_sum(&counters->_name));	\
	}								\
	TESTFS_ATTR(_name)

TESTFS_COUNTER(notify_dropped_ring_full);
TESTFS_COUNTER(notify_emitted);
TESTFS_COUNTER(notify_reader_attached);

static struct attribute *counter_attrs[] = {
	&notify_dropped_ring_full_attr.attr,
	&notify_emitted_attr.attr,
	&notify_reader_attached_attr.attr,
	NULL,
};
ATTRIBUTE_GROUPS(counter);

static void counters_kobj_release(struct kobject *kobj)
{
	complete(&container_of(kobj, struct scoutfs_counters, kobj)->kobj_released);
}

static struct kobj_type counters_ktype = {
	.release = counters_kobj_release,
	.sysfs_ops = &testfs_sysfs_ops,
	.default_groups = counter_groups,
};

int __init testfs_sysfs_init(void)
{
	testfs_kset = kset_create_and_add("scoutfs", NULL, fs_kobj);
	return testfs_kset ? 0 : -ENOMEM;
}

void testfs_sysfs_exit(void)
{
	kset_unregister(testfs_kset);
}

int testfs_sysfs_setup(struct super_block *sb)
{
	struct scoutfs_sb_info *sbi = SCOUTFS_SB(sb);
	struct scoutfs_counters *counters;
	int ret;

	counters = kzalloc(sizeof(*counters), GFP_KERNEL);
	if (!counters)
		return -ENOMEM;

	ret = percpu_counter_init(&counters->notify_dropped_ring_full, 0, GFP_KERNEL) ?:
	      percpu_counter_init(&counters->notify_emitted, 0, GFP_KERNEL) ?:
	      percpu_counter_init(&counters->notify_reader_attached, 0, GFP_KERNEL);
	if (ret)
		goto out;

	init_completion(&sbi->kobj_released);
	sbi->kobj.kset = testfs_kset;
	ret = kobject_init_and_add(&sbi->kobj, &mount_ktype, NULL, "f.%.06x.r.%.06x",
				   (int)(sbi->fsid >> 40), (int)(sbi->rid >> 40));
	if (ret)
		goto put_mount;

	init_completion(&counters->kobj_released);
	ret = kobject_init_and_add(&counters->kobj, &counters_ktype, &sbi->kobj,
				   "counters");
	if (ret)
		goto put_counters;

	sbi->counters = counters;
	return 0;

put_counters:
	kobject_put(&counters->kobj);
put_mount:
	kobject_put(&sbi->kobj);
	wait_for_completion(&sbi->kobj_released);
out:
	percpu_counter_destroy(&counters->notify_dropped_ring_full);
	percpu_counter_destroy(&counters->notify_emitted);
	percpu_counter_destroy(&counters->notify_reader_attached);
	kfree(counters);
	return ret;
}

/* sysfs can be read until the kobjects are released: wait for that */
void testfs_sysfs_destroy(struct super_block *sb)
{
	struct scoutfs_sb_info *sbi = SCOUTFS_SB(sb);
	struct scoutfs_counters *counters = sbi->counters;

	if (!counters)
		return;

	kobject_del(&counters->kobj);
	kobject_put(&counters->kobj);
	wait_for_completion(&counters->kobj_released);

	kobject_del(&sbi->kobj);
	kobject_put(&sbi->kobj);
	wait_for_completion(&sbi->kobj_released);

	percpu_counter_destroy(&counters->notify_dropped_ring_full);
	percpu_counter_destroy(&counters->notify_emitted);
	percpu_counter_destroy(&counters->notify_reader_attached);
	kfree(counters);
	sbi->counters = NULL;
}
