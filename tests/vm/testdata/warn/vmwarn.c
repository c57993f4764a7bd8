// SPDX-License-Identifier: GPL-2.0-only
/* A module whose kernel complains when it is loaded and goes on. */
#include <linux/module.h>

static int __init vmwarn_init(void)
{
	WARN(1, "on purpose");
	return 0;
}

static void __exit vmwarn_exit(void)
{
}

module_init(vmwarn_init);
module_exit(vmwarn_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("warns when it is loaded");
