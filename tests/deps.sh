#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Makes sure that a task's Debian packages are installed: installs them when run as
# root, otherwise prints the command to run. On other distributions it only names
# them.
#
#   deps.sh PACKAGE...
set -eu

# A dpkg that does not list itself runs on another distribution, where these names
# mean nothing. Each tool reports by itself that it is missing.
if ! dpkg-query -W dpkg >/dev/null 2>&1; then
	echo "deps.sh: this is not Debian, so nothing is installed. Needed, by Debian's names: $*" >&2
	exit 0
fi

missing=
for package in "$@"; do
	status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) || status=
	[ "$status" = 'install ok installed' ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -ne 0 ]; then
	echo "deps.sh: run this first: sudo sh -c 'apt-get update && $install'" >&2
	exit 1
fi
echo "deps.sh: installing$missing" >&2
apt-get update -q >&2
# the list is meant to be split
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
