// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify-index/index"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const statAbout = `Shows what a store has, how large it is, and what it has missed. With -from no
MOUNT is needed.
`

// storeStatus is what stat -json prints of a store.
type storeStatus struct {
	Dir      string          `json:"dir"`
	FSID     notify.ID       `json:"fsid"`
	Segments []index.Segment `json:"segments"`
	Recent   int             `json:"recent_inodes"` // not in segments yet
	Bytes    int64           `json:"bytes"`
	Nodes    []nodeStatus    `json:"nodes"`

	Kept     index.Kept     `json:"kept"`
	Vacuumed index.Vacuumed `json:"vacuumed"`
}

type nodeStatus struct {
	index.Node
	Rate float64 `json:"records_per_second"` // since observation began
}

func runStat(ctx context.Context, env *environment, args []string) error {
	var s stores
	var asJSON bool
	gaps := 10
	flags := flag.NewFlagSet("stat", flag.ContinueOnError)
	s.flags(flags)
	flags.Var(cli.Int(&gaps, 0, 1<<30), "gaps", "list the last `count` gaps of each node")
	flags.BoolVar(&asJSON, "json", false, "print a JSON object for each store, with all gaps")
	rest, err := env.program.Parse(flags, "MOUNT", statAbout, args)
	if err != nil {
		return err
	}
	var views []*index.View
	if len(rest) == 0 && len(s.from) > 0 {
		views, err = openViews(s.from, 0)
	} else {
		var mount string
		if mount, err = cli.MountPoint(rest); err != nil {
			return cli.Usagef("stat", "%w", err)
		}
		views, err = s.open(ctx, env, mount)
	}
	if err != nil {
		return err
	}
	defer closeViews(views)
	now := index.MillisOf(env.now())
	for _, v := range views {
		st := statusOf(v)
		if asJSON {
			err = json.NewEncoder(env.stdout).Encode(st)
		} else {
			_, err = fmt.Fprint(env.stdout, st.text(now, gaps))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func statusOf(v *index.View) *storeStatus {
	st := &storeStatus{Dir: v.Dir, FSID: v.FSID, Segments: v.Segments(), Recent: v.Recent(), Kept: v.Kept, Vacuumed: v.Vacuumed}
	for _, s := range st.Segments {
		st.Bytes += s.Size
	}
	for _, n := range v.Nodes {
		ns := nodeStatus{Node: n}
		if d := n.Told.Time().Sub(n.Since.Time()); d > 0 {
			ns.Rate = float64(n.Records) / d.Seconds()
		}
		st.Nodes = append(st.Nodes, ns)
	}
	return st
}

func (st *storeStatus) text(now index.Millis, gaps int) string {
	var b strings.Builder
	var entries uint64
	for _, s := range st.Segments {
		entries += s.Entries
	}
	fmt.Fprintf(&b, "%s: file system %v, %d segments with %d entries in %d bytes, %d inodes since the last flush\n",
		cli.Printable(st.Dir), st.FSID, len(st.Segments), entries, st.Bytes, st.Recent)
	if st.Kept != (index.Kept{}) {
		long := "for ever"
		if st.Kept.All > 0 {
			long = "for " + formatAge(st.Kept.All) + " after the last access"
		}
		fmt.Fprintf(&b, "  keeps inodes %s, told apart by hour for %s, by day for %s; ", long, formatAge(st.Kept.Hours), formatAge(st.Kept.Days))
		if v := st.Vacuumed; v.Time > 0 {
			fmt.Fprintf(&b, "last vacuum %v: %d deleted ones dropped\n", v.Time, v.Entries)
		} else {
			fmt.Fprint(&b, "no deleted ones dropped so far\n")
		}
	}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		d := index.DoubtOf(&n.Node, 1, now)
		fmt.Fprintf(&b, "%s\n", cli.Printable(d.String()))
		state := "waiting for scoutfs-notifyd"
		if n.Connected {
			state = "connected"
		}
		fmt.Fprintf(&b, "  %s, told up to %v, %d accesses (%.3g a second), %d left out, %d lost\n",
			state, n.Told, n.Records, n.Rate, n.Excluded, n.Lost)
		for _, g := range n.Gaps[max(0, len(n.Gaps)-gaps):] {
			more := ""
			if g.Unknown {
				more = " and maybe any number besides"
			}
			fmt.Fprintf(&b, "  gap %v to %v: %d lost%s (%v)\n", g.From, g.To, g.Count, more, g.Cause)
		}
		for _, s := range n.Steps {
			fmt.Fprintf(&b, "  the clock was set by %v at %v\n", s.By.Round(time.Millisecond), s.To)
		}
	}
	return b.String()
}
