// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"cmp"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// raceClock is how far a record's time may be outside its access, for a module that
// reads a coarser clock.
const raceClock = 10 * time.Millisecond

// raceAccess is an access that must have a number, and the times around it.
type raceAccess struct {
	typ           notify.Type
	ino           uint64
	offset        int
	before, after uint64 // CLOCK_REALTIME, nanoseconds
}

// model has one reader from one quiet point, at which nobody accesses, to the next, and
// checks that all accesses in between are accounted for.
func (m *raceMount) model(round int) {
	a := m.actor(round, 200)
	m.owner.Clear()
	fd := -1
	for end := time.Now().Add(patience); fd < 0; time.Sleep(time.Millisecond) {
		// The storm's last reader may be in a socket that the kernel has yet to close.
		if fd = a.attach(); fd < 0 && (m.t.Failed() || time.Now().After(end)) {
			m.t.Error("nothing to attach to")
			return
		}
	}
	defer unix.Close(fd)
	s := &raceStream{fd: fd, keep: true}
	for !a.empty(s) { // the opens of failed attempts are from before
	}
	s.got = nil
	start := a.info(fd)

	logs := make([]*[]raceAccess, 4)
	tids := make([]uint32, len(logs))
	var openers, sharers sync.WaitGroup
	for i := range logs {
		logs[i] = new([]raceAccess)
		openers.Go(func() {
			runtime.LockOSThread() // for good: another one must not get the same thread after it
			tids[i] = uint32(unix.Gettid())
			m.actor(round, 300+i).logAccesses(i, logs[i])
		})
	}
	// If nobody drains before the end, the ring gets full.
	late := a.oneIn(2)
	var quiet atomic.Bool
	streams := []*raceStream{s, {fd: fd, keep: true}}
	for i, s := range streams {
		b := m.actor(round, 400+i)
		sharers.Go(func() {
			for !late && !quiet.Load() {
				b.drain(s)
				b.nap(30 * time.Millisecond)
			}
		})
	}
	openers.Wait()
	quiet.Store(true)
	sharers.Wait()

	end := a.info(fd)
	attempts := uint64(0)
	for _, log := range logs {
		attempts += uint64(len(*log))
	}
	if emitted, dropped := end["emitted"]-start["emitted"], end["dropped"]-start["dropped"]; emitted+dropped != attempts {
		m.t.Errorf("%d emitted and %d dropped, but there were %d accesses", emitted, dropped, attempts)
	}
	if numbers := end["next_seq"] - start["next_seq"]; numbers != attempts {
		m.t.Errorf("%d numbers for %d accesses", numbers, attempts)
	}
	unmount := a.oneIn(2) // what is left can be had afterwards, too
	if unmount {
		if err := umountPatiently(m.dir); err != nil {
			m.t.Errorf("umount with nobody there: %v", err)
		}
		m.count("umount")
	}
	for !a.empty(s) {
	}
	var got []notify.Record
	for _, s := range streams {
		got = append(got, s.got...)
	}
	if emitted := end["emitted"] - start["emitted"]; uint64(len(got)) != emitted {
		m.t.Errorf("%d records of %d emitted", len(got), emitted)
	}
	slices.SortFunc(got, func(x, y notify.Record) int { return cmp.Compare(x.Seq, y.Seq) })
	for i := range got {
		if i > 0 && got[i].Seq == got[i-1].Seq {
			m.t.Errorf("record %d came twice", got[i].Seq)
		}
	}
	for i, log := range logs {
		m.wantLogged(got, tids[i], *log)
	}
	m.count("quiet points")
	m.add("dropped", int(end["dropped"]-start["dropped"]))
	if unmount {
		m.mount()
	}
}

// info returns the numbers of a descriptor's fdinfo.
func (a *raceActor) info(fd int) map[string]uint64 {
	n := map[string]uint64{}
	for name, value := range fdinfo(a.t, fd) {
		if v, err := strconv.ParseUint(value, 10, 64); err == nil {
			n[name] = v
		}
	}
	return n
}

// empty drains, and reports whether nothing was left.
func (a *raceActor) empty(s *raceStream) bool {
	rn := &readNotify{recordsPtr: uint64(uintptr(unsafe.Pointer(&a.recs[0]))), recordsNr: notify.RingRecords}
	n, err := ioctlReadNotify(s.fd, rn)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		a.t.Errorf("drain: %v", err)
		return true
	}
	if n <= 0 {
		return true
	}
	s.last = 0 // another thread may have had later ones
	a.take(s, a.recs[:n*notify.RecordSize])
	return false
}

// logAccesses makes accesses to an opener's files and notes each.
func (a *raceActor) logAccesses(opener int, log *[]raceAccess) {
	a.files.RLock()
	defer a.files.RUnlock()
	for range 20 + a.rand.IntN(40) {
		at := raceAccess{typ: notify.TypeOpen, before: now()}
		fd, err := unix.Open(a.file(opener%raceOpeners*raceFiles+a.rand.IntN(raceFiles)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		at.after = now()
		if err != nil {
			a.t.Errorf("open: %v", err)
			return
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			a.t.Errorf("fstat: %v", err)
		}
		at.ino = st.Ino
		*log = append(*log, at)
		for range a.rand.IntN(24) {
			at := raceAccess{typ: notify.TypeRead, ino: st.Ino, offset: a.rand.IntN(raceSize - 3000)}
			at.before = now()
			n, err := a.readSomehow(fd, at.offset, raceLength(st.Ino, at.offset))
			at.after = now()
			if err != nil || n != raceLength(st.Ino, at.offset) {
				a.t.Errorf("read of %d bytes: %v", n, err)
			}
			*log = append(*log, at)
		}
		unix.Close(fd)
	}
}

// now returns CLOCK_REALTIME as the kernel has it.
func now() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
	return uint64(ts.Nano())
}

// wantLogged checks that the records of a thread are some of its accesses, in that order,
// with a time within each.
func (m *raceMount) wantLogged(recs []notify.Record, tid uint32, log []raceAccess) {
	next := 0
	for i := range recs {
		r := &recs[i]
		if r.TID != tid {
			continue
		}
		for next < len(log) && !log[next].made(r) {
			next++
		}
		if next == len(log) {
			m.t.Errorf("record %+v is of no access of thread %d's that is left", r, tid)
			return
		}
		next++
	}
}

// made reports whether a record can be of the access.
func (at *raceAccess) made(r *notify.Record) bool {
	const slack = uint64(raceClock)
	return r.Type == at.typ && r.Ino == at.ino && (at.typ == notify.TypeOpen || r.Offset == uint64(at.offset)) &&
		r.TimeNS+slack >= at.before && r.TimeNS <= at.after+slack
}
