#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Prints what the tests of all modules print, as JSON, for gotestsum. Fails if
# one of them does. Much of what they test is no file of theirs (series, scripts,
# specs), so that Go would not see it change and repeat an older result: -count=1.
set -eu

status=0
# The race detector is for the code that users run.
go test -count=1 -json -race ./... || status=$?
cd tests
# A machine keeps two cores busy: one package after the other. What is in folders
# named guest runs in the machines, not here.
packages=$(go list ./... | grep -v '/guest$')
# the list is meant to be split
# shellcheck disable=SC2086
go test -count=1 -json -p 1 -timeout 80m $packages || status=$?
exit "$status"
