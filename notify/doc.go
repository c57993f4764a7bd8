// SPDX-License-Identifier: MIT OR GPL-2.0-only

// Package notify reads the access records of a mounted ScoutFS: which files
// are opened and read on this node, by whom, as it happens.
//
// [Follow] is what nearly every program wants: it connects to scoutfs-notifyd, the
// daemon that serves a mount to any number of consumers, and yields all that the daemon
// tells, over restarts of the daemon, unmounts and mounts. [Dial] gives a [Client] of one
// connection, and a [Dialer] has the options of both, such as a [Filter] that the daemon
// applies. A [Reader] attaches to the kernel itself. There is one Reader for a mount, and
// the daemon usually has it.
//
// What comes is an [Event]: a [Record] for each access, in the order in which the kernel
// made them, and besides that what the daemon says about the stream. Nothing ever waits
// for a reader: for one that falls behind, the kernel (or the daemon, for one slow
// client) drops records and goes on. The stream has a [Lost] in their place, as soon as
// the daemon knows, also if no record follows. What is missed between two connections is
// a Lost, too, which is what [Resume] is for. A [Hello] says whose records follow, an
// [End] why they end: a stream without one broke off.
//
// That is version 2 of the protocol, which scoutfs-notify(5) describes. With [Version1]
// losses show as gaps in [Record.Seq], within one connection; a Client turns these into a
// Lost, and [Gaps] counts those of others. docs/consumers.md has consumers in other
// languages.
//
// The daemon's state, for monitoring, is in a file that [ReadState] reads;
// [Dialer.Probe] asks whether it runs.
//
// The package needs Linux and no cgo.
package notify
