// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const statAbout = `Shows whether a daemon serves the file system, its clients and what they lost,
and the counters of the kernel's part. The daemon's figures are as old as its
-interval at most, 1s by default. Any user who may open the directory MOUNT can
run it.
`

// runStat is the command stat.
func runStat(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("stat", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	mount, err := parseFlags(env, flags, statAbout, args)
	if err != nil {
		return err
	}
	st, err := gather(ctx, env, mount)
	switch {
	case errors.Is(err, context.Canceled):
		return nil // stopped while the cluster took its time
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: run this as a user who may open it, such as root", err)
	case err != nil:
		return explain(env, err, mount)
	}
	if *asJSON {
		e := json.NewEncoder(printableJSON{env.stdout})
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(st)
	} else {
		err = st.print(env.stdout, startHint(env, mount))
	}
	if err == nil && !st.Running {
		err = errReported
	}
	return err
}

// status is what stat shows.
type status struct {
	FSID    notify.ID       `json:"fsid"`
	RID     notify.ID       `json:"rid"`
	Running bool            `json:"running"` // a daemon serves the file system
	Daemon  *notify.State   `json:"daemon"`  // null if none does
	Kernel  *kernelCounters `json:"kernel"`  // null if the module has no notify support
}

// kernelCounters are those of one mount, since it was mounted.
type kernelCounters struct {
	Emitted         uint64 `json:"emitted"`           // records that entered the ring
	DroppedRingFull uint64 `json:"dropped_ring_full"` // records it had no room for
	ReaderAttached  uint64 `json:"reader_attached"`   // times that a reader attached
}

// gather collects the status of a mount, named by a directory of it or by its
// daemon's socket.
func gather(ctx context.Context, env *environment, mount string) (*status, error) {
	// A file system cannot be unmounted while it is asked which one it is. The
	// state file of a daemon that serves it makes that unnecessary.
	if service, ok := (&notify.Dialer{RunDir: env.runDir}).Served(mount); ok {
		if st, err := gatherFrom(env, filepath.Dir(service.Socket), notify.Mount{}); err == nil && st.Running {
			return st, nil
		}
	}
	m, err := env.statfs(ctx, mount)
	isFile := errors.Is(err, syscall.ENOTDIR)
	switch {
	case (isFile || errors.Is(err, os.ErrNotExist)) && isSocketPath(mount):
		return gatherFrom(env, filepath.Dir(mount), notify.Mount{})
	case isFile:
		return nil, fmt.Errorf("stat %s: %w", mount, notify.ErrTarget)
	case err != nil:
		return nil, err
	}
	return gatherFrom(env, filepath.Join(env.runDir, m.FSID.String()), m)
}

// gatherFrom collects what the daemon's directory and the kernel's counters say
// about a mount; for the zero Mount, about the one that the daemon serves.
func gatherFrom(env *environment, dir string, m notify.Mount) (*status, error) {
	st := status{FSID: m.FSID, RID: m.RID}
	state, err := notify.ReadState(filepath.Join(dir, notify.StateName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if state != nil {
		// A daemon that was killed leaves its file.
		if st.Running, err = holdsLock(env.proc, filepath.Join(dir, notify.LockName), state.PID); err != nil {
			return nil, err
		}
	}
	if st.Running {
		st.Daemon = state
		if st.FSID == 0 {
			st.FSID, st.RID = state.FSID, state.RID
		}
	}
	st.Kernel, err = readCounters(env.sysfs, notify.Mount{FSID: st.FSID, RID: st.RID})
	return &st, err
}

// holdsLock tells whether a process has locked a file. It asks /proc/locks: trying
// to lock the file could keep a daemon from starting.
func holdsLock(proc, path string, pid int) (bool, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, err := os.Open(filepath.Join(proc, "locks"))
	if err != nil {
		return false, err
	}
	defer f.Close()
	held, err := findLock(f, pid, fi.Sys().(*syscall.Stat_t).Ino)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return held, nil
}

// findLock looks for a lock of flock(2) in what proc_locks(5) describes:
//
//	1: FLOCK  ADVISORY  WRITE 4242 00:18:1234 0 EOF
//
// It does not compare the device, for which stat(2) gives another number on some
// file systems.
func findLock(r io.Reader, pid int, ino uint64) (bool, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[1] != "FLOCK" || f[4] != strconv.Itoa(pid) {
			continue
		}
		if strings.HasSuffix(f[5], ":"+strconv.FormatUint(ino, 10)) {
			return true, nil
		}
	}
	return false, s.Err()
}

// readCounters returns a mount's notify counters, nil if it has none.
func readCounters(sysfs string, m notify.Mount) (*kernelCounters, error) {
	// The directories have only parts of the identifiers in their names, which need
	// not be unique.
	files, err := filepath.Glob(filepath.Join(sysfs, "*", "rid"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		if readID(file) != m.RID || readID(filepath.Join(dir, "fsid")) != m.FSID {
			continue
		}
		var k kernelCounters
		for name, v := range map[string]*uint64{
			"notify_emitted":           &k.Emitted,
			"notify_dropped_ring_full": &k.DroppedRingFull,
			"notify_reader_attached":   &k.ReaderAttached,
		} {
			file := filepath.Join(dir, "counters", name)
			b, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				return nil, nil
			}
			if err == nil {
				*v, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			}
			if err != nil {
				return nil, fmt.Errorf("read counter %s: %w", file, err)
			}
		}
		return &k, nil
	}
	return nil, nil
}

// readID reads an identifier from a file; 0 if there is none.
func readID(file string) notify.ID {
	var id notify.ID
	if b, err := os.ReadFile(file); err == nil {
		if err := id.UnmarshalText([]byte(strings.TrimSpace(string(b)))); err != nil {
			return 0
		}
	}
	return id
}

// print writes the status for people.
func (st *status) print(out io.Writer, hint string) error {
	w := bufio.NewWriter(out)
	item := func(name, format string, a ...any) {
		fmt.Fprintf(w, "%-13s"+format+"\n", append([]any{name}, a...)...)
	}
	when := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

	if st.FSID != 0 {
		item("file system", "%v, mounted as %v", st.FSID, st.RID)
	}
	if d := st.Daemon; d == nil {
		item("daemon", "not running: %s", hint)
	} else {
		item("daemon", "running: process %d for %s since %s, version %s", d.PID, printable(d.MountPoint), when(d.Start), printable(d.Version))
		item("records", "%d from the kernel, the last is number %d; %d dropped there", d.Records, d.LastSeq, d.KernelDropped)
		item("batches", "%d, %d of them full", d.Batches, d.FullBatches)
		item("sent", "%d records in %d packets; %d lost (episodes: %d)", d.SentRecords, d.SentPackets, d.LostRecords, d.LostEpisodes)
		refused := d.Refused.MaxClients + d.Refused.Credentials + d.Refused.Resources + d.Refused.Protocol
		item("clients", "%d of %d; %d accepted and %d refused so far", len(d.Clients), d.MaxClients, d.Accepted, refused)
	}
	if k := st.Kernel; k == nil {
		item("kernel", "no notify counters: the module has no notify support, or the file system is not mounted")
	} else {
		item("kernel", "%d emitted, %d dropped, since the mount; readers so far: %d", k.Emitted, k.DroppedRingFull, k.ReaderAttached)
	}
	if st.Daemon != nil && len(st.Daemon.Clients) > 0 {
		fmt.Fprintf(w, "\n%8s %10s  %-19s %10s %14s %14s\n", "CLIENT", "PID", "SINCE", "PER PACKET", "SENT", "LOST")
		for _, c := range st.Daemon.Clients {
			behind := ""
			if c.Behind {
				behind = "  behind"
			}
			fmt.Fprintf(w, "%8d %10d  %-19s %10d %14d %14d%s\n", c.ID, c.PID, when(c.Since), c.PerPacket, c.Records, c.Lost, behind)
		}
	}
	return w.Flush()
}
