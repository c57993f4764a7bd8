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

// EnvLife is the variable with the rounds of the tests of the daemon's life.
const EnvLife = "LIFE"

// EnvHeld is the variable with the rounds that held in an earlier machine, as Held has
// them, separated by spaces.
const EnvHeld = "LIFE_HELD"

// Held is what the line of a round that held begins with. The test's name, "=" and the
// number of rounds follow.
const Held = "guest: rounds held: "

// EnvFS is the variable that is ScoutFS if the module is the real one.
const (
	EnvFS   = "FS"
	ScoutFS = "scoutfs"
)

// MountHangs is what the tests print when mount(2) of real ScoutFS does not return, as
// in tests/guest.
const MountHangs = "guest: mount(2) of ScoutFS does not return"
