#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Applies the series that matches a ScoutFS checkout's release tag, with
# git am --3way. The checkout does not change unless every patch applies.
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

case $#,${1-} in
1,-h | 1,--help) usage && exit 0 ;;
1,*) version='' checkout=$1 ;;
2,*) version=$1 checkout=$2 ;;
*) usage >&2 && exit 2 ;;
esac

# A git hook of another repository may have set these. GIT_CONFIG* stay: users pass
# settings in them.
# shellcheck disable=SC2046
unset $(git rev-parse --local-env-vars | grep -v CONFIG) GIT_NAMESPACE GIT_QUARANTINE_PATH
export LC_ALL=C

self=$(readlink -f -- "$0") || self=$0
patches=${self%/*}/patches
[ -d "$patches" ] ||
	die "there is no folder patches beside $self. Run apply.sh where it is, or through a symbolic link."

# The releases, oldest first. internal/series has the same rules in Go; a test compares
# the two.
supported=
for v in $(cd "$patches" && printf '%s\n' v[0-9]* | sort -V); do
	[ -e "$patches/$v" ] || die "$patches has no folder named vX.YY."
	echo "$v" | grep -qxE 'v(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})' ||
		die "$patches/$v: ScoutFS's releases are named vX.YY: rename or remove it."
	base=$(cat "$patches/$v/base.txt") || die "$patches/$v is not a series."
	[ "$base" = "$v" ] || die "$patches/$v/base.txt holds '$base': it must hold the folder's name."
	n=0
	for patch in "$patches/$v/"*.patch; do
		[ -e "$patch" ] || die "$patches/$v holds no *.patch."
		n=$((n + 1))
		case ${patch##*/} in
		"$(printf %04d- $n)"*) ;;
		*) die "$patch: its name must start with $(printf %04d- $n)." ;;
		esac
	done
	supported="$supported $v"
done

[ -d "$checkout" ] || die "$checkout is not a directory."
if ! root=$(git -C "$checkout" rev-parse --show-toplevel 2>/dev/null); then
	trust=$(git -C "$checkout" rev-parse --show-toplevel 2>&1 | sed -n 's/^[[:space:]]*\(git config .*safe\.directory.*\)/\1/p')
	[ -z "$trust" ] ||
		die "git refuses to work in $checkout: another user owns it. If you trust it: $trust"
	die "$checkout is not a git work tree. Name a checkout of ScoutFS made with git clone."
fi
# No hook runs: the user's are for commits of the user's own.
in_root() { git -C "$root" -c core.hooksPath=/dev/null "$@"; }
head=$(in_root rev-parse --verify --quiet 'HEAD^{commit}') ||
	die "$root has no commit yet. Name a checkout of ScoutFS."
for op in rebase-apply rebase-merge MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
	[ ! -e "$(in_root rev-parse --absolute-git-dir)/$op" ] ||
		die "$root is in the middle of an am, rebase, merge, cherry-pick or revert. Finish or abort it first."
done
! in_root cat-file -e "$head:kmod/src/notify_ioctl.h" 2>/dev/null ||
	die "$root is already patched: its HEAD has kmod/src/notify_ioctl.h. To start over: git -C '$root' checkout TAG"
[ -z "$(in_root status --porcelain --untracked-files=no)" ] ||
	die "$root is dirty: it has changes that are not committed. Commit or stash them first (git -C '$root' status)."

# The series is the one whose tag is at HEAD.
at_head() { [ "$(in_root rev-parse --verify --quiet "refs/tags/$1^{commit}")" = "$head" ]; }
if [ -n "$version" ]; then
	case " $supported " in
	*" $version "*) ;;
	*) die "there is no series for $version. The supported releases are$supported." ;;
	esac
	in_root rev-parse --verify --quiet "refs/tags/$version" >/dev/null ||
		die "$root has no tag $version. Fetch it: git -C '$root' fetch --tags"
	at_head "$version" ||
		die "$root has the wrong base: HEAD is $(in_root describe --tags --always), the series is for $version. Check it out: git -C '$root' checkout $version"
else
	for v in $supported; do
		! at_head "$v" || version=$v
	done
	[ -n "$version" ] ||
		die "$root is at no supported release: HEAD is $(in_root describe --tags --always). Check out the tag of one:$supported."
fi

# The patches are applied in a work tree beside the checkout, which moves to the result.
tmp=$(mktemp -d)
trap 'in_root worktree remove --force "$tmp/tree" >/dev/null 2>&1 || :; rm -rf "$tmp"; in_root worktree prune' EXIT
# The signal can come while standard error goes to the log.
exec 3>&2
trap 'die "stopped. The checkout is as it was." 2>&3' HUP INT TERM
in_tree() { git -C "$tmp/tree" -c core.hooksPath=/dev/null -c core.autocrlf=false -c rerere.enabled=false "$@"; }

# git am asks for a committer, which a build machine may not have.
in_root var GIT_COMMITTER_IDENT >/dev/null 2>&1 ||
	export GIT_COMMITTER_NAME=scoutfs-notify GIT_COMMITTER_EMAIL=scoutfs-notify@localhost

in_root -c core.autocrlf=false worktree add --quiet --detach "$tmp/tree" "$head"
set -- "$patches/$version/"*.patch
if ! in_tree am --3way --no-gpg-sign --whitespace=nowarn "$@" >"$tmp/log" 2>&1; then
	echo "apply.sh: git am --3way said:" >&2
	sed '/^hint:/d; /^When you have/,$d; s/^/  /' "$tmp/log" >&2
	shift $(($(cat "$(in_tree rev-parse --git-path rebase-apply/next)") - 1))
	where=$(in_tree grep -n '^<<<<<<< ' | sed 's/:<<<.*//' | paste -sd' ' -)
	# Without conflicts git has not said where.
	[ -n "$where" ] || in_tree apply --check "$1" 2>&1 | sed 's/^/  /' >&2
	die "${1##*/} does not apply to $root${where:+, conflicts at $where}." \
		"Is its $version upstream's own? A release without a series needs make rebase: docs/rebasing.md." \
		"The checkout is as it was."
fi
trap '' HUP INT TERM
in_root merge --quiet --ff-only "$(in_tree rev-parse HEAD)" ||
	die "$version with the patches cannot be checked out in $root, see what git says above. The checkout is as it was."
echo "$root: $version with $# patches of scoutfs-notify, HEAD is now $(in_root rev-parse --short HEAD)"
