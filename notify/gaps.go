// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

// Gaps counts what is missing from a stream of records. The zero value is ready
// for use; counting starts at the first sequence number it is given.
//
// To count across a reconnection or a restart of the program, keep using one
// Gaps, or start a new one by giving it the last number seen before. The count is
// exact for as long as it is the same daemon. One that was restarted attaches
// anew, which skips one number. Gaps counts that like a lost record; it stands for
// any number of accesses, or none, that were made while nobody was attached.
//
// It is not safe for concurrent use.
type Gaps struct {
	last uint64
	lost uint64
	any  bool
}

// Observe takes the next record's sequence number and returns how many numbers
// are missing right before it. ok is false if seq does not come after the last
// one, which happens only when the file system was mounted again; counting goes
// on from seq.
func (g *Gaps) Observe(seq uint64) (lost uint64, ok bool) {
	ok = true
	switch {
	case !g.any:
	case seq <= g.last:
		ok = false
	default:
		lost = seq - g.last - 1
		g.lost += lost
	}
	g.last, g.any = seq, true
	return lost, ok
}

// Last returns the last sequence number given to Observe, 0 if there was none.
func (g *Gaps) Last() uint64 { return g.last }

// Lost returns how many numbers are missing in all.
func (g *Gaps) Lost() uint64 { return g.lost }
