// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// nameTime is how long a process's name is believed: it can execute another program.
	nameTime = time.Second

	// sweepTime is how long a process is kept in mind that makes no records.
	sweepTime = 2 * time.Second

	// maxAlive bounds how many processes are kept in mind, each with a descriptor.
	maxAlive = 512

	// maxTold bounds how many names are kept in mind that opens told.
	maxTold = 1 << 16
)

// alive finds the names of the processes that make records. The record of an open can have
// it; for others it is looked up. The kernel uses the number of a process that has ended
// again, so a name goes only with records of a time at which its process is known to have
// lived, or soon after an open that told it: no kernel uses a number again within a second.
type alive struct {
	*processes
	kept  map[uint32]*living // by number
	told  map[uint32]told    // by number
	swept time.Time
}

// told is the name that an open's record has.
type told struct {
	name string
	at   uint64 // the record's time
}

// living is a process that was found.
type living struct {
	process
	looked int64 // when its name was
	fd     int   // a pidfd, -1 if the kernel has none
	used   bool  // since the last sweep
}

func newAlive(env *environment) *alive {
	return &alive{processes: newProcesses(env), kept: make(map[uint32]*living), told: make(map[uint32]told)}
}

// name returns the name of the process that made a record, as it is; "" if it is not
// known.
func (a *alive) name(rec *notify.Record) string {
	now := a.env.now()
	if now.Sub(a.swept) > sweepTime || len(a.kept) == maxAlive || len(a.told) == maxTold {
		a.sweep(now)
	}
	if name := rec.Command(); name != "" {
		a.told[rec.PID] = told{name, rec.TimeNS}
		if l := a.kept[rec.PID]; l != nil && l.livedAt(int64(rec.TimeNS)) {
			l.name = name // it executed another program
		}
		return name
	}
	if name := a.find(rec, now); name != "" {
		return name
	}
	if t, ok := a.told[rec.PID]; ok && rec.TimeNS-t.at <= uint64(nameTime) {
		return t.name
	}
	return ""
}

// find returns the name of the process that made a record, if that lives or was seen alive
// at that time.
func (a *alive) find(rec *notify.Record, now time.Time) string {
	at, l := int64(rec.TimeNS), a.kept[rec.PID]
	// Nobody else had the number until now if it lives after now was read.
	if l != nil && at > l.seen && l.lives() {
		l.seen = now.UnixNano()
	}
	if l == nil || !l.livedAt(at) || l.seen-l.looked > int64(nameTime) {
		l = a.meet(rec.PID)
	}
	if l == nil {
		return ""
	}
	l.used = true
	if !l.livedAt(at) {
		return "" // it has the number of the one that made the record
	}
	return l.name
}

// meet looks for a process. What was known of one with that number is kept if it has
// ended: it may have made other records.
func (a *alive) meet(pid uint32) *living {
	// Before it is looked at: if it ends in between, the descriptor is the one that is of
	// another process, which has ended.
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		fd = -1
	}
	found, ok := a.look(pid)
	old := a.kept[pid]
	if !ok {
		closeFD(fd)
		return old
	}
	if old != nil {
		closeFD(old.fd)
	}
	l := &living{process: found, looked: found.seen, fd: fd}
	a.kept[pid] = l
	return l
}

// lives tells whether the process lives for sure.
func (l *living) lives() bool {
	if l.fd < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0
}

// sweep forgets the processes that made no records since the last one, or all if that
// does not make room.
func (a *alive) sweep(now time.Time) {
	a.swept = now
	maps.DeleteFunc(a.told, func(_ uint32, t told) bool { return uint64(now.UnixNano())-t.at > uint64(nameTime) })
	if len(a.told) == maxTold {
		clear(a.told)
	}
	before := len(a.kept)
	for pid, l := range a.kept {
		if !l.used {
			closeFD(l.fd)
			delete(a.kept, pid)
		}
		l.used = false
	}
	if before == maxAlive && len(a.kept) == maxAlive {
		a.close()
	}
}

// close forgets all.
func (a *alive) close() {
	for _, l := range a.kept {
		closeFD(l.fd)
	}
	clear(a.kept)
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
