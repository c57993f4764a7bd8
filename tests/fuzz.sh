#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs every fuzz test of the module in the current folder for a while.
#
#   fuzz.sh TIME
set -eu

for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "== $package $target"
		go test -run='^$' -fuzz="^$target\$" -fuzztime="$1" "$package"
	done
done
