#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs upstream's test suite in the machine: busybox and an initramfs around a
# Debian root on the last disk. MOUNTS, QUORUM, ROOT and OPTIONS come from the
# environment.
set -eu

mkdir /root.d
mount -t ext4 -o noatime "$ROOT" /root.d
for dir in proc sys dev run tmp; do
	mkdir -p "/root.d/$dir"
	mount -o bind "/$dir" "/root.d/$dir"
done
mount -t debugfs none /root.d/sys/kernel/debug
[ ! -d /sys/kernel/tracing ] || mount -t tracefs none /root.d/sys/kernel/debug/tracing || true
mkdir -p /root.d/upstream /root.d/standin
mount -o bind /upstream /root.d/upstream
mount -o bind /standin /root.d/standin
ln -sf /proc/self/mounts /root.d/etc/mtab
# A test copies the configurations of installed kernels; the root has none.
uname -a >/root.d/boot/config-none

# No udev here: device mapper makes its own nodes.
export DM_DISABLE_UDEV=1 LC_ALL=C HOME=/root TERM=dumb
export PATH=/standin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

status=0
# OPTIONS is a list of words
# shellcheck disable=SC2086
chroot /root.d /bin/bash -c 'cd /upstream/tests && exec ./run-tests.sh "$@"' run-tests.sh \
	-M /dev/vda -D /dev/vdb -f /dev/vdc -e /dev/vdd \
	-i -m -n "$MOUNTS" -q "$QUORUM" -r /results $OPTIONS || status=$?

for log in fail.log skip.log; do
	echo "== $log"
	cat "/root.d/results/$log" || true
done
[ "$status" = 0 ] || { echo "== the end of run.log" && tail -n 40 /root.d/results/run.log; }

# All at once: the last member of a quorum waits for the others.
echo "== unmounting"
for dir in /root.d/mnt/test.*; do
	umount "$dir" 2>/dev/null &
done
wait
chroot /root.d dmsetup remove_all >/dev/null 2>&1 || true
exit "$status"
