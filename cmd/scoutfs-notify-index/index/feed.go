// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Feed takes a stream into a store. Its fields are not changed once Run was called.
type Feed struct {
	Store *Store
	Log   *slog.Logger

	// Skip tells which accesses warm nothing; nil is none. Opens that can neither read
	// nor map, which programs make for ioctls, never do.
	Skip func(*notify.Record) bool

	// Committed returns which transaction ScoutFS has committed; nil if nobody can say.
	// It may block: nothing waits for it.
	Committed func() (uint64, error)

	// Report is called every few seconds and at the end, unless it is nil.
	Report func(Node, []Segment)

	Host string

	mu       sync.Mutex // protects what follows, between the two goroutines of Run
	pending  [][]byte   // events that the store has not got, in chunks
	waiting  int        // bytes of these
	spare    [][]byte   // chunks for more
	past     *notify.Idle
	over     *notify.Lost
	excluded uint64
	greeted  bool // a hello came

	// For tests.
	clock    func() (boot string, offset time.Duration)
	interval time.Duration
	max      int // see feedMax

	offset  time.Duration
	stuck   bool        // what came in earlier rounds waits still
	leftOut uint64      // accesses of excluded that the store was not told of yet
	failing time.Time   // since when the store cannot be written
	failed  bool        // that was logged
	mounted bool        // a hello came since Committed was asked
	sampled chan Sample // the answer of Committed, nil if it was not asked
	asked   time.Time
}

const (
	feedInterval   = 100 * time.Millisecond
	reportInterval = 10 * time.Second
	sampleInterval = time.Hour
	failPatience   = 2 * time.Second
	offsetChange   = 50 * time.Millisecond // of the clock, that is worth a notice

	// feedMax is how many bytes of events wait for a store that cannot be written, 10 s
	// of 200,000 a second.
	feedMax   = 128 << 20
	feedChunk = 4096 * notify.RecordSize
	feedSpare = 8 // chunks
)

// ErrOther is the end of a Feed whose stream has become that of another file system.
var ErrOther = errors.New("another file system was mounted")

// Run takes events until there are no more, and returns their error, nil if they just
// end. What came before is in the store then, also if that has to flush first; if it cannot
// be written, that is an error besides.
func (f *Feed) Run(events iter.Seq2[notify.Event, error]) error {
	if f.clock == nil {
		f.clock = systemClock
	}
	if err := f.look(true); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f.pull(events) }()
	tick := time.NewTicker(cmp.Or(f.interval, feedInterval))
	defer tick.Stop()
	var reported time.Time
	for {
		select {
		case <-tick.C:
			f.round()
			if f.Report != nil && time.Since(reported) >= reportInterval {
				reported = time.Now()
				f.Report(f.Store.Node(), f.Store.Segments())
			}
		case err := <-done:
			if e := f.finish(); e != nil {
				err = errors.Join(e, err)
			}
			if f.Report != nil {
				f.Report(f.Store.Node(), f.Store.Segments())
			}
			return err
		}
	}
}

// pull receives the events, and never waits for the store.
func (f *Feed) pull(events iter.Seq2[notify.Event, error]) error {
	for ev, err := range events {
		if err != nil {
			return err
		}
		if h, ok := ev.(*notify.Hello); ok && h.FSID != f.Store.FSID() {
			return ErrOther
		}
		f.add(ev)
	}
	return nil
}

func (f *Feed) add(ev notify.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch ev := ev.(type) {
	case *notify.Record:
		f.addRecord(ev)
		return
	case *notify.Hello:
		f.greeted = true
	case *notify.Waiting:
		f.settle()
		f.put(&brokeOff)
		return
	case *notify.Idle:
		f.addIdle(ev)
		return
	case *notify.Lost:
		if ev.Last > 0 && f.full() {
			f.addLost(ev)
			return
		}
	}
	f.settle()
	if a, ok := ev.(encoding.BinaryAppender); ok {
		f.put(a)
	}
}

// put adds an event's 64 bytes to what is pending.
func (f *Feed) put(a encoding.BinaryAppender) {
	i := len(f.pending) - 1
	if i < 0 || len(f.pending[i]) == feedChunk {
		i++
		if n := len(f.spare) - 1; n >= 0 {
			f.pending = append(f.pending, f.spare[n])
			f.spare = f.spare[:n]
		} else {
			f.pending = append(f.pending, make([]byte, 0, feedChunk))
		}
	}
	f.pending[i], _ = a.AppendBinary(f.pending[i])
	f.waiting += notify.RecordSize
}

// addIdle notes how far the stream has got. It is no event until the next round, or another
// event: while the store cannot be written only the last one takes room.
func (f *Feed) addIdle(idle *notify.Idle) {
	if f.over != nil {
		f.over.Last, f.over.Time = max(f.over.Last, idle.Seq), idle.Time
		return
	}
	last := *idle
	f.past = &last
}

// full tells whether events have no room and add up to a loss.
func (f *Feed) full() bool { return f.over != nil || f.waiting >= cmp.Or(f.max, feedMax) }

// addLost adds a loss to that of the index's own.
func (f *Feed) addLost(l *notify.Lost) {
	if f.over == nil {
		f.over = &notify.Lost{First: l.First}
	}
	f.over.Count += l.Count
	f.over.Last, f.over.Time = max(f.over.Last, l.Last), l.Time
	f.over.AtMost = f.over.AtMost || l.AtMost
	f.over.Unknown = f.over.Unknown || l.Unknown
	f.over.Cause |= l.Cause
}

func (f *Feed) addRecord(rec *notify.Record) {
	switch {
	case !isAccess(rec):
	case rec.Type == notify.TypeOpen && rec.OpenFlags&unix.O_ACCMODE == unix.O_ACCMODE, f.Skip != nil && f.Skip(rec):
		f.excluded++
	case f.full():
		f.addLost(&notify.Lost{First: rec.Seq, Last: rec.Seq, Count: 1, Cause: notify.Cause(LostIndex), Time: rec.Time()})
		return
	default:
		f.past = nil
		f.put(rec)
		return
	}
	f.addIdle(&notify.Idle{Seq: rec.Seq, Time: rec.Time()})
}

// settle adds what has not become an event yet: how far the stream has got with accesses
// that do not count, and what was dropped.
func (f *Feed) settle() {
	if f.past != nil {
		f.put(f.past)
		f.past = nil
	}
	if f.over != nil {
		f.put(f.over)
		f.over = nil
	}
}

// round gives the store what has come. An error is why some of it still waits.
func (f *Feed) round() error {
	chunks := f.take()
	err := f.look(false)
	if err == nil {
		err = f.write(chunks)
	} else {
		f.putBack(chunks)
	}
	if err == nil && f.stuck { // what could not become an event before
		f.stuck = false
		err = f.write(f.take())
	}
	f.stuck = err != nil
	if err == nil && f.leftOut > 0 {
		if err = f.Store.Look(Notice{Excluded: f.leftOut}); err == nil {
			f.leftOut = 0
		}
	}
	f.say(err)
	f.maintain()
	f.sample()
	return err
}

// take returns what is pending. While earlier events wait, what has not become an event
// stays what it is: it would take more memory with each round.
func (f *Feed) take() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stuck {
		f.settle()
	}
	chunks := f.pending
	f.pending = nil
	f.leftOut += f.excluded
	f.excluded = 0
	f.mounted = f.mounted || f.greeted
	f.greeted = false
	return chunks
}

// write gives chunks to the store. What it does not take is pending again.
func (f *Feed) write(chunks [][]byte) error {
	for i, chunk := range chunks {
		if err := f.Store.Write(chunk); err != nil {
			f.putBack(chunks[i:])
			return err
		}
		f.written(chunk)
		f.maintain()
	}
	return nil
}

// putBack makes chunks pending again, before what has come meanwhile.
func (f *Feed) putBack(chunks [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Chunks that are hardly filled would take memory that nobody counts.
	if i := len(chunks) - 1; i >= 0 && len(f.pending) > 0 && len(chunks[i])+len(f.pending[0]) <= feedChunk {
		chunks[i] = append(chunks[i], f.pending[0]...)
		f.pending = f.pending[1:]
	}
	f.pending = append(chunks, f.pending...)
}

func (f *Feed) maintain() {
	if err := f.Store.Maintain(); err != nil {
		f.Log.Error("cannot flush; will try again", "error", err)
	}
}

// finish gives the store all that has come, and waits for flushes to make room for it. To be
// called when no more comes.
func (f *Feed) finish() error {
	for {
		err := f.round()
		if errors.Is(err, ErrFull) {
			if err = f.Store.drain(); err == nil {
				continue
			}
		}
		if err == nil {
			return nil
		}
		n := f.waits()
		f.Log.Error("the store cannot be written; what waits for it is not in it", "accesses", n, "error", err)
		return fmt.Errorf("write %d accesses that were received, which the next start tells as lost: %w", n, err)
	}
}

// waits returns how many accesses the store has not got.
func (f *Feed) waits() (n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, chunk := range f.pending {
		recs, _ := notify.Decode(nil, chunk)
		for i := range recs {
			if isAccess(&recs[i]) {
				n++
			}
		}
	}
	if f.over != nil {
		n += f.over.Count
	}
	return n
}

// written makes room for more.
func (f *Feed) written(chunk []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting -= len(chunk)
	if len(f.spare) < feedSpare {
		f.spare = append(f.spare, chunk[:0])
	}
}

// say logs the start and the end of a time in which the store cannot be written. That it
// is busy for a moment is nothing to say.
func (f *Feed) say(err error) {
	switch {
	case err == nil && f.failed:
		f.Log.Info("the store can be written again")
		fallthrough
	case err == nil:
		f.failed, f.failing = false, time.Time{}
	case f.failing.IsZero():
		f.failing = time.Now()
	case !f.failed && time.Since(f.failing) > failPatience:
		f.failed = true
		f.Log.Error("cannot write the store; events wait in memory, and will be lost when that is full", "error", err)
	}
}

// look tells the store how the clock goes, if that has changed or must.
func (f *Feed) look(must bool) error {
	boot, offset := f.clock()
	change := offset - f.offset
	if !must && change < offsetChange && change > -offsetChange {
		return nil
	}
	n := Notice{Boot: boot, Offset: offset, Now: MillisOf(time.Now())}
	if must {
		n.Host = f.Host
	}
	if err := f.Store.Look(n); err != nil {
		return err
	}
	f.offset = offset
	return nil
}

// sample asks ScoutFS for its newest transaction, now and then and after a mount, in the
// background.
func (f *Feed) sample() {
	if f.Committed == nil {
		return
	}
	if f.sampled != nil {
		select {
		case s := <-f.sampled:
			if s.Time > 0 {
				if err := f.Store.Look(Notice{Sample: &s}); err != nil {
					f.sampled <- s // for the next round
					f.say(err)
					return
				}
			}
			f.sampled = nil
		default:
			return // the server is away
		}
	}
	if !f.mounted && time.Since(f.asked) < sampleInterval || !f.Store.log.node.Connected {
		return
	}
	f.asked, f.mounted = time.Now(), false
	answer := make(chan Sample, 1)
	f.sampled = answer
	go func() {
		seq, err := f.Committed()
		if err != nil {
			f.Log.Warn("cannot ask ScoutFS for its newest transaction", "error", err)
			answer <- Sample{}
			return
		}
		// Afterwards: what it says was committed by now.
		answer <- Sample{Time: MillisOf(time.Now()), Seq: seq}
	}()
}
