// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
)

// envRole is set in the machines, to one of the roles.
const (
	envRole     = "BENCH"
	envOnly     = "ONLY"           // which tables, a regular expression
	envProfile  = "PROFILE"        // not empty: tell who had the processor while a record waited
	envNice     = "NICE"           // the unit's Nice=
	roleCounted = "counted"        // one processor; the clock counts instructions
	roleTwo     = "two processors" // that run at the same time
	roleListen  = "listen"         // a process of these machines
)

var processorsOf = map[string]int{roleCounted: 1, roleTwo: 2}

// costTable is the name of the table of what observers add.
const costTable = "costs"

// wanted tells whether a machine has something to measure for the tables whose names match.
func wanted(role string, only *regexp.Regexp) bool {
	n := processorsOf[role]
	return n == 1 && only.MatchString(costTable) || len(loads(n, only)) > 0
}

// patience limits the wait for what has to come.
const patience = time.Minute

func guestMain(args []string) error {
	if os.Getenv(envRole) == roleListen {
		flags := flag.NewFlagSet("listen", flag.ContinueOnError)
		awake := flags.Bool("awake", false, "")
		clients := flags.Int("clients", 1, "")
		packet := flags.Int("packet", 1024, "")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return listen(args[0], *awake, *clients, *packet)
	}
	b, err := setUp()
	if err != nil {
		return err
	}
	only, err := regexp.Compile(os.Getenv(envOnly))
	if err != nil {
		return err
	}
	processors := processorsOf[os.Getenv(envRole)]
	if processors == 1 && only.MatchString(costTable) {
		if err := b.costs(); err != nil {
			return err
		}
	}
	return b.flows(loads(processors, only))
}

// bench is a mounted file system with a file in the page cache.
type bench struct{ read, openRead access }

func setUp() (*bench, error) {
	if err := guest.LoadModule(guest.Module); err != nil {
		return nil, err
	}
	hangs := time.AfterFunc(patience, func() {
		fmt.Printf("\n%s\n", guest.MountHangs)
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	})
	defer hangs.Stop()
	if err := guest.Mount(guest.MountPoint); err != nil {
		return nil, err
	}
	path := filepath.Join(guest.MountPoint, "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	b := &bench{read: reading(fd)}
	b.openRead, err = openReading(path)
	debug.SetGCPercent(-1) // not while it measures; there is little garbage
	return b, err
}

// report prints a result for the host.
func report(r result) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s%s\n", resultPrefix, text)
	return err
}

// process is a daemon or a listener.
type process struct {
	*exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
}

// startListener starts one and waits until it listens.
func startListener(args ...string) (*process, error) {
	p := &process{Cmd: exec.Command(benchPath, append([]string{"--"}, args...)...)}
	p.Env = append(os.Environ(), envRole+"="+roleListen)
	p.Stderr = &p.stderr
	out, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := p.Start
	if args[0] == "client" {
		start = func() error { return startNice(p.Cmd) }
	}
	if err := start(); err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		rest, _ := io.ReadAll(p.out)
		return nil, fmt.Errorf("listener %v is not ready: %q %w\n%s%s", args, line, p.Wait(), rest, p.stderr.Bytes())
	}
	return p, nil
}

// tally ends a listener and returns what it has counted.
func (p *process) tally() (t tally, err error) {
	if err := p.Process.Signal(unix.SIGTERM); err != nil {
		return t, err
	}
	err = json.NewDecoder(p.out).Decode(&t)
	if e := p.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("listener: %w\n%s", e, p.stderr.Bytes()))
	}
	return t, err
}

// startDaemon starts a daemon and waits until it serves.
func startDaemon(pause time.Duration) (*process, error) {
	path := filepath.Join(os.TempDir(), "ready")
	sd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer sd.Close()
	p := &process{Cmd: exec.Command(guest.Daemon, "-pause", pause.String(), guest.MountPoint)}
	p.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	p.Stderr = &p.stderr
	if err := startNice(p.Cmd); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		if err := sd.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return nil, err
		}
		n, err := sd.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("the daemon does not become ready: %w\n%s", err, p.stderr.Bytes())
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			return p, nil
		}
	}
}

// startNice starts the daemon, or a client, with the unit's Nice=. The clients, too: what is
// measured of their records is how late they are sent, and not when a busy processor has
// time for who gets them.
func startNice(cmd *exec.Cmd) error {
	nice, err := strconv.Atoi(os.Getenv(envNice))
	if err != nil {
		return fmt.Errorf("%s: %w", envNice, err)
	}
	// A process starts with the nice value of the thread that starts it. This thread ends
	// with its goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
			done <- fmt.Errorf("set the nice value: %w", err)
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

func (p *process) stop() error {
	if err := p.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("daemon: %w\n%s", err, p.stderr.Bytes())
	}
	return nil
}

// usualPause is the daemon's, if it is not told another.
const usualPause = time.Millisecond

// costs measures what each observer adds, in several rounds: now and then ScoutFS takes
// longer for a while, for reasons of its own.
func (b *bench) costs() error {
	observers := []struct {
		name   string
		daemon bool
		listen []string
	}{
		{unobserved, false, nil},
		{"fanotify (FID), awake", false, []string{"fanotify", "-awake"}},
		{"fanotify (FID), every 10 ms", false, []string{"fanotify"}},
		{"inotify, every 10 ms", false, []string{"inotify"}},
		{"eBPF kprobe and ring buffer, every 10 ms", false, []string{"ebpf"}},
		{"an empty kprobe", false, []string{"kprobe"}},
		{"scoutfs-notify, daemon and a client", true, []string{"client"}},
	}
	all := make([]sampled, len(observers))
	const rounds = 3
	for range rounds {
		for i, o := range observers {
			if err := b.sample(&all[i], o.daemon, o.listen); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
	}
	for i, o := range observers {
		c := cost{
			Observer: o.name, Awake: slices.Contains(o.listen, "-awake"),
			Read: all[i].read.instructions(), OpenRead: all[i].openRead.instructions(),
			Delivered: float64(all[i].delivered) / float64(all[i].events),
		}
		if err := report(result{Cost: &c}); err != nil {
			return err
		}
	}
	return nil
}

// sampled is what accesses took with an observer.
type sampled struct {
	read, openRead    samples
	events, delivered uint64
}

// sample adds some accesses with an observer.
func (b *bench) sample(s *sampled, daemon bool, listen []string) (err error) {
	if daemon {
		d, err := startDaemon(usualPause)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.stop()) }()
	}
	var l *process
	if listen != nil {
		if l, err = startListener(listen...); err != nil {
			return err
		}
	}
	const times = 60
	reads, err := b.read.sample(&s.read, times)
	if err != nil {
		return err
	}
	openReads, err := b.openRead.sample(&s.openRead, times)
	if err != nil {
		return err
	}
	s.events += reads + openReads
	if l == nil {
		return nil
	}
	t, err := l.tally()
	s.delivered += t.Events
	return err
}

// loads returns what to pass through the daemon, in a machine of so many processors, for
// the tables whose names match.
func loads(processors int, only *regexp.Regexp) (loads []flow) {
	const full, sparse = "as fast as possible", "sparse"
	add := func(table string, f flow) {
		f.Table = table + ", " + strconv.Itoa(processors) + " processor"
		if processors > 1 {
			f.Table += "s"
		}
		f.Processors = processors
		if f.Pause == 0 {
			f.Pause = usualPause
		}
		if only.MatchString(f.Table) {
			loads = append(loads, f)
		}
	}
	const many = 20_000
	for _, threads := range []int{1, 2, 4, 8, 16} {
		add(full, flow{Threads: threads, Clients: 1, Packet: 1024, Accesses: many})
	}
	if processors == 1 {
		for _, pause := range []time.Duration{100 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond} {
			add("by pause", flow{Threads: 1, Clients: 1, Packet: 1024, Accesses: many, Pause: pause})
		}
		for _, rate := range []int{1_000, 10_000, 50_000} {
			add("by rate", flow{Threads: 1, Clients: 1, Packet: 1024, Accesses: uint64(max(500, rate/5)), Rate: rate})
		}
		for _, clients := range []int{1, 4, 16, 64} {
			for _, packet := range []int{1, 64, 1024} {
				add("by clients", flow{Threads: 1, Clients: clients, Packet: packet, Accesses: 2_000, Rate: 10_000})
			}
		}
	}
	if processors == 1 {
		for _, clients := range []int{0, 1} {
			add(sparse, flow{Threads: 1, Clients: clients, Packet: 1, Accesses: 100, Rate: 20})
		}
	}
	return loads
}

// flows passes all loads through the daemon.
func (b *bench) flows(loads []flow) error {
	for _, f := range loads {
		if err := b.flow(&f); err != nil {
			return fmt.Errorf("%+v: %w", f, err)
		}
		if err := report(result{Flow: &f}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) flow(f *flow) (err error) {
	f.Accesses -= f.Accesses % uint64(f.Threads)
	load := func() error {
		f.Elapsed, f.Access, err = b.read.run(f.Threads, int(f.Accesses), f.Rate)
		return err
	}
	if f.Clients == 0 { // nor a daemon
		return load()
	}
	d, err := startDaemon(f.Pause)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	l, err := startListener("client", "-clients", strconv.Itoa(f.Clients), "-packet", strconv.Itoa(f.Packet))
	if err != nil {
		return err
	}
	before, err := processTime(d.Process.Pid)
	if err != nil {
		return err
	}
	profile := os.Getenv(envProfile) != ""
	if profile {
		if err := trace(); err != nil {
			return err
		}
	}
	if err := load(); err != nil {
		return err
	}
	t, err := l.tally() // which has the last records
	if err != nil {
		return err
	}
	if profile {
		if f.Ran, err = whoRan(t.Latest); err != nil {
			return err
		}
		f.Latest = t.Latest.length()
	}
	after, err := processTime(d.Process.Pid)
	f.Daemon = after - before
	f.Delivered, f.Sent, f.Late = t.Events, t.Sent, t.Late
	return err
}
