// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"encoding"
	"errors"
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
	greeted  bool // a hello came since the last sample

	// For tests.
	clock    func() (boot string, offset time.Duration)
	interval time.Duration
	max      int // see feedMax

	offset  time.Duration
	failing time.Time   // since when the store cannot be written
	failed  bool        // that was logged
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
// end. What came before is in the store then, unless it cannot be written.
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
			f.round()
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

func (f *Feed) addRecord(rec *notify.Record) {
	switch {
	case rec.Type.IsControl():
	case rec.Type == notify.TypeOpen && rec.OpenFlags&unix.O_ACCMODE == unix.O_ACCMODE, f.Skip != nil && f.Skip(rec):
		f.excluded++
	case f.over != nil || f.waiting >= cmp.Or(f.max, feedMax):
		if f.over == nil {
			f.over = &notify.Lost{First: rec.Seq, Cause: notify.Cause(LostIndex)}
		}
		f.over.Count++
		f.over.Last, f.over.Time = rec.Seq, rec.Time()
		return
	default:
		f.past = nil
		f.put(rec)
		return
	}
	if f.over != nil {
		f.over.Last, f.over.Time = rec.Seq, rec.Time()
		return
	}
	f.past = &notify.Idle{Seq: rec.Seq, Time: rec.Time()}
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

// round gives the store what has come.
func (f *Feed) round() {
	f.mu.Lock()
	f.settle()
	chunks := f.pending
	f.pending = nil
	excluded, greeted := f.excluded, f.greeted
	f.excluded, f.greeted = 0, false
	f.mu.Unlock()

	err := f.look(false)
	for err == nil && len(chunks) > 0 {
		if err = f.Store.Write(chunks[0]); err != nil {
			break
		}
		f.written(chunks[0])
		chunks = chunks[1:]
		if failed := f.Store.Maintain(); failed != nil {
			f.Log.Error("cannot flush; will try again", "error", failed)
		}
	}
	if len(chunks) > 0 {
		f.mu.Lock()
		f.pending = append(chunks, f.pending...)
		f.mu.Unlock()
	}
	if excluded > 0 {
		if err == nil {
			err = f.Store.Look(Notice{Excluded: excluded})
		}
		if err != nil {
			f.mu.Lock()
			f.excluded += excluded
			f.mu.Unlock()
		}
	}
	f.say(err)
	if err := f.Store.Maintain(); err != nil {
		f.Log.Error("cannot flush; will try again", "error", err)
	}
	f.sample(greeted)
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
func (f *Feed) sample(now bool) {
	if f.Committed == nil {
		return
	}
	if f.sampled != nil {
		select {
		case s := <-f.sampled:
			f.sampled = nil
			if s.Time > 0 {
				f.say(f.Store.Look(Notice{Sample: &s}))
			}
		default:
			return // the server is away
		}
	}
	if !now && time.Since(f.asked) < sampleInterval || !f.Store.log.node.Connected {
		return
	}
	f.asked = time.Now()
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
