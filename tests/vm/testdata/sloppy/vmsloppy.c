// SPDX-License-Identifier: GPL-2.0-only
/* A module that compiles with a warning. */
#include <linux/module.h>

static int vmsloppy_unused_function(void)
{
	return 0;
}

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("compiles with a warning");
