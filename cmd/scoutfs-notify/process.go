// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of a process's start in /proc, USER_HZ, on all of Go's platforms.
const tick = time.Second / 100

// processes looks up processes by the numbers that records have.
type processes struct {
	env    *environment
	usable bool       // proc has the processes under these numbers
	buf    [1024]byte // for a stat file, of which a third may be used
}

// process is a process that was seen alive. Its times are in nanoseconds since the
// Unix epoch, like a record's.
type process struct {
	name  string
	start int64 // up to a tick before it started
	seen  int64
}

func (p *process) livedAt(ns int64) bool { return p.start <= ns && ns <= p.seen }

func newProcesses(env *environment) *processes {
	return &processes{env: env, usable: inInitialNamespace(env.proc)}
}

// inInitialNamespace tells whether the process numbers in proc are those of the
// initial pid namespace, which records have. A process of that namespace has an entry
// of its own in no other's proc, so it is enough to ask for its own.
func inInitialNamespace(proc string) bool {
	const initial = 0xEFFFFFFC // PROC_PID_INIT_INO, part of the kernel's ABI
	link, err := os.Readlink(filepath.Join(proc, "self/ns/pid"))
	return err == nil && link == fmt.Sprintf("pid:[%d]", initial)
}

// look finds a process that is alive.
func (p *processes) look(pid uint32) (process, bool) {
	if !p.usable {
		return process{}, false
	}
	// In this order a delay in between makes the process younger than it is, or seen
	// earlier: it may cost a name, but shows no other's.
	sinceBoot := p.env.sinceBoot()
	now := p.env.now().UnixNano()
	fd, err := unix.Open(filepath.Join(p.env.proc, strconv.FormatUint(uint64(pid), 10), "stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, false
	}
	n, err := unix.Read(fd, p.buf[:])
	unix.Close(fd)
	if err != nil {
		return process{}, false
	}
	name, start, ok := parseStat(p.buf[:n])
	if !ok {
		return process{}, false
	}
	return process{name: name, start: now - int64(sinceBoot) + int64(start), seen: now}, true
}

// parseStat returns a process's name, and its start since the system's, from what
// proc_pid_stat(5) describes. The name is in parentheses, may have others, and
// spaces, and field 22 is the start.
func parseStat(stat []byte) (name string, start time.Duration, ok bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	const first, want = 3, 22
	n := first
	for field := range bytes.FieldsSeq(stat[end+1:]) {
		if n == want {
			ticks, err := strconv.ParseUint(string(field), 10, 64)
			if err != nil || ticks > uint64(math.MaxInt64/tick) {
				return "", 0, false
			}
			return string(stat[open+1 : end]), time.Duration(ticks) * tick, true
		}
		n++
	}
	return "", 0, false
}

// sinceBoot returns the time since the system started, with that in suspend.
func sinceBoot() time.Duration {
	var ts unix.Timespec // if it fails, processes start in the future: no names
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
