// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Limits says when a store flushes what it has in memory, and what it keeps. Zero fields
// are the defaults.
type Limits struct {
	Flush   time.Duration // at the latest, 1 min
	Inodes  int           // in memory, 1,000,000, about 100 bytes each, twice during a flush
	Journal int64         // bytes, 256 MiB
	Hours   time.Duration // how long counts are kept by hour, 48 h
	Days    time.Duration // how long counts are kept by day, 15 days
	Keep    time.Duration // inodes not accessed for longer are forgotten; 0 is never
}

// DefaultLimits returns the defaults.
func DefaultLimits() Limits {
	return Limits{
		Flush: time.Minute, Inodes: 1_000_000, Journal: 256 << 20,
		Hours: 48 * time.Hour, Days: 15 * 24 * time.Hour,
	}
}

func (l *Limits) setDefaults() {
	d := DefaultLimits()
	l.Flush, l.Hours, l.Days = cmp.Or(l.Flush, d.Flush), cmp.Or(l.Hours, d.Hours), cmp.Or(l.Days, d.Days)
	l.Inodes, l.Journal = cmp.Or(l.Inodes, d.Inodes), cmp.Or(l.Journal, d.Journal)
}

// ErrFull: what was written since the last flush that succeeded fills the memory.
var ErrFull = errors.New("memory is full of what could not be flushed")

// ErrBusy: another process writes the store.
var ErrBusy = errors.New("another scoutfs-notify-index writes the store")

// Store is the writer of a store. It is for one goroutine.
type Store struct {
	dir    string
	fsid   notify.ID
	limits Limits
	lock   *os.File
	now    func() time.Time

	// Of the one goroutine that writes.
	log     log
	journal *os.File
	number  uint64    // of the journal
	size    int64     // of the journal, whole frames only
	started time.Time // when the first of it was written
	frame   []byte
	frozen  *table     // that is being flushed, nil for none
	flushed chan error // the end of that
	retry   time.Time  // when to try again after one failed
	looked  time.Time  // when it was last told how the clock goes
	shown   Millis     // by the clock, then

	mu       sync.Mutex // protects the manifest, in memory and on disk
	manifest manifest
	old      []string // files that only manifests before it name

	ctx     context.Context // ends the merging of segments
	cancel  context.CancelFunc
	merging sync.Mutex // held by whoever merges segments
	mergers sync.WaitGroup
	failed  atomic.Pointer[error] // the last of what failed in the background

	// For tests.
	changed func(what string)      // called after each change on disk
	syncDir func(dir string) error // makes the names in a folder last
}

// point is one at which a process can be killed.
func (s *Store) point(what string) {
	if s.changed != nil {
		s.changed(what)
	}
}

// Open opens the store of a file system for writing, and makes it if there is none. The
// error is [ErrBusy], [ErrForeign], [ErrNewer], [ErrMerged], [ErrDamaged], or the
// system's; nothing was changed then.
func Open(dir string, fsid notify.ID, limits Limits) (*Store, error) {
	limits.setDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, fsid: fsid, limits: limits, lock: lock, now: time.Now, flushed: make(chan error, 1), syncDir: syncDir}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *Store) open() error {
	m, err := readManifest(s.dir, s.fsid)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if m, err = s.create(); err != nil {
			return err
		}
	case err != nil:
		return err
	case m.Merged:
		return fmt.Errorf("open %s: %w", s.dir, ErrMerged)
	}
	s.manifest = *m
	l := &s.limits
	s.manifest.Kept = Kept{Hours: l.Hours, Days: l.Days, All: l.Keep} // written with the next change
	if err := s.check(); err != nil {
		return err
	}
	return s.replay()
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			err = ErrBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// create makes an empty store, unless there are files that a lost manifest would explain.
func (s *Store) create() (*manifest, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), "seg-") || strings.HasPrefix(n.Name(), "journal-") {
			return nil, damaged(filepath.Join(s.dir, manifestName), "it is missing, and there is "+n.Name())
		}
	}
	m := &manifest{Version: Version, FSID: s.fsid, Next: 2, Journal: 1, Nodes: make([]Node, 1)}
	if err := m.write(s.dir); err != nil {
		return nil, err
	}
	return m, s.syncDir(s.dir)
}

// check opens each segment, which finds those that are missing or cut off, and deletes
// what a process that was killed has left.
func (s *Store) check() error {
	readers, err := openSegments(s.dir, s.fsid, s.manifest.Segments)
	closeAll(readers)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		var id uint64
		if _, err := fmt.Sscanf(n.Name(), "seg-%016x", &id); err == nil {
			if !slices.ContainsFunc(s.manifest.Segments, func(g Segment) bool { return g.ID == id }) {
				os.Remove(filepath.Join(s.dir, n.Name()))
			}
		} else if _, err := fmt.Sscanf(n.Name(), "journal-%016x", &id); err == nil && id < s.manifest.Journal {
			os.Remove(filepath.Join(s.dir, n.Name()))
		}
	}
	return nil
}

// journals returns the numbers of a store's journals from first on, in order.
func journals(dir string, first uint64) ([]uint64, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for _, n := range names {
		var id uint64
		if _, err := fmt.Sscanf(n.Name(), "journal-%016x", &id); err == nil && id >= first {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// replay takes what the journals have and goes on in the last of them. What follows its
// whole frames was not taken.
func (s *Store) replay() error {
	s.log.node = s.manifest.Nodes[0].clone()
	ids, err := journals(s.dir, s.manifest.Journal)
	if err != nil {
		return err
	}
	s.started = s.now()
	n, whole, err := s.log.replay(s.dir, ids)
	if err != nil {
		return err
	}
	for _, id := range ids[n:] {
		if err := os.Remove(journalPath(s.dir, id)); err != nil {
			return err
		}
	}
	s.number, s.size = s.manifest.Journal, whole
	if n > 0 {
		s.number = ids[n-1]
	}
	if s.journal, err = os.OpenFile(journalPath(s.dir, s.number), os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
		return err
	}
	s.manifest.Next = max(s.manifest.Next, s.number+1)
	return s.rewind()
}

// rewind cuts off what is not a whole frame.
func (s *Store) rewind() error {
	if err := s.journal.Truncate(s.size); err != nil {
		return err
	}
	_, err := s.journal.Seek(s.size, io.SeekStart)
	return err
}

// FSID returns the file system that the store is of.
func (s *Store) FSID() notify.ID { return s.fsid }

// Resume returns the place in the stream to go on from.
func (s *Store) Resume() notify.Resume {
	return notify.Resume{RID: s.log.node.At.RID, Seq: s.log.node.At.Seq}
}

// Node returns what the stream has told so far.
func (s *Store) Node() Node { return s.log.node.clone() }

// Write takes encoded events, 64 bytes each, in the order of the stream. They are in the
// store once it has returned nil, also if the process is killed then. An error means that
// none is.
func (s *Store) Write(events []byte) error {
	if len(s.log.table.entries) >= 2*s.limits.Inodes {
		return ErrFull
	}
	const most = frameMax / notify.RecordSize * notify.RecordSize
	s.frame = s.frame[:0]
	for rest := events; len(rest) > 0; {
		n := min(len(rest), most)
		s.frame = appendFrame(s.frame, frameEvents, rest[:n])
		rest = rest[n:]
	}
	if err := s.append(); err != nil {
		return err
	}
	return s.log.take(frameEvents, events)
}

// append writes frames to the journal, all or none.
func (s *Store) append() error {
	if s.size == 0 {
		s.started = s.now()
	}
	if _, err := s.journal.Write(s.frame); err != nil {
		return errors.Join(err, s.rewind())
	}
	s.size += int64(len(s.frame))
	return nil
}

// Look adds to the stream what the index itself sees: how the clock goes, in the run of
// the machine that boot names, and which transaction ScoutFS has committed, 0 if that was
// not asked. Errors are as with Write.
func (s *Store) Look(n Notice) error {
	b, err := json.Marshal(&n)
	if err != nil {
		return err
	}
	s.frame = appendFrame(s.frame[:0], frameNote, b)
	if err := s.append(); err != nil {
		return err
	}
	s.log.note(&n)
	if n.Boot != "" {
		s.looked, s.shown = s.now(), n.Now
	}
	return nil
}

// Maintain flushes when it is time to, and returns the error of a flush or a merge that
// has failed since it was called last; it will be tried again. To be called at least
// every few seconds.
func (s *Store) Maintain() error {
	failed := s.failure()
	if s.frozen != nil {
		select {
		case err := <-s.flushed:
			return errors.Join(s.endFlush(err), failed)
		default:
			return failed
		}
	}
	now := s.now()
	inodes := len(s.log.table.entries)
	due := inodes >= s.limits.Inodes || s.size >= s.limits.Journal ||
		inodes > 0 && now.Sub(s.started) >= s.limits.Flush ||
		s.size > 0 && MillisOf(now).hours() != MillisOf(s.started).hours()
	if !due || now.Before(s.retry) {
		return failed
	}
	return errors.Join(s.flush(), failed)
}

// failure returns what has failed in the background since it was called last.
func (s *Store) failure() error {
	if e := s.failed.Swap(nil); e != nil {
		return *e
	}
	return nil
}

// flush starts to make what was written last.
func (s *Store) flush() error {
	if err := s.Look(Notice{Sealed: true}); err != nil {
		return s.putOff(err)
	}
	s.point("seal")
	next := s.takeNumber()
	journal, err := os.OpenFile(journalPath(s.dir, next), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return s.putOff(err)
	}
	s.point("journal")
	frozen, old, start := s.log.table, s.journal, s.started
	s.journal, s.number, s.size, s.started = journal, next, 0, s.now()
	s.log.table = table{}
	s.frozen = &frozen
	node := s.log.node.clone()
	go func() {
		err := s.writeFlush(frozen.sorted(), node, next, MillisOf(start).hours())
		if e := old.Close(); err != nil { // otherwise it was of no use any more
			err = errors.Join(err, e)
		}
		s.flushed <- err
	}()
	return nil
}

func (s *Store) putOff(err error) error {
	const pause = 10 * time.Second
	s.retry = s.now().Add(pause)
	return fmt.Errorf("flush to %s: %w", s.dir, err)
}

// endFlush takes back what a flush that failed was to write.
func (s *Store) endFlush(err error) error {
	frozen := s.frozen
	s.frozen = nil
	if err == nil {
		s.compact()
		return nil
	}
	for i := range s.log.table.entries {
		frozen.addEntry(&s.log.table.entries[i])
	}
	s.log.table = *frozen
	return s.putOff(err)
}

// drain makes room: it waits for the flush that is under way, or for one that it starts.
func (s *Store) drain() error {
	if s.frozen == nil {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.endFlush(<-s.flushed)
}

// writeFlush writes entries as a segment, after which the journals before next are of no
// use any more.
func (s *Store) writeFlush(entries []Entry, node Node, next uint64, hour int64) error {
	seg, err := s.writeSegment([]source{(*sliceSource)(&entries)}, nil)
	if err != nil {
		return err
	}
	seg.Hour = hour
	s.point("segment")
	var before uint64
	err = s.commit(func(m *manifest) {
		before = m.Journal
		m.Nodes[0], m.Journal = node, next
		// A merge may have forgotten more meanwhile.
		m.Nodes[0].forget(s.manifest.Nodes[0].Since)
		if seg.Entries > 0 {
			m.Segments = append(m.Segments, seg)
		}
	})
	if err != nil {
		os.Remove(segmentPath(s.dir, seg.ID))
		return err
	}
	s.point("manifest")
	var old []string
	if seg.Entries == 0 {
		old = append(old, segmentPath(s.dir, seg.ID))
	}
	for id := before; id < next; id++ {
		old = append(old, journalPath(s.dir, id))
	}
	s.discard(old)
	return nil
}

// writeSegment writes a segment that is not in the manifest yet.
func (s *Store) writeSegment(sources []source, keep func(*Entry) bool) (Segment, error) {
	id := s.takeNumber()
	w, err := createSegment(segmentPath(s.dir, id), s.fsid)
	if err != nil {
		return Segment{}, err
	}
	if err := copyEntries(s.ctx, w, sources, keep); err != nil {
		w.abandon()
		return Segment{}, err
	}
	seg, err := w.finish()
	if err == nil {
		err = s.syncDir(s.dir)
	}
	if err != nil {
		os.Remove(segmentPath(s.dir, id))
		return Segment{}, err
	}
	seg.ID = id
	return seg, nil
}

// commit replaces the manifest by one that change has changed. An error means that it has
// not, and that a start would find the old one: what the new one names can go. Otherwise the
// new one is what a start finds, and nothing that it names may go any more.
func (s *Store) commit(change func(m *manifest)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.manifest
	m.Segments = slices.Clone(m.Segments)
	m.Nodes = []Node{m.Nodes[0].clone()}
	change(&m)
	if err := m.write(s.dir); err != nil {
		return err
	}
	s.manifest = m
	return nil
}

// discard removes files that the manifest does not name any more, after it has made that
// last: a loss of power brings back a manifest that names them otherwise. While that fails
// they stay, until it works with the next commit, or the next start removes them.
func (s *Store) discard(paths []string) {
	s.mu.Lock()
	old := append(s.old, paths...)
	s.old = nil // what others add is of a manifest that the sync may be too early for
	s.mu.Unlock()
	if err := s.syncDir(s.dir); err != nil {
		s.mu.Lock()
		s.old = append(s.old, old...)
		s.mu.Unlock()
		err = fmt.Errorf("sync the folder of the store, which keeps %d files that it does not need until that works: %w", len(old), err)
		s.failed.Store(&err)
		return
	}
	s.point("sync")
	for _, path := range old {
		os.Remove(path) // the next start tries again
		s.point("removal")
	}
}

func (s *Store) takeNumber() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.manifest.Next
	s.manifest.Next++
	return n
}

// Segments returns what is in files.
func (s *Store) Segments() []Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.manifest.Segments)
}

// Close flushes and ends the store. Whatever error it returns, what was written is in the
// store.
func (s *Store) Close() error {
	var err error
	if s.frozen != nil {
		err = s.drain()
	}
	s.cancel() // of merges, which are not worth waiting for
	s.mergers.Wait()
	if err == nil && s.size > 0 {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		err = s.drain()
	}
	s.release()
	return errors.Join(err, s.failure())
}

// Abandon ends the store as the end of the process does: without a flush.
func (s *Store) Abandon() {
	if s.frozen != nil {
		<-s.flushed
	}
	s.release()
}

// release closes all files.
func (s *Store) release() {
	s.cancel()
	s.mergers.Wait()
	if s.journal != nil {
		s.journal.Close()
	}
	s.lock.Close()
}
