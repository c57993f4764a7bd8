#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The scriptlets of the module's RPM, those of its deb together with kmod-deb.sh, and what
# runs when a machine boots, before DKMS. Each is this whole file, with these variables set
# above it and one of the functions called below it:
#
#   name         the package
#   scoutfs      version of ScoutFS, X.YY
#   release      release of the series, N
#
# What dkms says is not believed: what it made is looked at. The rules that all of it
# follows:
#
# - A kernel that had a module keeps it until there is another: "pre" gives each module
#   a second name, and "posttrans" moves it back where none has taken its place.
# - Nothing is refused. When "pre" fails in a swap, rpm removes the other package all
#   the same, and the node has neither.
# - A scriptlet fails when a kernel is worse off than it should be. dnf exits with 0 all
#   the same, but it names a scriptlet that fails even with -q.
#
# The order in a transaction, from rpm: the new package's pre and post, then the old
# one's preun, and everything's posttrans last. The same for an upgrade, a reinstallation
# and a swap, except that in a swap preun gets 0, as in a removal.
#
# POSIX sh, without set -e: one failure must not keep the rest from being done.

# shellcheck disable=SC2154 # set above
module=scoutfs-notify
version=$scoutfs.$release
describe=v$scoutfs-notify-$release
tree=/var/lib/dkms/$module
# The compiler's output of a failed build is kept in this followed by KERNEL.log.
kept_log=/var/log/$module-$version-
# dkms forgets a version when the last kernel that had it goes, unless its folder holds
# another one. "dkms status" takes no notice of it. dkms 3.1.5 and newer no longer do
# that for a kernel's package.
keep=$tree/$version/keep
# In a kernel's folder: the second name of its module, followed by its suffix and ~, so
# that depmod does not read it.
saved=scoutfs-notify-saved
# In a kernel's folder: where dkms puts modules.
place=extra
# In a kernel's folder: where posttrans puts a module back. It has both names then.
former=extra/scoutfs-notify-former
# The packages of kernels' headers, and the command that installs this one again.
headers="kernel-devel"
again="dnf reinstall"
stock=" For the stock module: dnf install kmod-scoutfs"
# Whether second names outlive the package.
outlive=

# shellcheck disable=SC2154 # as above
say() { echo "$name: $*"; }
more() { echo "    $*"; }

# kernels prints the installed kernels. A folder without any modules is only what an
# uninstalled kernel left behind, unless it has headers.
kernels() {
	for dir in /lib/modules/*; do
		if [ -d "$dir/kernel" ] || [ -e "$dir/build/Makefile" ]; then
			echo "${dir##*/}"
		fi
	done
}

# field prints a field of the module that kernel $1 would load.
field() { modinfo -k "$1" -F "$2" scoutfs 2>/dev/null; }

# works says whether kernel $1 has a module that can be read, whoever made it.
works() { [ -n "$(field "$1" vermagic)" ]; }

# describes says whether file $1 is this package's module, and all of it: a truncated one
# says nothing about itself.
describes() { [ "$(modinfo -F git_describe "$1" 2>/dev/null)" = "$describe" ]; }

# What depmod warns about is not of this package. Its result is looked at.
index() { [ ! -d "/lib/modules/$1/kernel" ] || depmod "$1" 2>/dev/null || :; }

# ours says whether kernel $1 would load this package's module. depmod may have been
# left out or cut short.
ours() {
	[ "$(field "$1" git_describe)" = "$describe" ] && return
	index "$1"
	[ "$(field "$1" git_describe)" = "$describe" ]
}

# others says whether another version of this module is registered: it takes over.
others() {
	for source in "$tree"/*/source; do
		case $source in
		"$tree/$version/source") ;;
		*) [ ! -e "$source/dkms.conf" ] || return 0 ;;
		esac
	done
	return 1
}

registered() { [ -e "$tree/$version/source/dkms.conf" ]; }

register() {
	if ! registered; then
		# With a version whose source is missing, dkms builds nothing.
		for source in "$tree"/*/source; do
			[ -e "$source/dkms.conf" ] || rm -rf "${source%/source}"
		done
		out=$(dkms add -m $module -v "$version" 2>&1) || {
			# It needs room in /tmp for this.
			mkdir -p "$tree/$version/build" && ln -s "/usr/src/$module-$version" "$tree/$version/source"
		}
		registered || return
	fi
	mkdir -p "$keep" && echo "dkms forgets $module/$version without this folder." >"$keep/README"
}

pre() {
	rm -f "$tree"/*/keep/reinstalled
	forget_former
	for kernel in $(kernels); do
		file=$(field "$kernel" filename) || continue
		if [ ! -f "$file" ] || ! works "$kernel"; then
			continue
		fi
		file=$(readlink -f "$file")
		suffix=.ko${file##*.ko}
		rm -f "/lib/modules/$kernel/$saved"*
		# A link needs no room.
		ln "$file" "/lib/modules/$kernel/$saved$suffix~" 2>/dev/null ||
			cp -p "$file" "/lib/modules/$kernel/$saved$suffix~" ||
			say "WARNING: the module of kernel $kernel could not be kept for the case that none can be built"
	done
	return 0
}

post() {
	# From here on the next boot builds it, whatever ends this transaction.
	if registered; then
		: >"$keep/reinstalled"
	fi
	register || :
	return 0
}

preun() { # $1: how many versions of this package stay
	# posttrans builds it again, and until then the module stays.
	if [ "$1" != 0 ] && [ -e "$keep/reinstalled" ]; then
		return 0
	fi
	had=
	for link in "$tree"/kernel-*; do
		case $(readlink "$link") in
		"$version"/*)
			kernel=${link##*/kernel-}
			had="$had ${kernel%-*}"
			;;
		esac
	done
	forget_former
	if registered; then
		# The index stays for the module that comes to the same place: dkms does not
		# notice when a cut leaves its module there without an index.
		out=$(dkms remove -m $module -v "$version" --all --no-depmod 2>&1) || :
	fi
	# It cannot without its source or without room for temporary files, and leaves what
	# nobody could remove later: a module in each kernel, and a version whose source is
	# missing, with which dkms builds nothing any more.
	for link in "$tree"/kernel-*; do
		case $(readlink "$link") in
		"$version"/*) rm -f "$link" ;;
		esac
	done
	rm -rf "${tree:?}/$version"
	rmdir "$tree/original_module" "$tree" 2>/dev/null
	for dir in /lib/modules/*; do
		kernel=${dir##*/}
		for file in "$dir/$place"/scoutfs.ko*; do
			[ -f "$file" ] || continue
			got=$(modinfo -F git_describe "$file" 2>/dev/null) || got=
			# A truncated one says nothing about itself.
			case $got,"$had " in
			"$describe",* | ,*" $kernel "*)
				rm -f "$file"
				rmdir "$dir/$place" 2>/dev/null
				index "$kernel"
				;;
			esac
		done
	done
	rm -f "$kept_log"*.log
	if [ "$1" = 0 ] && ! others; then
		for kernel in $had; do
			index "$kernel"
		done
		removed "$had"
	fi
	return 0
}

# forget_former keeps dkms from putting back, when it removes its module, one that only
# posttrans had put there.
forget_former() {
	for file in "$tree"/original_module/*/*/scoutfs.ko* "$tree"/original_module/*/*/collisions/"$place"/scoutfs.ko*; do
		[ -f "$file" ] || continue
		case $(cat "$file.origin" 2>/dev/null),$(modinfo -F git_describe "$file" 2>/dev/null) in
		*/$former/*,* | *,*-notify-*) rm -f "$file" "$file.origin" ;;
		*)
			kernel=${file#"$tree/original_module/"}
			for second in "/lib/modules/${kernel%%/*}/$saved"*; do
				! cmp -s "$file" "$second" || rm -f "$file" "$file.origin"
			done
			;;
		esac
	done
}

# removed ends the removal of the last version: without it or another package's module
# the next boot mounts nothing.
removed() {
	lacks=
	[ ! -d "$tree" ] || find "$tree" -depth -type d -empty -exec rmdir {} +
	for dir in /lib/modules/*; do
		kernel=${dir##*/}
		[ -n "$outlive" ] || rm -f "$dir/$saved"*
		if [ -d "$dir/$former" ]; then
			rm -rf "${dir:?}/$former"
			rmdir "$dir/${former%/*}" "$dir" 2>/dev/null
			index "$kernel"
		fi
		case "$1 " in
		*" $kernel "*) works "$kernel" || lacks="$lacks $kernel" ;;
		esac
	done
	# The stock package's links for other kernels may come later.
	[ -n "$lacks" ] && ! rpm -q --quiet kmod-scoutfs 2>/dev/null || return 0
	say "no ScoutFS module is left for these kernels:$lacks"
	[ ! -d /sys/module/scoutfs ] || more "The one that is loaded works until it is unloaded or the machine restarts."
	more "The next boot mounts no ScoutFS without one.$stock"
}

posttrans() {
	rm -f "$keep/reinstalled"
	rc=0
	if ! register; then
		{
			echo "$out"
			say "ERROR: dkms could not add /usr/src/$module-$version"
		} >&2
		rc=1
	else
		build_all
	fi
	report
	return $rc
}

# build_all builds for each kernel with headers, then installs for all at once: each
# dkms install may make a new initramfs.
build_all() {
	built=
	for kernel in $(kernels); do
		if [ ! -e "/lib/modules/$kernel/build/Makefile" ]; then
			say "no headers for kernel $kernel: not built for it."
			more "Install them ($headers-$kernel) and run: dkms autoinstall -k $kernel"
			if systemctl --quiet is-enabled dkms.service 2>/dev/null; then
				more "With the headers, DKMS also does that when that kernel boots."
			fi
			continue
		fi
		say "building for kernel $kernel"
		build "$kernel"
	done
	[ -n "$built" ] || return 0
	set --
	for kernel in $built; do
		set -- "$@" -k "$kernel"
		# dkms would keep it, to put it back when it removes its own.
		rm -rf "/lib/modules/$kernel/${former:?}"
	done
	out=$(dkms install -m $module -v "$version" "$@" --force 2>&1) || :
	unsigned=
	for kernel in $built; do
		if ours "$kernel"; then
			say "module built and installed for kernel $kernel"
			rm -f "/lib/modules/$kernel/$saved"*
			[ -n "$(field "$kernel" signer)" ] || unsigned="$unsigned $kernel"
			continue
		fi
		rc=1
		{
			[ -z "$out" ] || echo "$out"
			out=
			say "ERROR: KERNEL $kernel DOES NOT FIND THE MODULE THAT WAS BUILT FOR IT: $(modinfo -k "$kernel" scoutfs 2>&1 | grep -E '^(filename|git_describe)|ERROR' | paste -sd' ' -)"
			if works "$kernel"; then
				more "Another module of that name comes first in the order of depmod.d(5)."
				more "Whose is it: rpm -qf FILE. Without it: depmod $kernel"
			else
				more "Is /lib/modules full? Try again with:"
				more "dkms install $module/$version -k $kernel --force"
			fi
		} >&2
		unlink_module "$kernel"
	done
	if [ -n "$unsigned" ]; then
		say "not signed for these kernels, which with Secure Boot refuse it:$unsigned"
		more "mokutil --sb-state says whether it is on. What to do: dkms(8), mok_signing_key; then $again $name"
	fi
	if [ -d /sys/module/scoutfs ]; then
		say "a scoutfs module is loaded; the new one is used after all ScoutFS"
		more "file systems are unmounted and: modprobe -r scoutfs"
	fi
}

# build compiles for one kernel.
build() {
	status=0
	# dkms deletes it before each kernel's build and after a successful one.
	log=$tree/$version/build/make.log
	rm -f "$log"
	# With the rest of a build that was cut, it builds none. Another is made anyway.
	rm -rf "${tree:?}/$version/$1"
	out=$(dkms build -m $module -v "$version" -k "$1" --force 2>&1) || status=$?
	case $status in
	0) built="$built $1" ;;
	# dkms 2 has another number.
	77 | 9) say "ScoutFS $scoutfs does not support kernel $1: not built for it" ;;
	*)
		rc=1
		{
			kept=$kept_log$1.log
			if cp "$log" "$kept" 2>/dev/null; then
				# dkms names its own file, which the next kernel's build deletes.
				echo "$out" | sed "s|$log|$kept|"
			else
				kept=
				echo "$out"
			fi
			say "ERROR: THE MODULE WAS NOT BUILT FOR KERNEL $1 (dkms exit code $status)."
			if [ -n "$kept" ]; then
				more "Compiler output: $kept"
			else
				more "There is no compiler output; what dkms said is above."
			fi
			more "Try again with:  dkms install $module/$version -k $1"
		} >&2
		;;
	esac
}

# unlink_module takes away what dkms installed for kernel $1 and does not work, so that
# its next autoinstall tries again.
unlink_module() {
	for file in "/lib/modules/$1/$place"/scoutfs.ko*; do
		[ -z "$(modinfo -F vermagic "$file" 2>/dev/null)" ] || return 0
		rm -f "$file"
	done
	for link in "$tree/kernel-$1"-*; do
		case $(readlink "$link") in
		"$version"/*) rm -f "$link" ;;
		esac
	done
}

# restore gives kernel $1 back the module that it had, if no other has taken its place.
# It fails while the kernel has that one, whose file is $restored.
restore() {
	dir=/lib/modules/$1
	for file in "$dir/$saved"*; do
		[ -f "$file" ] || continue
		suffix=${file##*/"$saved"}
		if ! works "$1"; then
			mkdir -p "$dir/$former"
			restored=$dir/$former/scoutfs${suffix%\~}
			ln -f "$file" "$restored" || mv "$file" "$restored"
			index "$1"
		elif [ ! -d "$dir/$former" ]; then
			rm -f "$file"
		fi
	done
	for restored in "$dir/$former"/scoutfs.ko*; do
		[ ! -f "$restored" ] || return 1
	done
	return 0
}

# heal makes good for kernel $1, before dkms looks at it, what a loss of power left: dkms
# takes the rest of a build for a module, and a link of its own for an installed one.
heal() {
	# rpm may not have unpacked all of it before post.
	if registered; then
		for file in "$tree/$version/$1"/*/module/scoutfs.ko*; do
			describes "$file" || rm -rf "${tree:?}/$version/$1"
		done
		for file in "/lib/modules/$1/$place"/scoutfs.ko*; do
			describes "$file" || unlink_module "$1"
		done
	fi
	works "$1" || index "$1"
	restore "$1" || say "kernel $1 keeps the module that it had until there is another"
}

# report puts back what no module has taken the place of, and says what is missing.
report() {
	running=$(uname -r)
	all=$(kernels)
	some=
	for kernel in $all; do
		works "$kernel" || index "$kernel"
		restore "$kernel" || {
			rc=1
			say "ERROR: KERNEL $kernel KEEPS THE MODULE THAT IT HAD, $(modinfo -F git_describe "$restored"): $describe was not built, see above" >&2
			works "$kernel" || more "It cannot load it: make room in /lib/modules, then: depmod $kernel" >&2
		}
		if works "$kernel"; then
			some=yes
		elif [ "$kernel" = "$running" ]; then
			rc=1
			say "ERROR: KERNEL $kernel, WHICH RUNS, HAS NO SCOUTFS MODULE, see above" >&2
		fi
	done
	if [ -z "$all" ]; then
		say "there is no kernel here: DKMS builds the module when one is installed with its headers"
	elif [ -z "$some" ]; then
		rc=1
		say "ERROR: NO KERNEL HAS A SCOUTFS MODULE, see above" >&2
	fi
}
