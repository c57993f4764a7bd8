#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Makes sure that a task's Debian packages, and Go, are installed: installs the packages
# when run as root, otherwise prints the command to run. In the RHEL family it prints the
# command with the names there. On other distributions it only names them.
#
#   deps.sh PACKAGE...
set -eu

while read -r key value; do
	[ "$key" != go ] || need=${value%.*}
done <go.mod
out=$(go version 2>/dev/null) || out=
minor=${out#*go1.}
minor=${minor%%[!0-9]*}
# Newer ones than 1.20 fetch the one that go.mod asks for, or say what they lack.
if [ "${minor:-0}" -lt 21 ]; then
	echo "deps.sh: Go $need or newer is needed, from go.dev, and go is ${out:-not installed}" >&2
	exit 1
fi

# el prints the name that a Debian package has in the RHEL family, with EPEL. What only
# the tests' machines need has none: they need Debian.
el() {
	case $1 in
	rpm) echo rpm-build ;;
	createrepo-c) echo createrepo_c ;;
	libc6-dev) echo glibc-devel ;;
	libelf1) echo elfutils-libelf ;;
	libblkid-dev) echo libblkid-devel ;;
	libssl-dev) echo openssl-devel ;;
	uuid-dev) echo libuuid-devel ;;
	rustc) echo rust ;;
	shellcheck) echo ShellCheck ;;
	xxd) echo vim-common ;;
	xz-utils) echo xz ;;
	busybox-static | mmdebstrap | qemu-system-x86) ;;
	*) echo "$1" ;;
	esac
}

# A dpkg that does not list itself runs on another distribution, where these names
# mean nothing. Each tool reports by itself that it is missing.
if ! dpkg-query -W dpkg >/dev/null 2>&1; then
	if command -v dnf >/dev/null; then
		missing=
		for package in "$@"; do
			package=$(el "$package")
			if [ -n "$package" ] && ! rpm -q "$package" >/dev/null 2>&1; then
				missing="$missing $package"
			fi
		done
		[ -z "$missing" ] || echo "deps.sh: run this first, with EPEL: dnf install$missing" >&2
		exit 0
	fi
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
