// SPDX-License-Identifier: GPL-2.0-only

// Package names finds out what the numbers in records stand for: paths of files, and
// names of users and groups. Whoever asks waits a moment at most; what has no answer by
// then is not known.
package names

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Path is what is known about where a file is.
type Path struct {
	// Text is the file's path from the root of the file system, without a slash at its
	// start; "" if Err is not nil. It has the bytes that the names have: any but NUL.
	// The root itself is ".". Of several names of a file it is one.
	Text string

	// Err is [notify.ErrUnlinked] if the file has no name, [ErrUnknown] if there was no
	// answer in time, or what looking for it failed with.
	Err error
}

// ErrUnknown: the name was not found in time. The cluster's server may be away.
var ErrUnknown = errors.New("not known in time")

// Limits of the paths. Variables, for tests to change.
var (
	// patience is how long whoever asks waits, and how much of the time at once. On average
	// it is half of the time at most: a stream of files that nobody knows goes on at half
	// speed, instead of being lost while it waits for their names.
	patience = 500 * time.Millisecond

	// holdTime is how long the file system is open in one go, and idleTime how long it
	// stays open for another question.
	holdTime = 50 * time.Millisecond
	idleTime = 2 * time.Millisecond

	// Lifetime is how long a name is taken for true without being asked again, if no
	// change of it shows before.
	lifetime = time.Minute

	// retryTime is how long a failure is believed.
	retryTime = time.Second

	// watchTime is how long it takes from one look at what was changed to the next.
	watchTime = time.Second
)

const (
	// CacheSize is how many components of paths are kept at least, and half of how many at
	// most.
	CacheSize = 1 << 17

	// maxDepth is how many folders deep a file may be. A path of 4,096 bytes, the most
	// that can be opened, has half as many.
	maxDepth = 2048

	// maxLater is how many inodes are kept to be asked about when there is time.
	maxLater = 1 << 12

	// maxChanges is how many changes are looked at in one go.
	maxChanges = 1024
)

// tree is a notify.Tree, or a test's.
type tree interface {
	Link(ino uint64) (notify.Link, error)
	Seq() (uint64, error)
	Changes(after notify.Change, into []notify.Change) (int, error)
	Close() error
}

// Paths finds the paths of a mounted file system's inodes. It keeps what it has found by
// component, so that a file in a known folder costs one question. It opens the file system
// when it has a question, for moments, and never holds it open while it has none.
//
// Its methods are safe for concurrent use.
type Paths struct {
	open  func() (tree, error)
	now   func() time.Time
	asked chan question
	later chan uint64 // inodes that nobody waits for
	done  chan struct{}

	mu      sync.Mutex // guards what follows
	cache   *cache
	pending int  // questions that were not answered yet
	stalled bool // one of them is overdue

	queued  map[uint64]struct{} // what is in later
	allowed time.Duration       // to be waited, as of since
	since   time.Time
}

// component is what is known about one inode.
type component struct {
	notify.Link
	err   error
	until time.Time // when to ask again
}

// question is an inode whose component is wanted.
type question struct {
	ino      uint64
	answered chan<- struct{} // nil if nobody waits
}

// NewPaths finds paths in the file system on a device, as a [notify.Hello] names it.
func NewPaths(dev notify.Device) *Paths {
	return newPaths(func() (tree, error) {
		t, err := notify.OpenTree(dev)
		if err != nil {
			return nil, err
		}
		return t, nil
	}, CacheSize)
}

func newPaths(open func() (tree, error), size int) *Paths {
	p := &Paths{
		open: open, now: time.Now, asked: make(chan question, 1), later: make(chan uint64, maxLater), done: make(chan struct{}),
		cache: newCache(size), queued: make(map[uint64]struct{}), allowed: patience, since: time.Now(),
	}
	go p.work()
	return p
}

// Close ends the search. It does not wait for a question that the file system has not
// answered.
func (p *Paths) Close() { close(p.done) }

// Path returns the path of a file.
func (p *Paths) Path(ctx context.Context, ino uint64) Path {
	var parts []string
	size := 0
	_, err := p.climb(ctx, ino, func(l notify.Link) bool {
		parts = append(parts, l.Name)
		size += len(l.Name) + 1
		return true
	})
	switch {
	case err != nil:
		return Path{Err: err}
	case len(parts) == 0:
		return Path{Text: "."}
	}
	var b strings.Builder
	b.Grow(size)
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString(parts[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return Path{Text: b.String()}
}

// Below tells whether a file is in a folder, or in one below it, by the folder's inode
// number. The error is one that [Path] can have.
func (p *Paths) Below(ctx context.Context, ino, dir uint64) (bool, error) {
	if dir == notify.RootIno {
		return true, nil
	}
	found := ino == dir
	_, err := p.climb(ctx, ino, func(l notify.Link) bool {
		found = found || l.Dir == dir
		return !found
	})
	return found, err
}

// climb calls f for each component of a path, from the last to the first, until f
// returns false. It returns how many there were.
func (p *Paths) climb(ctx context.Context, ino uint64, f func(notify.Link) bool) (n int, err error) {
	for ; ino != notify.RootIno; n++ {
		if n == maxDepth {
			return n, fmt.Errorf("find the path of inode %d: more than %d folders deep", ino, maxDepth)
		}
		c, err := p.component(ctx, ino)
		if err != nil {
			return n, err
		}
		if !f(c) {
			break
		}
		ino = c.Dir
	}
	return n, nil
}

// component returns what an inode is called, and where.
func (p *Paths) component(ctx context.Context, ino uint64) (notify.Link, error) {
	c, known, wait := p.known(ino)
	if known {
		return c.Link, c.err
	}
	if wait <= 0 {
		return notify.Link{}, ErrUnknown
	}
	defer p.waited(time.Now())
	answered := make(chan struct{})
	overdue := time.NewTimer(wait)
	defer overdue.Stop()
	select {
	case p.asked <- question{ino, answered}:
		select {
		case <-answered:
		case <-overdue.C:
			p.stall(0)
		case <-ctx.Done():
		}
	case <-overdue.C:
		p.stall(1)
	case <-ctx.Done():
		p.stall(1)
	}
	if c, known = p.lookUp(ino); known {
		return c.Link, c.err
	}
	return notify.Link{}, ErrUnknown
}

// stall says that questions are overdue, and how many were not asked.
func (p *Paths) stall(unasked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending -= unasked
	p.stalled = p.pending > 0 // or the answer came just now
}

// known returns what is known about an inode. If nothing is, wait is how long the caller is
// to wait for an answer, and its question counts as pending then. While a question is
// overdue there is no use in it, and when too much was waited no time: then it is 0, and the
// inode is asked about later.
func (p *Paths) known(ino uint64) (c component, known bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, known = p.cache.get(ino)
	if known && p.now().Before(c.until) {
		return c, true, 0
	}
	now := time.Now()
	p.allowed, p.since = min(p.allowed+now.Sub(p.since)/2, patience), now
	if !p.stalled && p.allowed > 0 {
		p.pending++
		return c, false, p.allowed
	}
	if _, ok := p.queued[ino]; !ok {
		select {
		case p.later <- ino:
			p.queued[ino] = struct{}{}
		default: // it will be accessed again
		}
	}
	return c, false, 0
}

// waited says that somebody has waited from a time until now. It may have been stopped
// meanwhile, for which it need not make up.
func (p *Paths) waited(from time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = max(p.allowed-time.Since(from), -patience)
}

// lookUp returns what is known about an inode.
func (p *Paths) lookUp(ino uint64) (c component, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, known = p.cache.get(ino)
	return c, known && p.now().Before(c.until)
}

// work answers questions.
func (p *Paths) work() {
	var w watch
	for {
		q, ok := p.question(nil)
		if !ok {
			return
		}
		p.session(&w, q)
	}
}

// question waits for the next question, first for one that somebody waits for. ok is false
// when there is none, or none before a timer runs out, if that is not nil.
func (p *Paths) question(timer <-chan time.Time) (q question, ok bool) {
	select {
	case q = <-p.asked:
		return q, true
	default:
	}
	select {
	case q = <-p.asked:
		return q, true
	case ino := <-p.later:
		return question{ino: ino}, true
	case <-timer:
	case <-p.done:
	}
	return q, false
}

// session answers a question, and those that come while the file system is open for it.
func (p *Paths) session(w *watch, q question) {
	t, err := p.open()
	if err == nil {
		defer t.Close()
	}
	end := p.now().Add(holdTime)
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		if err == nil {
			w.look(p, t)
		}
		if q.answered != nil {
			p.answer(t, err, q)
		} else {
			p.learn(t, err, q.ino)
		}
		if err != nil || !p.now().Before(end) {
			return
		}
		idle.Reset(idleTime)
		var ok bool
		if q, ok = p.question(idle.C); !ok {
			return
		}
	}
}

// learn finds the components of a path that nobody waits for, as long as nobody waits for
// another.
func (p *Paths) learn(t tree, err error, ino uint64) {
	p.mu.Lock()
	delete(p.queued, ino)
	p.mu.Unlock()
	for range maxDepth {
		c, known := p.lookUp(ino)
		if !known {
			p.answer(t, err, question{ino: ino})
			c, known = p.lookUp(ino)
		}
		if !known || c.err != nil || c.Dir == notify.RootIno || len(p.asked) > 0 {
			return
		}
		ino = c.Dir
	}
}

// answer finds the component of an inode.
func (p *Paths) answer(t tree, err error, q question) {
	var c component
	if err == nil {
		c.Link, err = t.Link(q.ino)
	}
	switch now := p.now(); {
	case err == nil:
		c.until = now.Add(lifetime)
	case errors.Is(err, notify.ErrUnlinked):
		c.err, c.until = notify.ErrUnlinked, now.Add(lifetime)
	default:
		c.err, c.until = err, now.Add(retryTime)
	}
	p.mu.Lock()
	p.cache.put(q.ino, c)
	p.stalled = false
	if q.answered != nil {
		p.pending--
		defer close(q.answered)
	}
	p.mu.Unlock()
}

// forget drops what is known about inodes.
func (p *Paths) forget(changes []notify.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range changes {
		p.cache.remove(c.Ino)
	}
}

// watch finds out about names that were changed.
type watch struct {
	next  time.Time // when to look
	after notify.Change
	known bool // after is
	buf   [maxChanges]notify.Change
}

// look forgets the inodes that were changed since it looked last. If it fails, or there
// are more than it looks at, names live out their lifetime.
func (w *watch) look(p *Paths, t tree) {
	now := p.now()
	if now.Before(w.next) {
		return
	}
	w.next = now.Add(watchTime)
	if !w.known {
		seq, err := t.Seq()
		w.after, w.known = notify.Change{MetaSeq: seq, Ino: ^uint64(0)}, err == nil
		return
	}
	n, err := t.Changes(w.after, w.buf[:])
	if err != nil || n == 0 {
		return
	}
	w.after = w.buf[n-1]
	p.forget(w.buf[:n])
}

// Ino returns the inode number of a folder. It waits five seconds at most, and keeps the
// file system from being unmounted meanwhile.
func Ino(dir string) (uint64, error) {
	type result struct {
		fi  os.FileInfo
		err error
	}
	found := make(chan result, 1)
	go func() {
		fi, err := os.Stat(dir)
		found <- result{fi, err}
	}()
	select {
	case r := <-found:
		if r.err == nil && !r.fi.IsDir() {
			r.err = &os.PathError{Op: "look for files below", Path: dir, Err: syscall.ENOTDIR}
		}
		if r.err != nil {
			return 0, r.err
		}
		return r.fi.Sys().(*syscall.Stat_t).Ino, nil
	case <-time.After(5 * time.Second):
		return 0, fmt.Errorf("look for files below %s: %w", dir, os.ErrDeadlineExceeded)
	}
}
