// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/names"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// maxSums bounds how many files are told apart in an interval, and so the memory for
// them. What there is of others is added up in one line.
const maxSums = 1 << 16

// fileSum is what was accessed of a file in an interval.
type fileSum struct {
	Ino   uint64 `json:"ino"` // 0 for all files that there was no room for
	Opens uint64 `json:"opens"`
	Reads uint64 `json:"reads"`
	Bytes uint64 `json:"bytes"`
	First uint64 `json:"first"` // the lowest byte that was read
	Last  uint64 `json:"last"`  // the highest; both are 0 without reads

	path names.Path // as it was when the file was accessed last
}

func (s *fileSum) add(r *notify.Record) {
	switch r.Type {
	case notify.TypeOpen:
		s.Opens++
	case notify.TypeRead:
		last := r.Offset + max(r.Length, 1) - 1
		if s.Reads == 0 {
			s.First = r.Offset
		}
		s.First, s.Last = min(s.First, r.Offset), max(s.Last, last)
		s.Reads++
		s.Bytes += r.Length
	}
}

// sumPrinter is a printer that can print sums.
type sumPrinter interface {
	printer
	sum(s *fileSum, at time.Time) error
	asks() *asked
}

// summary prints a line for each file that was accessed in an interval, and all else as
// it comes.
type summary struct {
	p     printer
	every time.Duration
	now   func() time.Time // nil if time is what is in the events
	idle  bool             // signs of life were asked for, too

	files map[uint64]*fileSum
	rest  fileSum
	next  time.Time // end of the interval, zero before the first event
}

func (s *summary) print(ev notify.Event) error {
	now := s.time(ev)
	if s.next.IsZero() {
		s.next = now.Add(s.every)
	}
	if !now.Before(s.next) {
		if err := s.close(); err != nil {
			return err
		}
		// Intervals without accesses have no lines.
		s.next = s.next.Add((now.Sub(s.next)/s.every + 1) * s.every)
	}
	switch ev := ev.(type) {
	case *notify.Record:
		s.add(ev)
		return nil
	case *notify.Idle:
		if !s.idle {
			return nil
		}
	}
	return s.p.print(ev)
}

// time returns when an event is.
func (s *summary) time(ev notify.Event) time.Time {
	if s.now != nil {
		return s.now()
	}
	t := s.next
	switch ev := ev.(type) {
	case *notify.Record:
		t = ev.Time()
	case *notify.Idle:
		t = ev.Time
	}
	// A clock may have been set back.
	if t.Before(s.next.Add(-s.every)) {
		return s.next.Add(-s.every)
	}
	return t
}

func (s *summary) add(r *notify.Record) {
	f := s.files[r.Ino]
	if f == nil && len(s.files) == maxSums {
		s.rest.add(r)
		return
	}
	if f == nil {
		f = &fileSum{Ino: r.Ino}
		s.files[r.Ino] = f
	}
	if a := s.p.(sumPrinter).asks(); a.paths {
		f.path = a.where(r)
	}
	f.add(r)
}

// close prints the lines of an interval, those with most bytes first.
func (s *summary) close() error {
	sorted := slices.SortedFunc(maps.Values(s.files), func(a, b *fileSum) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Opens+b.Reads, a.Opens+a.Reads), cmp.Compare(a.Ino, b.Ino))
	})
	if s.rest.Opens+s.rest.Reads > 0 {
		sorted = append(sorted, &s.rest)
	}
	for _, f := range sorted {
		if err := s.p.(sumPrinter).sum(f, s.next); err != nil {
			return err
		}
	}
	clear(s.files)
	s.rest = fileSum{}
	return nil
}

func (p *textPrinter) asks() *asked { return &p.names }

func (p *textPrinter) sum(s *fileSum, at time.Time) error {
	b := p.time(p.buf[:0], at)
	b = fmt.Appendf(b, " sum  ino %d opens %d reads %d bytes %d", s.Ino, s.Opens, s.Reads, s.Bytes)
	if s.Reads > 0 {
		b = fmt.Appendf(b, " first %d last %d", s.First, s.Last)
	}
	switch {
	case s.Ino == 0:
		b = append(b, " (other files)"...)
	case p.names.paths && s.path.Err != nil:
		b = append(append(b, ' '), noPath(s.path.Err)...)
	case p.names.paths:
		b = fmt.Appendf(b, " path: %s", printable(s.path.Text))
	}
	p.buf = append(b, '\n')
	_, err := p.w.Write(p.buf)
	return err
}

func (p *jsonPrinter) asks() *asked { return &p.names }

func (p *jsonPrinter) sum(s *fileSum, at time.Time) error {
	object := struct {
		Type string `json:"type"`
		Time stamp  `json:"time"`
		*fileSum
		jsonPath
	}{Type: "sum", Time: stamp(at), fileSum: s}
	if p.names.paths && s.Ino != 0 {
		object.jsonPath = newJSONPath(s.path)
	}
	return p.enc.Encode(object)
}
