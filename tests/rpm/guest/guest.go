// SPDX-License-Identifier: GPL-2.0-only

// Package guest holds the tests that run in a machine with systemd and the
// project's packages, and the paths that they share with the host side, tests/rpm.
// On a host they are skipped.
package guest

// Enable is the path, in the machine, of the README's commands that start the daemon
// for /mnt/scoutfs.
const Enable = "/root/enable.sh"

// Upgrade is the path, in the machine, of the next release's daemon package.
const Upgrade = "/root/upgrade.rpm"
