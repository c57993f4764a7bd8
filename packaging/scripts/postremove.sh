#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# After removal. On upgrade rpm passes 1 and dpkg "upgrade": nothing to do then.
set -u

case ${1-} in
0 | remove | purge) ;;
*) exit 0 ;;
esac
# Daemons leave these folders for the next one, and tmpfiles makes the hidden one, in which
# scoutfs-notify-index leaves its metrics if it is killed. Files of others stay.
rm -f /run/scoutfs/.node_exporter/index-*.prom*
for dir in /run/scoutfs/* /run/scoutfs/.node_exporter /run/scoutfs; do
	if [ -d "$dir" ]; then
		rmdir --ignore-fail-on-non-empty "$dir" || :
	fi
done
if [ "$1" = purge ]; then
	for link in /etc/systemd/system/*.wants/scoutfs-notifyd@*.service \
		/etc/systemd/system/*.wants/scoutfs-notify-index@*.service; do
		if [ -L "$link" ]; then
			rm -f "$link"
			rmdir --ignore-fail-on-non-empty "${link%/*}" || :
		fi
	done
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || :
