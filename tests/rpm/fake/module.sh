#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# module DESCRIBE KERNEL [NAME]: prints a module
set -eu
out=$(mktemp -p /opt/kernels)
printf '.section .modinfo,"a"\n.asciz "git_describe=%s"\n.asciz "vermagic=%s SMP"\n.asciz "name=%s"\n.asciz "license=GPL"\n.section .data\n.fill 50000,1,7\n' \
	"$1" "$2" "${3-scoutfs}" | as -o "$out" -
cat "$out"
rm "$out"
