#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# add KERNEL: what a kernel's package and its headers' install
set -eu
dir=/lib/modules/$1 headers=/usr/src/kernels/$1
mkdir -p "$dir/kernel" "$headers/include"
cat > "$headers/Makefile" <<'MAKE'
modules:
	@[ ! -e /usr/src/kernels/$(KERNELRELEASE)/broken ] || { echo broken on purpose; exit 1; }
	@/opt/kernels/module $(SCOUTFS_GIT_DESCRIBE) $(KERNELRELEASE) > $(M)/scoutfs.ko
clean:
	@true
MAKE
: > "$headers/.config"
/opt/kernels/module none "$1" other > "$dir/kernel/other.ko"
: > "$dir/modules.order"
: > "$dir/modules.builtin"
: > "$dir/modules.builtin.modinfo"
ln -s "$headers" "$dir/build"
depmod "$1"
