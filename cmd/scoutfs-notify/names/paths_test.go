// SPDX-License-Identifier: GPL-2.0-only

package names

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// fakeFS is a file system that can be renamed in, and can hang.
type fakeFS struct {
	mu      sync.Mutex
	links   map[uint64]notify.Link
	changes []notify.Change
	seq     uint64
	asked   int
	opened  int
	open    int
	err     error         // of opening it
	linkErr error         // of looking
	hang    chan struct{} // if not nil, questions wait for it
}

func newFakeFS() *fakeFS { return &fakeFS{links: make(map[uint64]notify.Link), seq: 100} }

func (f *fakeFS) openTree() (tree, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.opened++
	f.open++
	return f, nil
}

func (f *fakeFS) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	return nil
}

func (f *fakeFS) Link(ino uint64) (notify.Link, error) {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.linkErr != nil {
		return notify.Link{}, f.linkErr
	}
	l, ok := f.links[ino]
	if !ok {
		return l, fmt.Errorf("look up inode %d: %w", ino, notify.ErrUnlinked)
	}
	return l, nil
}

func (f *fakeFS) Seq() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq, nil
}

func (f *fakeFS) Changes(after notify.Change, into []notify.Change) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.changes {
		if n < len(into) && (c.MetaSeq > after.MetaSeq || c.MetaSeq == after.MetaSeq && c.Ino > after.Ino) {
			into[n] = c
			n++
		}
	}
	return n, nil
}

func (f *fakeFS) rename(ino uint64, l notify.Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[ino] = l
	f.seq++
	f.changes = append(f.changes, notify.Change{MetaSeq: f.seq, Ino: ino})
}

func (f *fakeFS) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// start returns paths with a clock that the test turns.
func start(t *testing.T, f *fakeFS, size int) (p *Paths, turn func(time.Duration)) {
	var mu sync.Mutex
	now := time.Unix(1700000000, 0)
	p = newPaths(f.openTree, size)
	p.setNow(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	t.Cleanup(p.Close)
	return p, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
}

func (p *Paths) setNow(now func() time.Time) { p.now = now }

func expect(t *testing.T, p *Paths, ino uint64, text string, err error) {
	t.Helper()
	if got := p.Path(context.Background(), ino); got.Text != text || !errors.Is(got.Err, err) {
		t.Errorf("inode %d: %+v, want %q, %v", ino, got, text, err)
	}
}

func TestPaths(t *testing.T) {
	f := newFakeFS()
	f.links = map[uint64]notify.Link{
		10: {Dir: 1, Name: "a"},
		11: {Dir: 10, Name: "b"},
		12: {Dir: 11, Name: "c\x1b\n\xff"},
		13: {Dir: 11, Name: "d"},
		14: {Dir: 99, Name: "in a folder that is gone"},
		20: {Dir: 21, Name: "in"}, 21: {Dir: 20, Name: "circles"},
	}
	p, _ := start(t, f, 100)
	expect(t, p, 1, ".", nil)
	expect(t, p, 10, "a", nil)
	expect(t, p, 12, "a/b/c\x1b\n\xff", nil)
	before := f.asked
	expect(t, p, 13, "a/b/d", nil)
	if f.asked != before+1 {
		t.Errorf("a file in a known folder costs %d questions", f.asked-before)
	}
	expect(t, p, 77, "", notify.ErrUnlinked)
	expect(t, p, 14, "", notify.ErrUnlinked)
	if got := p.Path(context.Background(), 20); got.Err == nil || errors.Is(got.Err, ErrUnknown) {
		t.Errorf("a circle: %+v", got)
	}
	for _, tt := range []struct {
		ino, dir uint64
		want     bool
		err      error
	}{
		{12, 1, true, nil}, {12, 10, true, nil}, {12, 11, true, nil}, {12, 12, true, nil}, {12, 13, false, nil},
		{10, 11, false, nil}, {77, 10, false, notify.ErrUnlinked}, {1, 10, false, nil},
	} {
		if got, err := p.Below(context.Background(), tt.ino, tt.dir); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%d below %d: %v, %v", tt.ino, tt.dir, got, err)
		}
	}
}

// A rename shows when the file system tells of it, and otherwise when the lifetime ends.
func TestRename(t *testing.T) {
	f := newFakeFS()
	f.links[10], f.links[11] = notify.Link{Dir: 1, Name: "a"}, notify.Link{Dir: 10, Name: "b"}
	p, turn := start(t, f, 100)
	expect(t, p, 11, "a/b", nil)
	f.rename(10, notify.Link{Dir: 1, Name: "new"})
	expect(t, p, 11, "a/b", nil)
	turn(watchTime)
	expect(t, p, 50, "", notify.ErrUnlinked) // it looks when it is asked something
	expect(t, p, 11, "new/b", nil)

	f.set(func() { f.links[11] = notify.Link{Dir: 10, Name: "untold"} })
	turn(lifetime - 2*watchTime)
	expect(t, p, 11, "new/b", nil)
	turn(2 * watchTime)
	expect(t, p, 11, "new/untold", nil)
}

// The file system is not held open when there is nothing to ask.
func TestIdle(t *testing.T) {
	f := newFakeFS()
	f.links[10] = notify.Link{Dir: 1, Name: "a"}
	p, _ := start(t, f, 100)
	for range 3 {
		expect(t, p, 10, "a", nil)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		open, opened := f.open, f.opened
		f.mu.Unlock()
		if open == 0 && opened == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("open: %d, opened %d times", open, opened)
		}
	}
}

// A failure is told as such, is not asked about again at once, and passes.
func TestFailures(t *testing.T) {
	f := newFakeFS()
	f.links[10] = notify.Link{Dir: 1, Name: "a"}
	f.err = os.ErrNotExist
	p, turn := start(t, f, 100)
	expect(t, p, 10, "", os.ErrNotExist)
	f.set(func() { f.err, f.linkErr = nil, syscall.EPERM })
	expect(t, p, 10, "", os.ErrNotExist)
	turn(retryTime)
	expect(t, p, 10, "", os.ErrPermission)
	f.set(func() { f.linkErr = nil })
	turn(retryTime)
	expect(t, p, 10, "a", nil)
}

// A file system that does not answer costs one wait, what is known stays known, and names
// come when it answers.
func TestStall(t *testing.T) {
	f := newFakeFS()
	f.links[10], f.links[11] = notify.Link{Dir: 1, Name: "a"}, notify.Link{Dir: 10, Name: "b"}
	p, _ := start(t, f, 100)
	expect(t, p, 10, "a", nil)
	hang := make(chan struct{})
	f.set(func() { f.hang = hang })
	begun := time.Now()
	for range 1000 {
		expect(t, p, 11, "", ErrUnknown)
		expect(t, p, 10, "a", nil)
	}
	if took := time.Since(begun); took > 500*patience {
		t.Errorf("1000 questions took %v", took)
	}
	f.set(func() { f.hang = nil })
	close(hang)
	for end := time.Now().Add(10 * time.Second); p.Path(context.Background(), 11).Text != "a/b"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stays stalled")
		}
	}
}

// Many ask at once, with a small cache and a file system that hangs now and then.
func TestConcurrent(t *testing.T) {
	f := newFakeFS()
	for i := uint64(2); i < 200; i++ {
		f.links[i] = notify.Link{Dir: 1, Name: fmt.Sprint(i)}
	}
	p, _ := start(t, f, 50)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range uint64(2000) {
				ino := 2 + (i*7+uint64(g)*31)%198
				ctx, cancel := context.WithCancel(context.Background())
				if i%10 == 0 {
					cancel()
				}
				if got := p.Path(ctx, ino); got.Err == nil && got.Text != fmt.Sprint(ino) {
					t.Errorf("inode %d is %q", ino, got.Text)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(10 * time.Second); p.Path(context.Background(), 7).Text != "7"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("inode 7 gets no name")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.cache.len(); n < 50 || n > 100 {
		t.Errorf("the cache has %d entries", n)
	}
}

// Whoever has waited for half of the time does not wait: names come meanwhile.
func TestBusy(t *testing.T) {
	defer func(d time.Duration) { patience = d }(patience)
	patience = time.Hour
	const files = 100
	f := newFakeFS()
	f.links[2] = notify.Link{Dir: 1, Name: "folder"}
	for i := range uint64(files) {
		f.links[10+i] = notify.Link{Dir: 2, Name: fmt.Sprint(i)}
	}
	p, _ := start(t, f, 1000)
	expect(t, p, 10, "folder/0", nil)
	p.waited(time.Now().Add(-24 * time.Hour)) // counts as two hours
	for i := range uint64(files - 2) {
		expect(t, p, 11+i, "", ErrUnknown)
	}
	expect(t, p, 10, "folder/0", nil)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		named := 0
		for i := range uint64(files - 1) {
			if got := p.Path(context.Background(), 10+i); got.Text == fmt.Sprintf("folder/%d", i) {
				named++
			}
		}
		if named == files-1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d files are named in the end", named, files-1)
		}
	}
	// After two hours it has waited for half of the time.
	expect(t, p, 10+files-1, "", ErrUnknown)
	p.mu.Lock()
	p.cache.remove(10 + files - 1) // it may have come
	p.since = p.since.Add(-2*time.Hour - time.Second)
	p.mu.Unlock()
	expect(t, p, 10+files-1, fmt.Sprintf("folder/%d", files-1), nil)
}
