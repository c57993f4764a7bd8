#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# After installation and upgrade. rpm says 1 for the first installation and 2 for
# an upgrade; dpkg says "configure" and the version that was there before.
set -u

systemd-tmpfiles --create scoutfs-notifyd.conf || :

# In an image or a chroot there is no manager to talk to.
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || :
case ${1-} in
1) exit 0 ;;
configure) [ -n "${2-}" ] || exit 0 ;;
esac
# Only those that run. Clients see the end of the stream and, once they are back,
# a gap in seq if anything was missed.
systemctl try-restart 'scoutfs-notifyd@*.service' || :
