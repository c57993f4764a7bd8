// SPDX-License-Identifier: GPL-2.0-only

// Package guest holds the tests that run in a machine with systemd and the
// project's packages, and what they and the host side, tests/rpm, agree on. On a
// host they are skipped.
package guest

// Enable is the script, in the machine, with which the README starts the daemon for
// what is mounted at /mnt/scoutfs.
const Enable = "/root/enable.sh"

// Upgrade is the daemon's package of the next release, in the machine.
const Upgrade = "/root/upgrade.rpm"
