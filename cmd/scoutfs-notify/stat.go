// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"cmp"
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

const statAbout = `Asks the daemon whether it serves the file system, and shows its clients, what they
lost, the counters of the kernel's part, and which module is loaded and which the next
boot loads. The daemon's figures are as old as its
-interval at most, 1s by default. Any user can run it, but only root can ask: others
see what the daemon wrote last.
`

// answerTime is how long the daemon may take to answer. It answers at once, unless it is
// stopped or gets no processor time.
const answerTime = 5 * time.Second

// runStat is the command stat.
func runStat(ctx context.Context, env *environment, args []string) error {
	flags := flag.NewFlagSet("stat", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	mount, err := parseFlags(env, flags, statAbout, args)
	if err != nil {
		return err
	}
	st, err := gather(ctx, env, mount)
	if err == nil {
		st.Module, err = readModules(ctx, env)
	}
	switch {
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
		err = st.print(env, mount)
	}
	if err == nil && st.Running != nil && !*st.Running {
		err = errReported
	}
	return err
}

// status is what stat shows.
type status struct {
	FSID    notify.ID       `json:"fsid"`
	RID     notify.ID       `json:"rid"`
	Device  notify.Device   `json:"device"`
	Running *bool           `json:"running"` // a daemon serves the file system; nil if the caller may not ask
	Daemon  *notify.State   `json:"daemon"`  // nil if none runs, or has written it
	Kernel  *kernelCounters `json:"kernel"`  // nil if the module has no notify support
	Module  *modules        `json:"module"`

	hello  *notify.Hello // the daemon's answer
	silent bool          // somebody listens, but does not answer
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
	// A file system cannot be unmounted while it is asked which one it is. The state
	// file of a daemon that serves it makes that unnecessary.
	if s, ok := dialer(env, notify.Filter{}).Served(mount); ok {
		st, err := ask(ctx, env, s.Socket, s.Mount)
		if err != nil || st.Daemon != nil {
			return st, err
		}
	}
	m, err := env.statfs(ctx, mount)
	isFile := errors.Is(err, syscall.ENOTDIR)
	switch {
	case (isFile || errors.Is(err, os.ErrNotExist)) && isSocketPath(mount):
		return ask(ctx, env, mount, notify.Mount{})
	case isFile:
		return nil, fmt.Errorf("stat %s: %w", mount, notify.ErrTarget)
	case err != nil:
		return nil, err
	}
	return ask(ctx, env, filepath.Join(env.runDir, m.FSID.String(), notify.SocketName), m)
}

// ask asks the daemon at a socket for its status, which must be that of a mount. Fields
// of that which are zero are not known.
func ask(ctx context.Context, env *environment, socket string, m notify.Mount) (*status, error) {
	st := &status{}
	if err := st.probe(ctx, env, socket); err != nil {
		return nil, err
	}
	state, err := notify.ReadState(filepath.Join(filepath.Dir(socket), notify.StateName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// A daemon that was killed leaves its file.
	if gone := st.Running != nil && !*st.Running && !st.silent; state != nil && !gone {
		st.Daemon = state
	}
	for _, known := range []notify.Mount{helloMount(st.hello), stateMount(st.Daemon)} {
		if m, err = sameMount(m, known); err != nil {
			return nil, fmt.Errorf("%s: %w", socket, err)
		}
	}
	st.FSID, st.RID, st.Device = m.FSID, m.RID, m.Device
	st.Kernel, err = readCounters(env.sysfs, m)
	return st, err
}

// probe asks who is at a socket.
func (st *status) probe(ctx context.Context, env *environment, socket string) error {
	answered, cancel := context.WithTimeout(ctx, env.patience)
	defer cancel()
	hello, err := dialer(env, notify.Filter{}).Probe(answered, socket)
	yes, no := true, false
	why, _ := notify.Refusal(err)
	switch {
	case err == nil:
		st.Running, st.hello = &yes, hello
	case errors.Is(err, notify.ErrNotRunning):
		st.Running = &no
	case errors.Is(err, os.ErrPermission), why == notify.EndCredentials:
		// Not even whether it runs is known.
	case ctx.Err() == nil && answered.Err() != nil:
		st.Running, st.silent = &no, true
	default:
		return err
	}
	return nil
}

func helloMount(h *notify.Hello) notify.Mount {
	if h == nil {
		return notify.Mount{}
	}
	return notify.Mount{FSID: h.FSID, RID: h.RID, Device: h.Device}
}

func stateMount(st *notify.State) notify.Mount {
	if st == nil {
		return notify.Mount{}
	}
	return notify.Mount{FSID: st.FSID, RID: st.RID, Device: st.Device}
}

// sameMount puts together what is known about a mount from two sides, which must not
// contradict each other.
func sameMount(asked, found notify.Mount) (m notify.Mount, err error) {
	switch {
	case asked.FSID != 0 && found.FSID != 0 && asked.FSID != found.FSID:
		err = fmt.Errorf("%w: file system %v, not %v", notify.ErrOtherMount, found.FSID, asked.FSID)
	case asked.Device != notify.Device{} && found.Device != notify.Device{} && asked.Device != found.Device:
		err = fmt.Errorf("%w: that on device %v, not that on device %v", notify.ErrOtherMount, found.Device, asked.Device)
	case asked.RID != 0 && found.RID != 0 && asked.RID != found.RID:
		err = fmt.Errorf("%w: %v, not %v", notify.ErrOtherMount, found.RID, asked.RID)
	}
	m = notify.Mount{FSID: cmp.Or(asked.FSID, found.FSID), RID: cmp.Or(asked.RID, found.RID), Device: cmp.Or(asked.Device, found.Device)}
	return m, err
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

const dateTime = "2006-01-02 15:04:05"

func when(t time.Time) string { return t.Local().Format(dateTime) }

// print writes the status for people.
func (st *status) print(env *environment, mount string) error {
	w := bufio.NewWriter(env.stdout)
	item := func(name, format string, a ...any) {
		fmt.Fprintf(w, "%-13s"+format+"\n", append([]any{name}, a...)...)
	}
	if st.FSID != 0 {
		device := ""
		if st.Device != (notify.Device{}) {
			device = fmt.Sprintf(", device %v", st.Device)
		}
		item("file system", "%v, mounted as %v%s", st.FSID, st.RID, device)
	}
	item("daemon", "%s", st.daemon(env, mount))
	if d := st.Daemon; d != nil {
		item("process", "%d for %s since %s, version %s, protocol %d", d.PID, printable(d.MountPoint), when(d.Start), printable(d.Version), d.Protocol)
		item("records", "%d from the kernel since %s, the last is number %d; %d dropped there", d.Records, when(d.Attached), d.LastSeq, d.KernelDropped)
		item("batches", "%d, %d of them full", d.Batches, d.FullBatches)
		item("sent", "%d records in %d packets; %d lost (episodes: %d)", d.SentRecords, d.SentPackets, d.LostRecords, d.LostEpisodes)
		item("queues", "%d bytes in all at most; cut short for that: %d", d.QueueLimit, d.QueueCuts)
		item("clients", "%d of %d; %d accepted so far", len(d.Clients), d.MaxClients, d.Accepted)
		r := d.Refused
		item("refused", "%d too many, %d not root, %d for want of resources, %d for breaking the protocol", r.MaxClients, r.Credentials, r.Resources, r.Protocol)
	}
	if k := st.Kernel; k == nil {
		item("kernel", "no notify counters: the module has no notify support, or the file system is not mounted")
	} else {
		item("kernel", "%d emitted, %d dropped, since the mount; readers so far: %d", k.Emitted, k.DroppedRingFull, k.ReaderAttached)
	}
	if m := st.Module; m != nil {
		item("module", "%s", m.loaded())
		item("next boot", "%s", m.nextBoot())
	}
	if st.Daemon != nil {
		printClients(w, st.Daemon.Clients)
	}
	return w.Flush()
}

// daemon says how the daemon is.
func (st *status) daemon(env *environment, mount string) string {
	asOf := "but has written no state"
	if st.Daemon != nil {
		asOf = "as of " + when(st.Daemon.Updated)
	}
	switch {
	case st.Running == nil && st.Daemon == nil:
		return "not known: only root can ask, and it has written no state"
	case st.Running == nil:
		return asOf + "; only root can ask whether it still runs"
	case *st.Running && st.Daemon == nil:
		return fmt.Sprintf("running since %s, %s: %s", when(st.hello.DaemonStart), asOf, logHint(env, mount))
	case *st.Running:
		return "running, " + asOf
	case st.silent:
		return fmt.Sprintf("does not answer within %v, %s: %s", env.patience, asOf, logHint(env, mount))
	}
	return "not running: " + startHint(env, mount)
}

// printClients writes the table of clients.
func printClients(w io.Writer, clients []notify.ClientState) {
	if len(clients) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%8s %10s  %-19s %8s %10s %-6s %14s %14s\n", "CLIENT", "PID", "SINCE", "PROTOCOL", "PER PACKET", "FILTER", "SENT", "LOST")
	for _, c := range clients {
		filter, behind := "no", ""
		if c.Filtered {
			filter = "yes"
		}
		if c.Behind {
			behind = "  behind"
		}
		fmt.Fprintf(w, "%8d %10d  %-19s %8d %10d %-6s %14d %14d%s\n", c.ID, c.PID, when(c.Since), c.Protocol, c.PerPacket, filter, c.Records, c.Lost, behind)
	}
}
