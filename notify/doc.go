// SPDX-License-Identifier: GPL-2.0-only

// Package notify reads the access records of a mounted ScoutFS: which files
// are opened and read on this node, by whom, as it happens.
//
// There are two ways to get them. A [Client] connects to scoutfs-notifyd, the
// daemon that serves a mount to any number of consumers; that is what nearly
// every program wants. A [Reader] attaches to the kernel itself. There is one
// Reader for a mount, and the daemon usually has it.
//
// Both give [Record] values in the order in which the kernel made them.
// Nothing ever waits for a reader: for one that falls behind, the kernel (or the
// daemon, for one slow client) drops records and goes on, and the drop shows
// as a gap in [Record.Seq]. A Client counts gaps; [Gaps] does so for others.
//
// A stream ends when the file system is unmounted and when the daemon is
// restarted, so a consumer that is to run on reconnects; docs/consumers.md shows
// how, and has consumers in other languages.
//
// The daemon's state, for monitoring, is in a file that [ReadState] reads.
//
// The package needs Linux and no cgo.
package notify
