#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# After installation and upgrade. rpm passes 1 for the first installation and 2 for
# an upgrade; dpkg passes "configure" and the version it replaces, if any.
set -u

systemd-tmpfiles --create scoutfs-notifyd.conf || :

case ${1-},${2-} in
configure,)
	echo "scoutfs-notifyd: it serves a mounted ScoutFS whose module has notify support. Its"
	echo "    packages are scoutfs-notify-kmod-vX.YY: debs for Debian 11's kernel, 5.10, and"
	echo "    RPMs for kernels of the RHEL family."
	;;
esac

# In an image or a chroot there is no manager to talk to.
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || :
case ${1-} in
1) exit 0 ;;
configure) [ -n "${2-}" ] || exit 0 ;;
esac
# Only running instances. Clients see the end of the stream and, after they
# reconnect, a gap in seq if they missed anything. Without their dependencies: one that
# waits must not mount its file system.
systemctl --job-mode=ignore-dependencies try-restart 'scoutfs-notifyd@*.service' 'scoutfs-notify-index@*.service' || :
