# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Completion of scoutfs-notify and scoutfs-notify-index in bash 4.4 or newer. The programs
# know what there is to complete: see Completion in internal/cli.

_scoutfs_notify() {
	local typed also word
	# The word without its backslashes; what is between quotes has none.
	# shellcheck disable=SC2162
	IFS= read -d '' typed <<<"$2"
	typed=${typed%$'\n'}
	COMPREPLY=()
	{
		IFS= read -r -d '' also
		while IFS= read -r -d '' word && IFS= read -r -d '' _; do
			[[ $word == "$2"* || $word == "$typed"* ]] || continue
			# Bash quotes $ and ` in names that exist alone.
			[[ $also != files || -e $word ]] || continue
			COMPREPLY+=("$word")
		done
	} < <("$1" complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	case $also in
	files) compopt -o filenames -o default ;;
	directories) compopt -o dirnames ;;
	users) mapfile -t COMPREPLY < <(compgen -u -- "$typed") ;;
	esac
}
complete -F _scoutfs_notify scoutfs-notify scoutfs-notify-index
