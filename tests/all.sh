#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the tests of all modules and prints their output as JSON, for gotestsum.
# Fails if one of them fails. Go does not see changes in much of what they test
# (series, scripts, specs) and would repeat a cached result: hence -count=1.
set -eu

status=0
# The race detector is for the code that users run.
for module in . cmd/*/go.mod; do
	go -C "${module%/go.mod}" test -count=1 -json -race ./... || status=$?
done
cd tests
# One package at a time: a machine keeps two cores busy. Tests in folders named
# guest run in the machines, not here.
packages=$(go list ./... | grep -v '/guest$')
# the list is meant to be split
# shellcheck disable=SC2086
go test -count=1 -json -p 1 -timeout 80m $packages || status=$?
exit "$status"
