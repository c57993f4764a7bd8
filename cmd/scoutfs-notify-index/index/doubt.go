// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"fmt"
	"strings"
	"time"
)

// Doubt is what a node does not know about the time since Cutoff.
type Doubt struct {
	Host    string
	Cutoff  Millis
	Since   Millis // observation began
	Told    Millis // and this far all was told
	Short   bool   // it began after Cutoff
	Behind  bool   // Told is not now; or it is later, so the clock was ahead, and nobody knows
	Gaps    []Gap  // between the two
	Lost    uint64 // accesses that were counted in the gaps
	Unknown bool   // and maybe any number besides
}

// behindBy is how far Told may be from now: an idle stream gives a sign of life more often.
const behindBy = 30 * time.Second

// IdleInterval is how often a stream must give a sign of life for an index.
const IdleInterval = 5 * time.Second

// Doubts returns what the nodes of some stores do not know about the time from cutoff to
// now.
func Doubts(views []*View, cutoff, now Millis) []Doubt {
	var out []Doubt
	for _, v := range views {
		for i := range v.Nodes {
			out = append(out, DoubtOf(&v.Nodes[i], cutoff, now))
		}
	}
	return out
}

// DoubtOf returns what a node does not know about the time from cutoff to now.
func DoubtOf(n *Node, cutoff, now Millis) Doubt {
	d := Doubt{Host: n.Host, Cutoff: cutoff, Since: n.Since, Told: n.Told}
	d.Short = n.Since == 0 || n.latest(n.Since) > cutoff
	d.Behind = n.Told < now.plus(-behindBy) || n.Told > now.plus(behindBy)
	d.Gaps, d.Lost = n.since(cutoff)
	for _, g := range d.Gaps {
		d.Unknown = d.Unknown || g.Unknown
	}
	return d
}

// Certain tells whether every access since Cutoff is known.
func (d *Doubt) Certain() bool { return !d.Short && !d.Behind && len(d.Gaps) == 0 }

// String says it for people, such as "node1: observed since 2026-01-02T03:04:05Z; 3 gaps,
// 41 lost".
func (d *Doubt) String() string {
	var b strings.Builder
	if d.Host != "" {
		fmt.Fprintf(&b, "%s: ", d.Host)
	}
	if d.Since == 0 {
		return b.String() + "not observed yet"
	}
	fmt.Fprintf(&b, "observed since %v", d.Since)
	if d.Behind {
		fmt.Fprintf(&b, ", up to %v only", d.Told)
	}
	switch n := len(d.Gaps); n {
	case 0:
		b.WriteString("; no gaps")
	case 1:
		fmt.Fprintf(&b, "; 1 gap, ended %v", d.Gaps[0].To)
	default:
		fmt.Fprintf(&b, "; %d gaps, the last ended %v", n, d.Gaps[n-1].To)
	}
	if len(d.Gaps) > 0 {
		fmt.Fprintf(&b, ", %d lost", d.Lost)
		if d.Unknown {
			b.WriteString(", and maybe any number besides")
		}
	}
	return b.String()
}
