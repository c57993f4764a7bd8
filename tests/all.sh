#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Prints what the tests of all modules print, as JSON, for gotestsum. Fails if
# one of them does.
set -eu

status=0
# The race detector is for the code that users run.
go test -json -race ./... || status=$?
(cd tools && go test -json ./...) || status=$?
cd tests
# A machine keeps two cores busy: one package after the other. What is in folders
# named guest runs in the machines, not here.
packages=$(go list ./... | grep -v '/guest$')
# the list is meant to be split
# shellcheck disable=SC2086
go test -json -p 1 -timeout 80m $packages || status=$?
exit "$status"
