#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Before removal. On upgrade rpm passes 1 and dpkg "upgrade": nothing to do then.
set -u

case ${1-} in
# Disabling the template disables all its instances.
0) systemctl --no-reload disable scoutfs-notifyd@.service scoutfs-notify-index@.service || : ;;
# dpkg keeps what is enabled until the package is purged.
remove) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl stop 'scoutfs-notify-index@*.service' 'scoutfs-notifyd@*.service' || :
