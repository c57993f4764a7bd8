// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Exclude says whose accesses warm nothing: those of one that is in any of the lists.
//
// Cgroups are looked up in /proc when the record comes, and kept for a second: the
// accesses of a process that has ended by then count. So are command names, if no open
// tells them. It is for one goroutine.
type Exclude struct {
	UIDs, GIDs []uint32
	Comms      []string // as in /proc/PID/comm
	CGroups    []string // paths, with all below them

	proc  string
	known map[uint32]process
}

type process struct {
	start    time.Time // or an access that tells its name
	comm     string
	inCGroup bool // that is left out
	expires  time.Time
}

const knownFor = time.Second

// String returns what Set takes.
func (x *Exclude) String() string {
	var out []string
	for _, u := range x.UIDs {
		out = append(out, fmt.Sprint("uid=", u))
	}
	for _, g := range x.GIDs {
		out = append(out, fmt.Sprint("gid=", g))
	}
	for _, c := range x.Comms {
		out = append(out, "comm="+c)
	}
	for _, c := range x.CGroups {
		out = append(out, "cgroup="+c)
	}
	return strings.Join(out, ",")
}

// Set adds uid=N, gid=N, comm=NAME and cgroup=PATH, with commas between them.
func (x *Exclude) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "uid" || key == "gid":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not %s= and a number", word, key)
			}
			list := map[string]*[]uint32{"uid": &x.UIDs, "gid": &x.GIDs}[key]
			*list = append(*list, uint32(n))
		case key == "comm" && value != "" && len(value) <= 15:
			x.Comms = append(x.Comms, value)
		case key == "comm":
			return fmt.Errorf("%q is not comm= and a command's name of up to 15 bytes, which is all that the kernel keeps", word)
		case key == "cgroup" && strings.HasPrefix(value, "/") && filepath.Clean(value) == value && value != "/":
			x.CGroups = append(x.CGroups, value)
		default:
			return fmt.Errorf("%q is not uid=N, gid=N, comm=NAME or cgroup=/PATH", word)
		}
	}
	return nil
}

// Match tells whether an access is of one that is left out.
func (x *Exclude) Match(rec *notify.Record) bool {
	if slices.Contains(x.UIDs, rec.UID) || slices.Contains(x.GIDs, rec.GID) {
		return true
	}
	if len(x.Comms) == 0 && len(x.CGroups) == 0 {
		return false
	}
	now := time.Now()
	p, ok := x.known[rec.PID]
	if !ok || now.After(p.expires) {
		p = x.lookUp(rec.PID)
		p.expires = now.Add(knownFor)
		if x.known == nil || len(x.known) > 1<<16 {
			x.known = make(map[uint32]process)
		}
		x.known[rec.PID] = p
	}
	// A process that started after the access has got the number since.
	older := rec.Time().Before(p.start)
	if comm := rec.Command(); comm != "" && older {
		return slices.Contains(x.Comms, comm)
	} else if comm != "" && comm != p.comm {
		p.comm, p.start = comm, rec.Time() // it executed another program, or has ended
		x.known[rec.PID] = p
	}
	return !older && (p.inCGroup || slices.Contains(x.Comms, p.comm))
}

// lookUp asks /proc. What cannot be read is not left out.
func (x *Exclude) lookUp(pid uint32) (p process) {
	dir := filepath.Join(x.proc, strconv.FormatUint(uint64(pid), 10))
	if x.proc == "" {
		dir = filepath.Join("/proc", dir)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}
	}
	comm, start, ok := parseStat(stat)
	if !ok {
		return process{}
	}
	_, offset := systemClock()
	p.start, p.comm = time.Unix(0, int64(offset+start)), comm
	if len(x.CGroups) > 0 {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		p.inCGroup = err == nil && x.inCGroup(string(text))
	}
	return p
}

// parseStat returns a process's command and when it started after the machine did, from
// /proc/PID/stat.
func parseStat(stat []byte) (comm string, start time.Duration, ok bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	const startTime = 22 - 3 // of the fields after the command, see proc_pid_stat(5)
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) <= startTime {
		return "", 0, false
	}
	ticks, err := strconv.ParseInt(fields[startTime], 10, 64)
	const perSecond = 100 // USER_HZ, everywhere
	return string(stat[open+1 : end]), time.Duration(ticks) * (time.Second / perSecond), err == nil
}

// inCGroup tells whether /proc/PID/cgroup names a path of the list or one below it.
func (x *Exclude) inCGroup(text string) bool {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for _, want := range x.CGroups {
			if parts[2] == want || strings.HasPrefix(parts[2], want+"/") {
				return true
			}
		}
	}
	return false
}
