#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Makes a DKMS source tree from patched ScoutFS source.
#
#   stage.sh TREE DEST X.YY N DKMS_CONF KERNELS
#
# TREE       patched ScoutFS source (holds kmod/src)
# DEST       folder to make, normally scoutfs-notify-X.YY.N
# X.YY, N    ScoutFS version and release of the series
# DKMS_CONF  dkms.conf of this folder
# KERNELS    file with a regular expression of the kernel releases to build for
#
# make kmod and the spec's install section share it, so what developers try is
# what the package holds. POSIX sh: on Debian, rpmbuild runs it with dash.
set -eu

if [ $# -ne 6 ]; then
	echo "usage: stage.sh TREE DEST X.YY N DKMS_CONF KERNELS" >&2
	exit 2
fi
tree=$1 dest=$2 version=$3 release=$4 conf=$5 kernels=$6

if [ ! -f "$tree/kmod/src/Makefile" ]; then
	echo "stage.sh: $tree is not ScoutFS source: it has no kmod/src/Makefile" >&2
	exit 1
fi
if [ -e "$dest" ]; then
	echo "stage.sh: $dest already exists" >&2
	exit 1
fi

mkdir -p "$dest"
cp -R "$tree/kmod/src/." "$dest/"
# ScoutFS looks for interfaces in the headers of the folder in which make runs. Debian has a
# kernel's headers in two folders, and these are in the other one.
if [ -f "$dest/Makefile.kernelcompat" ]; then
	# shellcheck disable=SC2016 # make expands it
	sed -i 's| include/| $(srctree)/include/|' "$dest/Makefile.kernelcompat"
fi
# rpm's patch leaves these behind when a hunk needed an offset
find "$dest" -name '*.orig' -delete
{
	echo "PACKAGE_VERSION=\"$version.$release\""
	echo "BUILD_EXCLUSIVE_KERNEL=\"$(cat "$kernels")\""
	echo "describe=\"v$version-notify-$release\""
	echo
	cat "$conf"
} > "$dest/dkms.conf"
chmod -R u=rwX,go=rX "$dest"
