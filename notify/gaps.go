// SPDX-License-Identifier: GPL-2.0-only

package notify

// Gaps finds what is missing from a stream of records. The zero value has seen
// nothing: the first sequence number it is given is where it starts.
//
// To count over a reconnection or a restart of the program as well, keep one
// Gaps, or start a new one by giving it the last number seen before. That counts
// exactly as long as the daemon is the same. A reader that attaches in between
// (the daemon was restarted) skips one number, which Gaps counts like a lost
// record; it stands for however many accesses there were while nobody was
// attached, which can be none.
//
// It is not safe for concurrent use.
type Gaps struct {
	last uint64
	lost uint64
	any  bool
}

// Observe takes the next record's sequence number and returns how many numbers
// are missing right before it. ok is false if seq does not come after the last
// one, which happens only when the file system was mounted anew; counting goes
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
