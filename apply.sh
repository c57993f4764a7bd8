#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Applies the series that matches a ScoutFS checkout's release tag, with
# git am --3way. On failure the checkout is left as it was.
#
#   apply.sh [VERSION] CHECKOUT
set -eu

die() {
	echo "apply.sh: $*" >&2
	exit 1
}

usage() {
	echo "usage: apply.sh [VERSION] CHECKOUT"
	echo "CHECKOUT is a clone of ScoutFS with the tag of a supported release checked out."
	echo "VERSION, such as v1.30, names that release; without it the tag at HEAD does."
}

case ${1-} in
-h | --help)
	usage
	exit 0
	;;
esac
case $# in
1) version='' checkout=$1 ;;
2) version=$1 checkout=$2 ;;
*)
	usage >&2
	exit 2
	;;
esac

# A hook of another repository may have set these. GIT_CONFIG_* stay: they are
# how a user passes settings.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_COMMON_DIR GIT_NAMESPACE \
	GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_QUARANTINE_PATH \
	GIT_SHALLOW_FILE GIT_GRAFT_FILE GIT_REPLACE_REF_BASE GIT_NO_REPLACE_OBJECTS \
	GIT_IMPLICIT_WORK_TREE GIT_INTERNAL_SUPER_PREFIX
export LC_ALL=C # its messages are read below
self=$(readlink -f -- "$0") || self=$0
patches=$(CDPATH='' cd -- "$(dirname -- "$self")/patches" 2>/dev/null && pwd) ||
	die "there is no folder patches beside $self. Run apply.sh where it is, or through a symbolic link."
supported=$(cd "$patches" && for d in v*/base.txt; do printf '%s ' "${d%/*}"; done)
supported=${supported% }

# The checkout must be one that the series can be put on and taken off again.
[ -d "$checkout" ] || die "$checkout is no directory."
if ! root=$(git -C "$checkout" rev-parse --show-toplevel 2>/dev/null); then
	trust=$(git -C "$checkout" rev-parse --show-toplevel 2>&1 | sed -n 's/^[[:space:]]*\(git config .*safe\.directory.*\)/\1/p')
	[ -z "$trust" ] ||
		die "git refuses to work in $checkout: another user owns it. If you trust it: $trust"
	die "$checkout is no git work tree. Name a checkout of ScoutFS made with git clone."
fi
in_root() { git -C "$root" "$@"; }
head=$(in_root rev-parse --verify --quiet 'HEAD^{commit}') ||
	die "$root has no commit yet. Name a checkout of ScoutFS."
gitdir=$(in_root rev-parse --absolute-git-dir)
for op in rebase-apply rebase-merge MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
	[ ! -e "$gitdir/$op" ] ||
		die "$root is in the middle of an am, rebase, merge, cherry-pick or revert. Finish or abort it first."
done
if in_root cat-file -e "$head:kmod/src/notify_ioctl.h" 2>/dev/null; then
	die "$root is already patched: its HEAD has kmod/src/notify_ioctl.h. To start over: git -C '$root' checkout TAG"
fi
[ -z "$(in_root status --porcelain --untracked-files=no)" ] ||
	die "$root is dirty: it has changes that are not committed. Commit or stash them first (git -C '$root' status)."

# The series is the one whose base tag is HEAD.
tag_commit() { in_root rev-parse --verify --quiet "refs/tags/$1^{commit}"; }
if [ -n "$version" ]; then
	case " $supported " in
	*" $version "*) ;;
	*) die "there is no series for $version. Supported: $supported." ;;
	esac
	base=$(cat "$patches/$version/base.txt")
	want=$(tag_commit "$base") ||
		die "$root has no tag $base. Fetch it: git -C '$root' fetch --tags"
	[ "$want" = "$head" ] ||
		die "$root has the wrong base: HEAD is $(in_root describe --tags --always), the series is for $base. Check it out: git -C '$root' checkout $base"
else
	for v in $supported; do
		base=$(cat "$patches/$v/base.txt")
		if [ "$(tag_commit "$base")" = "$head" ]; then
			version=$v
		fi
	done
	[ -n "$version" ] ||
		die "$root is at no supported release: HEAD is $(in_root describe --tags --always). Check out the tag of one: $supported."
fi

# One git am takes all patches, so that its abort takes back all of them.
# The reset is for one that was stopped before it started or after it ended.
put_back() {
	in_root am --abort >"$log" 2>&1 || {
		in_root am --quit >/dev/null 2>&1 || :
		in_root reset --hard "$head" >"$log" 2>&1 || :
	}
	if [ "$(in_root rev-parse HEAD)" = "$head" ] && [ ! -e "$gitdir/rebase-apply" ] &&
		[ -z "$(in_root status --porcelain --untracked-files=no)" ]; then
		restored=yes
	else
		echo "apply.sh: git could not put the checkout back, it said:" >&2
		sed '/^hint:/d; s/^/  /' "$log" >&2
	fi
	settled=yes
}
outcome() {
	if [ -n "$restored" ]; then
		echo "The checkout is as it was."
	else
		echo "The checkout is NOT as it was. See to what git says above, then: git -C '$root' am --quit; git -C '$root' reset --hard $head"
	fi
}
stopped() {
	put_back
	echo "apply.sh: stopped. $(outcome)" >&2
}
settled='' restored=''
log=$(mktemp)
trap '[ -n "$settled" ] || stopped; rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM

# git am asks for a committer, which a build machine may not have.
in_root var GIT_COMMITTER_IDENT >/dev/null 2>&1 ||
	export GIT_COMMITTER_NAME=scoutfs-notify GIT_COMMITTER_EMAIL=scoutfs-notify@localhost

set -- "$patches/$version/"*.patch
if ! in_root -c rerere.enabled=false am --3way --no-gpg-sign --whitespace=nowarn "$@" >"$log" 2>&1; then
	echo "apply.sh: git am --3way said:" >&2
	sed '/^hint:/d; /^When you have/,$d; s/^/  /' "$log" >&2
	n=$(cat "$gitdir/rebase-apply/next" 2>/dev/null || echo 1)
	conflicts=$(in_root diff --name-only --diff-filter=U)
	merged=yes
	! grep -q 'lacks necessary blobs' "$log" || merged=
	put_back
	shift $((n - 1))
	# No file is in two patches, so what fails here failed there, except in the
	# files that git could merge.
	where=$(in_root apply --check "$1" 2>&1 | while IFS= read -r line; do
		case $line in
		'error: patch failed: '*)
			at=${line#error: patch failed: }
			if [ -z "$merged" ] || printf '%s\n' "$conflicts" | grep -qxF -- "${at%:*}"; then
				printf ', hunk at %s' "$at"
			fi
			;;
		*': already exists'* | *': No such file or directory') printf ', %s' "${line#error: }" ;;
		esac
	done)
	die "$(basename "$1") does not apply to $root$where." \
		"Is its $version upstream's own, and are there no files of yours in the way?" \
		"A release without a series needs make rebase: docs/rebasing.md. $(outcome)"
fi
settled=yes
echo "$root: $version with $# patches of scoutfs-notify, HEAD is now $(in_root rev-parse --short HEAD)"
