#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Before removal. On upgrade rpm passes 1 and dpkg "upgrade": nothing to do then.
set -u

case ${1-} in
0 | remove) ;;
*) exit 0 ;;
esac
# Disabling the template disables all its instances.
systemctl --no-reload disable scoutfs-notifyd@.service || :
[ -d /run/systemd/system ] || exit 0
systemctl stop 'scoutfs-notifyd@*.service' || :
