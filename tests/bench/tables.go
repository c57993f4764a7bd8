// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// cost is what an observer adds to who opens and reads.
type cost struct {
	Observer  string
	Awake     bool         // it runs at each event
	Read      instructions // of a cached pread of 4 KiB
	OpenRead  instructions // of open, the same pread and close
	Delivered float64      // events that the observer got, a fraction of the accesses
}

// instructions are how many something takes.
type instructions struct {
	Least  int // whatever else runs only adds to it
	Median int // of the thread's own
}

// added returns what an observer adds to who opens and reads. If it is awake, the least of
// them would be while it had no turn, and the events merged.
func (c *cost) added(nobody cost) (read, openRead int) {
	if c.Awake {
		return c.Read.Median - nobody.Read.Median, c.OpenRead.Median - nobody.OpenRead.Median
	}
	return c.Read.Least - nobody.Read.Least, c.OpenRead.Least - nobody.OpenRead.Least
}

// flow is a load that passed through daemon and clients.
type flow struct {
	Table      string // the one that it belongs to
	Processors int
	Threads    int
	Clients    int
	Packet     int           // records a packet
	Pause      time.Duration // the daemon's
	Rate       int           // accesses a second that were asked for, 0 for as fast as possible
	Accesses   uint64
	Delivered  uint64        // records that the clients got, on average
	Elapsed    time.Duration // of the load
	Access     time.Duration // the median of those of one thread
	Daemon     time.Duration // processor time of the daemon
	Sent, Late lateness
	Latest     time.Duration // from the access to the sending, of a record that waited longest
	Ran        string        // who had the processor meanwhile
}

// unobserved is the name of the first of the costs, which the others are compared with.
const unobserved = "nobody"

func (r *results) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.printCosts(tw)
	r.printFlows(tw)
}

func (r *results) printCosts(tw *tabwriter.Writer) {
	if len(r.costs) == 0 {
		return
	}
	var base cost
	fmt.Fprintln(tw, "observer\tadded to a pread\tto open, pread, close\tdelivered")
	for _, c := range r.costs {
		if c.Observer == unobserved {
			base = c
			fmt.Fprintf(tw, "(%s: instructions)\t(%d)\t(%d)\t\n", c.Observer, c.Read.Least, c.OpenRead.Least)
			continue
		}
		read, openRead := c.added(base)
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.4f\n", c.Observer, read, openRead, c.Delivered)
	}
	tw.Flush()
}

func (r *results) printFlows(tw *tabwriter.Writer) {
	table := ""
	for _, f := range r.flows {
		if f.Table != table {
			tw.Flush()
			table = f.Table
			fmt.Fprintf(tw, "\n%s\n", table)
			fmt.Fprint(tw, "threads\tclients\trecords a packet\tpause\tdelivered")
			if f.counted() {
				fmt.Fprint(tw, "\taccesses/s\tan access\tthe daemon's share\ta record\tsent: median\t99 %\tlate: median\t99 %")
				if f.Ran != "" {
					fmt.Fprint(tw, "\tthe latest to be sent, and who ran meanwhile")
				}
			}
			fmt.Fprintln(tw)
		}
		fmt.Fprintf(tw, "%d\t%d\t%d\t%v\t", f.Threads, f.Clients, f.Packet, f.Pause)
		if f.Clients == 0 {
			fmt.Fprint(tw, "nobody listens")
		} else {
			fmt.Fprintf(tw, "%.4f", float64(f.Delivered)/float64(f.Accesses))
		}
		if f.counted() {
			f.printTimes(tw)
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// printTimes prints what is only told of a machine that counts instructions.
func (f *flow) printTimes(w io.Writer) {
	perRecord := time.Duration(0)
	if f.Delivered > 0 {
		perRecord = f.Daemon / time.Duration(f.Delivered)
	}
	fmt.Fprintf(w, "\t%.0f\t%v\t%.3f\t%v", float64(f.Accesses)/f.Elapsed.Seconds(), f.Access, f.Daemon.Seconds()/f.Elapsed.Seconds(), perRecord)
	for _, late := range []time.Duration{f.Sent.Median, f.Sent.P99, f.Late.Median, f.Late.P99} {
		fmt.Fprintf(w, "\t%v", late.Round(time.Microsecond))
	}
	if f.Ran != "" {
		fmt.Fprintf(w, "\t%v: %s", f.Latest.Round(time.Microsecond), f.Ran)
	}
}

// counted tells whether times are instructions, and not what a busy host makes of them.
func (f *flow) counted() bool { return f.Processors == 1 }
