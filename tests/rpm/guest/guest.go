// SPDX-License-Identifier: GPL-2.0-only

// Package guest holds the tests that run in a machine with systemd and the
// project's packages, and what they and the host side, tests/rpm, agree on. On a
// host they are skipped.
package guest

// Upgrade is the daemon's package of the next release, in the machine.
const Upgrade = "/root/upgrade.rpm"
