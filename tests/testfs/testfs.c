// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for ScoutFS: an in-memory file system that daemon and command
 * take for ScoutFS, with the hooks of the series in the same places.  It
 * lets the real ring be tested without ScoutFS's source.
 *
 *	mount -t scoutfs [-o fsid=HEX] none DIR
 *
 * Nothing outlives the last unmount.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/pagemap.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/uaccess.h>

#include "super.h"
#include "ioctl.h"

#ifdef TESTFS_NOTIFY
#include "notify_ioctl.h"
#include "notify.h"
#endif

#define TESTFS_MAGIC	0x554f4353	/* SCOUTFS_SUPER_MAGIC */
#define TESTFS_ROOT_INO	1
/* inode numbers of files don't fit in 32 bits, so truncation shows */
#define TESTFS_FIRST_INO	((1ULL << 32) + 1)

/* the inode operations' first argument came in 5.12 and changed in 6.3, and in EL9 */
#ifdef TESTFS_MNT_IDMAP
#define IDMAP_DEF	struct mnt_idmap *idmap,
#define IDMAP		idmap,
#define IDMAP_NONE	&nop_mnt_idmap,
#elif defined(TESTFS_USER_NS)
#define IDMAP_DEF	struct user_namespace *idmap,
#define IDMAP		idmap,
#define IDMAP_NONE	&init_user_ns,
#else
#define IDMAP_DEF
#define IDMAP
#define IDMAP_NONE
#endif

#ifndef TESTFS_RAM_AOPS
/* nothing is ever written back */
static int testfs_set_page_dirty(struct page *page)
{
	return !TestSetPageDirty(page);
}

static const struct address_space_operations testfs_aops = {
	.readpage	= simple_readpage,
	.write_begin	= simple_write_begin,
	.write_end	= simple_write_end,
	.set_page_dirty	= testfs_set_page_dirty,
};
#else
#define testfs_aops	ram_aops
#endif

#ifndef TESTFS_COPY_SPLICE_READ
#define copy_splice_read generic_file_splice_read
#endif

static long testfs_statfs_more(struct file *file, unsigned long arg)
{
	struct scoutfs_sb_info *sbi = SCOUTFS_SB(file_inode(file)->i_sb);
	struct scoutfs_ioctl_statfs_more sfm = {
		.fsid = sbi->fsid,
		.rid = sbi->rid,
	};

	return copy_to_user((void __user *)arg, &sfm, sizeof(sfm)) ? -EFAULT : 0;
}

static struct inode *testfs_find_inode(struct super_block *sb, u64 ino)
{
	struct inode *inode, *found = NULL;

	spin_lock(&sb->s_inode_list_lock);
	list_for_each_entry(inode, &sb->s_inodes, i_sb_list) {
		if (inode->i_ino == ino) {
			found = igrab(inode);
			break;
		}
	}
	spin_unlock(&sb->s_inode_list_lock);
	return found;
}

/* one of the names is enough for the callers that there are */
static long testfs_get_referring_entries(struct file *file, unsigned long arg)
{
	struct super_block *sb = file_inode(file)->i_sb;
	struct scoutfs_ioctl_get_referring_entries gre;
	struct scoutfs_ioctl_dirent ent = {};
	struct scoutfs_ioctl_dirent __user *uent;
	struct dentry *dentry, *parent;
	struct name_snapshot name;
	struct inode *inode;
	long ret = 1;

	if (!capable(CAP_DAC_READ_SEARCH))
		return -EPERM;
	if (copy_from_user(&gre, (void __user *)arg, sizeof(gre)))
		return -EFAULT;

	inode = testfs_find_inode(sb, gre.ino);
	if (!inode)
		return 0;
	dentry = d_find_alias(inode);
	iput(inode);
	if (!dentry)
		return 0;
	if (IS_ROOT(dentry)) {
		dput(dentry);
		return 0;
	}

	take_dentry_name_snapshot(&name, dentry);
	parent = dget_parent(dentry);
	ent.dir_ino = d_inode(parent)->i_ino;
	ent.ino = gre.ino;
	ent.name_len = name.name.len;
	ent.entry_bytes = ALIGN(offsetof(struct scoutfs_ioctl_dirent, name) + name.name.len + 1, 16);
	uent = (void __user *)(unsigned long)gre.entries_ptr;
	if (ent.entry_bytes > gre.entries_bytes)
		ret = -EINVAL;
	else if (copy_to_user(uent, &ent, offsetof(struct scoutfs_ioctl_dirent, name)) ||
		 copy_to_user(uent->name, name.name.name, name.name.len) ||
		 put_user('\0', &uent->name[name.name.len]))
		ret = -EFAULT;

	release_dentry_name_snapshot(&name);
	dput(parent);
	dput(dentry);
	return ret;
}

static long testfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case SCOUTFS_IOC_STATFS_MORE:
		return testfs_statfs_more(file, arg);
	case SCOUTFS_IOC_GET_REFERRING_ENTRIES:
		return testfs_get_referring_entries(file, arg);
#ifdef TESTFS_NOTIFY
	case SCOUTFS_IOC_READ_NOTIFY:
		return scoutfs_ioc_read_notify(file, arg);
#endif
	}

	return -ENOTTY;
}

/* the lock keeps the code around the hook the same with and without it */
static ssize_t testfs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	ssize_t ret;

	inode_lock_shared(file_inode(iocb->ki_filp));
	ret = generic_file_read_iter(iocb, to);
	inode_unlock_shared(file_inode(iocb->ki_filp));

#ifdef TESTFS_NOTIFY
	scoutfs_notify_read(iocb, ret);
#endif
	return ret;
}

static const struct file_operations testfs_file_fops = {
	.owner		= THIS_MODULE,
#ifdef TESTFS_NOTIFY
	.open		= scoutfs_notify_open,
	.compat_ioctl	= scoutfs_notify_compat_ioctl,
#endif
	.read_iter	= testfs_read_iter,
	.write_iter	= generic_file_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.mmap		= generic_file_mmap,
	.fsync		= noop_fsync,
	.llseek		= generic_file_llseek,
	.unlocked_ioctl	= testfs_ioctl,
};

static const struct file_operations testfs_dir_fops = {
	.owner		= THIS_MODULE,
	.open		= dcache_dir_open,
	.release	= dcache_dir_close,
	.llseek		= dcache_dir_lseek,
	.read		= generic_read_dir,
	.iterate_shared	= dcache_readdir,
	.fsync		= noop_fsync,
	.unlocked_ioctl	= testfs_ioctl,
#ifdef TESTFS_NOTIFY
	.compat_ioctl	= scoutfs_notify_compat_ioctl,
#endif
};

static const struct inode_operations testfs_file_iops = {
	.getattr	= simple_getattr,
};

static const struct inode_operations testfs_dir_iops;

static struct inode *testfs_new_inode(struct super_block *sb, struct inode *dir,
				      umode_t mode, dev_t dev)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;

	inode->i_ino = dir ? atomic64_inc_return(&SCOUTFS_SB(sb)->next_ino) :
			     TESTFS_ROOT_INO;
	inode_init_owner(IDMAP_NONE inode, dir, mode);
	inode->i_mapping->a_ops = &testfs_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	mapping_set_unevictable(inode->i_mapping);
#ifdef TESTFS_INIT_TS
	simple_inode_init_ts(inode);
#else
	inode->i_atime = inode->i_mtime = inode->i_ctime = current_time(inode);
#endif

	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &testfs_file_iops;
		inode->i_fop = &testfs_file_fops;
		break;
	case S_IFDIR:
		inode->i_op = &testfs_dir_iops;
		inode->i_fop = &testfs_dir_fops;
		inc_nlink(inode);
		break;
	default:
		init_special_inode(inode, mode, dev);
	}

	return inode;
}

/* the extra dentry reference keeps the file: there is no other copy of it */
static int testfs_mknod(IDMAP_DEF struct inode *dir, struct dentry *dentry,
			umode_t mode, dev_t dev)
{
	struct inode *inode = testfs_new_inode(dir->i_sb, dir, mode, dev);

	if (!inode)
		return -ENOMEM;

	d_instantiate(dentry, inode);
	dget(dentry);
	return 0;
}

static int testfs_create(IDMAP_DEF struct inode *dir, struct dentry *dentry,
			 umode_t mode, bool excl)
{
	return testfs_mknod(IDMAP dir, dentry, mode | S_IFREG, 0);
}

static int testfs_mkdir(IDMAP_DEF struct inode *dir, struct dentry *dentry,
			umode_t mode)
{
	int ret = testfs_mknod(IDMAP dir, dentry, mode | S_IFDIR, 0);

	if (!ret)
		inc_nlink(dir);
	return ret;
}

static const struct inode_operations testfs_dir_iops = {
	.create		= testfs_create,
	.lookup		= simple_lookup,
	.link		= simple_link,
	.unlink		= simple_unlink,
	.mkdir		= testfs_mkdir,
	.rmdir		= simple_rmdir,
	.mknod		= testfs_mknod,
	.rename		= simple_rename,
};

static const struct super_operations testfs_super_ops = {
	.statfs		= simple_statfs,
	.drop_inode	= generic_delete_inode,
};

enum { Opt_fsid };

static const struct fs_parameter_spec testfs_params[] = {
	fsparam_string("fsid", Opt_fsid),
	{}
};

static int testfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct scoutfs_sb_info *sbi = fc->s_fs_info;
	struct fs_parse_result result;
	int opt = fs_parse(fc, testfs_params, param, &result);

	if (opt < 0)
		return opt;

	if (kstrtou64(param->string, 16, &sbi->fsid) || sbi->fsid == 0)
		return invalf(fc, "fsid isn't a hexadecimal number above 0");

	return 0;
}

static int testfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *inode;
	int ret;

	sb->s_magic = TESTFS_MAGIC;
	sb->s_op = &testfs_super_ops;
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_time_gran = 1;

	ret = testfs_sysfs_setup(sb);
	if (ret)
		return ret;

	inode = testfs_new_inode(sb, NULL, S_IFDIR | 0755, 0);
	sb->s_root = d_make_root(inode);
	return sb->s_root ? 0 : -ENOMEM;
}

static int testfs_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, testfs_fill_super);
}

static void testfs_free_fc(struct fs_context *fc)
{
	kfree(fc->s_fs_info);
}

static const struct fs_context_operations testfs_context_ops = {
	.free		= testfs_free_fc,
	.parse_param	= testfs_parse_param,
	.get_tree	= testfs_get_tree,
};

static int testfs_init_fs_context(struct fs_context *fc)
{
	struct scoutfs_sb_info *sbi = kzalloc(sizeof(*sbi), GFP_KERNEL);

	if (!sbi)
		return -ENOMEM;

	get_random_bytes(&sbi->fsid, sizeof(sbi->fsid));
	get_random_bytes(&sbi->rid, sizeof(sbi->rid));
	atomic64_set(&sbi->next_ino, TESTFS_FIRST_INO);

	fc->s_fs_info = sbi;
	fc->ops = &testfs_context_ops;
	return 0;
}

static void testfs_kill_sb(struct super_block *sb)
{
	struct scoutfs_sb_info *sbi = SCOUTFS_SB(sb);

#ifdef TESTFS_NOTIFY
	if (sbi)
		scoutfs_notify_stop(sb);
#endif
	kill_litter_super(sb);
	if (sbi) {
		testfs_sysfs_destroy(sb);
		kfree(sbi);
	}
}

static struct file_system_type testfs_type = {
	.owner		= THIS_MODULE,
	.name		= "scoutfs",
	.init_fs_context = testfs_init_fs_context,
	.parameters	= testfs_params,
	.kill_sb	= testfs_kill_sb,
};
MODULE_ALIAS_FS("scoutfs");

static int __init testfs_init(void)
{
	int ret;

	/* as ScoutFS's, which says its version here */
	asm volatile(".section .note.git_describe,\"a\"\n"
		     ".ascii \"stand-in\\n\"\n"
		     ".previous\n");

	ret = testfs_sysfs_init();
	if (ret)
		return ret;

	ret = register_filesystem(&testfs_type);
	if (ret)
		testfs_sysfs_exit();
	return ret;
}
module_init(testfs_init);

static void __exit testfs_exit(void)
{
	unregister_filesystem(&testfs_type);
	testfs_sysfs_exit();
}
module_exit(testfs_exit);

MODULE_DESCRIPTION("stand-in for ScoutFS, for scoutfs-notify's tests");
MODULE_LICENSE("GPL");
