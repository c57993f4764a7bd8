#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The maintainer scripts of the module's deb. Each is kmod.sh, whose functions it calls,
# and this behind it. dpkg's order is another than rpm's: the old version's files and
# scripts are gone before the new one's postinst. So the old one's module goes in postrm,
# when the new one has given it a second name.
#
# To replace a version of ScoutFS by another, apt removes the old package before it unpacks
# the new one, and tells neither. So each removal leaves the second names, until a module is
# built or the package is purged.
#
# Debian's dkms has no service that builds at boot: dpkg itself goes on where it was cut,
# with dpkg --configure -a.

# shellcheck disable=SC2034 # used in kmod.sh
place=updates/dkms headers="linux-headers" again="apt reinstall" stock='' outlive=yes

# shellcheck disable=SC2154 # set above kmod.sh
case ${DPKG_MAINTSCRIPT_NAME-},${1-} in
preinst,install | preinst,upgrade) pre ;;
postinst,configure)
	post
	posttrans
	;;
# In favour of another version's package, it is removed after that is unpacked.
prerm,remove)
	if [ "${2-}" != in-favour ]; then
		pre
		preun 0
	fi
	;;
postrm,remove) preun 1 ;;
postrm,purge) rm -f /lib/modules/*/"$saved"* ;;
postrm,upgrade)
	# The same one is built again, and until then its module stays.
	[ "${2-}" = "$scoutfs-$release" ] || preun 1
	;;
esac
