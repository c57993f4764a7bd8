// SPDX-License-Identifier: GPL-2.0-only

// Package index keeps, for each inode of a ScoutFS, when and by whom it was last
// accessed on a node, and what of that is not known.
//
// A store is a folder. One process, a [Store], writes it; any number of others look at it
// meanwhile, each through a [View]. Its files are:
//
//   - manifest: which of the other files count, and the [Node]s: how far the stream was
//     taken, what was missed, and how the clock went. Replaced as a whole.
//   - journal-N: the events since the last flush, in the order of the stream.
//   - seg-N: inodes with what happened to them in some stretch of time, sorted by number.
//     Never changed, only merged into others.
//   - lock: held by the Store.
//
// What is in the journal survives the end of the process, and when it is flushed, the
// machine's. Every file has checksums. What was received and is in no file was not
// received: the place in the stream that the daemon is asked to go on from is the one
// that the files have got to, and the daemon tells the rest as a loss.
package index
