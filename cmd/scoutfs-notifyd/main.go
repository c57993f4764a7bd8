// SPDX-License-Identifier: GPL-2.0-only

// Scoutfs-notifyd relays the access records of a mounted ScoutFS to clients of
// a local socket. See package daemon.
package main

import (
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/daemon"
)

// version is set by the linker: -ldflags "-X main.version=1.0".
var version string

func main() {
	os.Exit(daemon.Main(os.Args[1:], version))
}
