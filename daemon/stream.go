// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"encoding/binary"
	"fmt"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// stream is what the records are of, and up to where they have been accounted for: it
// finds every loss in the kernel as soon as a drain shows it.
type stream struct {
	mount       notify.Mount
	daemonStart time.Time
	readerStart time.Time

	base  uint64 // the reader's first number, 0 if it is not known yet
	told  uint64 // the last number accounted for; base-1 before any
	lost  uint64 // numbers among those that the kernel dropped
	batch []byte // see account
}

// account takes what a drain found: records, and how many the kernel has dropped since
// the reader attached. It returns the records with each loss told where it happened,
// valid until the next call. Without a loss that is the batch itself.
//
// All numbers after told up to the last record are in the batch or were dropped. Of what
// was dropped the kernel counts what comes before the oldest record that it has left; so
// what it counts and no gap shows comes right after the batch. (An older module counts all
// that it dropped when it looked for records, but then they are all in the batch.)
func (s *stream) account(batch []byte, dropped uint64, now time.Time) ([]byte, error) {
	n := uint64(len(batch) / notify.RecordSize)
	if n > 0 && s.base == 0 {
		s.base = seqOf(batch, 0)
		s.told = s.base - 1
	}
	out, last := batch, s.told
	if n > 0 {
		last = seqOf(batch, int(n)-1)
	}
	if last != s.told+n || n > 0 && seqOf(batch, 0) != s.told+1 {
		var err error
		if out, err = s.tellGaps(batch, now); err != nil {
			return nil, err
		}
	}
	s.told = last
	if s.base != 0 && dropped > s.lost {
		if len(out) == len(batch) {
			out = append(s.batch[:0], batch...)
		}
		out = s.tell(out, last+dropped-s.lost, now)
	}
	if len(out) != len(batch) {
		s.batch = out
	}
	return out, nil
}

// tellGaps returns the records with a loss in each gap between them.
func (s *stream) tellGaps(batch []byte, now time.Time) ([]byte, error) {
	out := s.batch[:0]
	for i := 0; i < len(batch); i += notify.RecordSize {
		rec := batch[i : i+notify.RecordSize]
		seq := seqOf(rec, 0)
		if seq <= s.told {
			return nil, fmt.Errorf("drain records: number %d came after %d", seq, s.told)
		}
		if seq > s.told+1 {
			out = s.tell(out, seq-1, now)
		}
		out = append(out, rec...)
		s.told = seq
	}
	return out, nil
}

// tell appends the loss of all numbers after told up to last.
func (s *stream) tell(out []byte, last uint64, now time.Time) []byte {
	l := notify.Lost{First: s.told + 1, Last: last, Count: last - s.told, Cause: notify.LostKernel, Time: now}
	out, _ = l.AppendBinary(out)
	s.lost += l.Count
	s.told = last
	return out
}

// finish takes the number that the next access would have got when the stream ended. It
// returns the loss of what was not drained, empty for none.
func (s *stream) finish(next uint64, now time.Time) []byte {
	if s.base == 0 || next <= s.told+1 {
		return nil
	}
	return s.tell(s.batch[:0], next-1, now)
}

// hello returns what a client is told first.
func (s *stream) hello(now time.Time) *notify.Hello {
	h := &notify.Hello{
		Time: now, FSID: s.mount.FSID, RID: s.mount.RID, Device: s.mount.Device,
		DaemonStart: s.daemonStart, ReaderStart: s.readerStart, Version: notify.Version2,
	}
	if s.base != 0 {
		h.Next = s.told + 1
	}
	return h
}

// missed returns what a client has missed that knows the stream up to a place, nil if
// that is nothing.
func (s *stream) missed(r notify.Resume, filtered bool, now time.Time) *notify.Lost {
	l := &notify.Lost{Cause: notify.LostAway, AtMost: filtered, Time: now}
	switch {
	case r.RID == 0:
		return nil
	case r.RID != s.mount.RID, s.base == 0, r.Seq > s.told:
		// Another mount, or nothing that a number could be compared with.
		return &notify.Lost{Cause: notify.LostAway | notify.LostUnattended, Unknown: true, Time: now}
	case r.Seq+1 < s.base:
		l.Cause |= notify.LostUnattended
		l.Unknown = true
	case r.Seq == s.told:
		return nil
	}
	l.First, l.Last = r.Seq+1, s.told
	l.Count = l.Last - r.Seq
	return l
}

// seqOf returns the number of the i-th of encoded records, which is their first field.
func seqOf(records []byte, i int) uint64 {
	return binary.NativeEndian.Uint64(records[i*notify.RecordSize:])
}
