// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// patience is how long a test waits for something that must happen. It is long
// because the machine is emulated and shares two cores.
const patience = 60 * time.Second

func inGuest(t *testing.T) {
	t.Helper()
	if os.Getenv(proto.EnvGuest) == "" {
		t.Skip("runs only in a machine that tests/rpm boots")
	}
}

// try runs a program and returns its output.
func try(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, append([]string{"systemctl", "--no-pager"}, args...)...)
}

// until polls until done returns true. It is for changes in other processes that
// nothing signals.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

// fs is a file system to mount at dir, with the daemon's instance for it.
type fs struct {
	t    *testing.T
	dir  string
	unit string // scoutfs-notifyd@...
	fsid string
}

// newFS prepares a file system without mounting it. The test's cleanup removes it.
func newFS(t *testing.T, name string, fsid uint64) *fs {
	t.Helper()
	inGuest(t)
	if _, err := os.Stat("/sys/module/scoutfs"); err != nil {
		run(t, "modprobe", "scoutfs")
	}
	dir := "/mnt/" + name
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := &fs{t: t, dir: dir, unit: "scoutfs-notifyd@mnt-" + name + ".service", fsid: fmt.Sprintf("%016x", fsid)}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", f.unit, "-u", "mnt-"+name+".mount")
			t.Logf("journal:\n%s", out)
		}
		_, _ = try("systemctl", "stop", f.unit)
		_, _ = try("systemctl", "--no-reload", "disable", f.unit)
		_ = unix.Unmount(dir, 0)
	})
	return f
}

// mount runs mount(8).
func (f *fs) mount() {
	f.t.Helper()
	run(f.t, "mount", "-t", "scoutfs", "-o", "fsid="+f.fsid, "none", f.dir)
}

// umount runs umount(8), which must succeed at the first try.
func (f *fs) umount() {
	f.t.Helper()
	run(f.t, "umount", f.dir)
}

// property asks systemd, again while that executes itself anew.
func (f *fs) property(name string) (value string) {
	f.t.Helper()
	var out string
	var err error
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err = try("systemctl", "--no-pager", "show", "--value", "-p", name, f.unit)
		if err == nil {
			return strings.TrimSpace(out)
		}
		if time.Now().After(end) {
			f.t.Fatalf("property %s of %s: %v\n%s", name, f.unit, err, out)
		}
	}
}

func (f *fs) await(state string) {
	f.t.Helper()
	until(f.t, f.unit+" is "+state, func() bool { return f.property("ActiveState") == state })
}

func (f *fs) socket() string { return "/run/scoutfs/" + f.fsid + "/notify.sock" }

// stopped waits for the instance to end and checks what it leaves.
func (f *fs) stopped() {
	f.t.Helper()
	f.await("inactive")
	if got := f.property("Result"); got != "success" {
		f.t.Errorf("%s ended with result %s", f.unit, got)
	}
	if _, err := os.Lstat(f.socket()); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("the stopped instance left its socket: %v", err)
	}
	if fi, err := os.Stat("/run/scoutfs"); err != nil || !fi.IsDir() {
		f.t.Errorf("/run/scoutfs: %v", err)
	}
}

// serves waits until the instance serves what is mounted.
func (f *fs) serves() {
	f.t.Helper()
	until(f.t, f.unit+" serves", func() bool { return strings.HasPrefix(f.property("StatusText"), "serving") })
}

// waits waits until the instance waits for a mount, and checks what it leaves.
func (f *fs) waits() {
	f.t.Helper()
	until(f.t, f.unit+" waits", func() bool {
		return strings.HasPrefix(f.property("StatusText"), "waiting for a ScoutFS")
	})
	if left, err := filepath.Glob(filepath.Dir(f.socket()) + "/*"); err != nil || len(left) > 0 {
		f.t.Errorf("the instance that waits has files: %v, %v", left, err)
	}
}

// tail is a running "scoutfs-notify tail -json" that is a client of the daemon.
type tail struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	fs    *fs
	err   strings.Builder
}

func (f *fs) tail() *tail {
	f.t.Helper()
	c := &tail{t: f.t, cmd: exec.Command("scoutfs-notify", "tail", "-json", f.dir), fs: f}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	c.cmd.Stderr = &c.err
	if err := c.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	c.lines = bufio.NewScanner(out)
	until(f.t, "tail is a client", func() bool {
		if err := c.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			f.t.Fatalf("tail: %v", err)
		}
		return f.hasClient(c.cmd.Process.Pid)
	})
	return c
}

// hasClient reports whether a process is a client of the daemon.
func (f *fs) hasClient(pid int) bool {
	var st struct {
		Clients []struct{ PID int }
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(f.socket()), "state.json"))
	if err != nil || json.Unmarshal(text, &st) != nil {
		return false
	}
	for _, c := range st.Clients {
		if c.PID == pid {
			return true
		}
	}
	return false
}

// sees writes and reads a file, and waits for tail to print the read.
func (c *tail) sees(name string) {
	c.t.Helper()
	path := filepath.Join(c.fs.dir, name)
	if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		c.t.Fatal(err)
	}
	if _, err := os.ReadFile(path); err != nil {
		c.t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	for c.lines.Scan() {
		var rec struct {
			Type   string
			Ino    uint64
			PID    int
			Length uint64
		}
		if err := json.Unmarshal(c.lines.Bytes(), &rec); err != nil {
			c.t.Fatalf("tail printed %q: %v", c.lines.Text(), err)
		}
		if rec.Type == "read" && rec.Ino == st.Ino && rec.PID == os.Getpid() && rec.Length == 4 {
			return
		}
	}
	c.t.Fatalf("tail ended without the record of %s: %v\n%s", path, c.lines.Err(), c.err.String())
}

// ends waits for the end of the stream.
func (c *tail) ends() {
	c.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	for c.lines.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("tail: %v\n%s", err, c.err.String())
	}
}

// The machine runs systemd and has the package's folder for sockets.
func TestMachine(t *testing.T) {
	inGuest(t)
	if out, err := os.ReadFile("/proc/1/comm"); err != nil || string(out) != "systemd\n" {
		t.Fatalf("PID 1 is %q: %v", out, err)
	}
	// tmpfiles made it at boot: /run was empty.
	var st unix.Stat_t
	if err := unix.Stat("/run/scoutfs", &st); err != nil || st.Mode != unix.S_IFDIR|0o755 || st.Uid != 0 {
		t.Errorf("/run/scoutfs: mode %o, user %d, %v", st.Mode, st.Uid, err)
	}
	// The textfile collector reads the folders that its pattern matches, and fails if
	// there is none. The instances of other tests come later.
	folders, err := filepath.Glob("/run/scoutfs/*")
	if err != nil || len(folders) == 0 {
		t.Errorf("nothing for the node exporter to read: %v, %v", folders, err)
	}
	t.Log(run(t, "uname", "-r"), run(t, "systemctl", "--version"), run(t, "modinfo", "-F", "git_describe", "scoutfs"))
}

// The README's commands, with mount(8) and umount(8).
// yields checks that the daemon has the unit's nice value, and that one thread of it, the
// relay's, may set the policy with which an access that wakes it is not interrupted.
func (f *fs) yields() {
	f.t.Helper()
	stats, err := filepath.Glob("/proc/" + f.property("MainPID") + "/task/*/stat")
	if err != nil || len(stats) == 0 {
		f.t.Fatalf("the threads of %s: %v, %v", f.unit, stats, err)
	}
	batch := 0
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest) // from the third on, as proc_pid_stat(5) counts
		if nice, want := fields[19-3], f.property("Nice"); nice != want || want == "0" {
			f.t.Errorf("%s: nice value %s, the unit has %s", name, nice, want)
		}
		if fields[41-3] == strconv.Itoa(unix.SCHED_BATCH) {
			batch++
		}
	}
	if batch != 1 {
		f.t.Errorf("%d threads of the daemon have SCHED_BATCH, should be 1", batch)
	}
}

func TestPlainMount(t *testing.T) {
	f := newFS(t, "scoutfs", 0xa1)
	f.mount()
	run(t, "sh", "-eu", Enable)
	f.await("active")
	c := f.tail()
	c.sees("one")
	f.yields()

	// umount(8) succeeds although there is a client, and the stream ends.
	f.umount()
	c.ends()
	f.waits()

	// The mount alone is enough for it to serve again.
	f.mount()
	f.serves()
	c = f.tail()
	c.sees("two")

	// Stopping the instance does not unmount, and it can be started again.
	systemctl(t, "stop", f.unit)
	c.ends()
	f.stopped()
	if _, err := notify.Statfs(f.dir); err != nil {
		t.Errorf("after the instance was stopped: %v", err)
	}
	systemctl(t, "start", f.unit)
	f.tail().sees("three")

	// A restart is told from a stop.
	if got := f.property("RestartKillSignal"); got != strconv.Itoa(int(unix.SIGUSR2)) {
		t.Errorf("RestartKillSignal is %s", got)
	}
	systemctl(t, "restart", f.unit)
	f.serves()
	f.tail().sees("restarted")

	// And the mount alone starts one that was stopped.
	systemctl(t, "stop", f.unit)
	f.umount()
	f.mount()
	f.await("active")
	f.tail().sees("file")

	// An emulated machine is too slow to reach systemd's default limit of starts, hence
	// this check.
	if got := f.property("StartLimitIntervalUSec"); got != "0" {
		t.Errorf("StartLimitIntervalUSec is %s, so a daemon that is killed often would reach the limit", got)
	}
	for range 3 {
		f.umount()
		f.mount()
	}
	f.serves()
	f.tail().sees("four")
	systemctl(t, "stop", "mnt-scoutfs.mount")
	f.waits()
}

// mountUnit makes a mount unit for the file system.
func (f *fs) mountUnit() (name string) {
	f.t.Helper()
	name = strings.TrimPrefix(strings.TrimSuffix(f.unit, ".service"), "scoutfs-notifyd@") + ".mount"
	file := "/etc/systemd/system/" + name
	text := "[Mount]\nType=scoutfs\nWhat=none\nWhere=" + f.dir + "\nOptions=fsid=" + f.fsid + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_, _ = try("systemctl", "stop", name)
		os.Remove(file)
		_, _ = try("systemctl", "daemon-reload")
	})
	systemctl(f.t, "daemon-reload")
	return name
}

// A mount unit starts the instance, and the instance its mount.
func TestMountUnit(t *testing.T) {
	f := newFS(t, "unit", 0xa2)
	unit := f.mountUnit()
	systemctl(t, "enable", f.unit)
	systemctl(t, "start", unit)
	f.await("active")
	c := f.tail()
	c.sees("file")
	systemctl(t, "stop", unit)
	c.ends()
	f.waits()
	// The instance starts its mount, also when it runs already.
	systemctl(t, "start", f.unit)
	f.serves()
	systemctl(t, "stop", unit, f.unit)
	f.stopped()
	systemctl(t, "start", f.unit)
	f.serves()
	systemctl(t, "restart", unit)
	f.serves()
	c = f.tail()
	c.sees("file")
	// A mount unit that fails is no reason to fail.
	systemctl(t, "stop", unit, f.unit)
	if err := os.WriteFile("/etc/systemd/system/"+unit, []byte("[Mount]\nType=scoutfs\nWhat=none\nWhere="+f.dir+"\nOptions=fsid=wrong\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "start", f.unit)
	f.waits()
}

// Two instances; stopping one leaves the other running.
func TestTwoInstances(t *testing.T) {
	a, b := newFS(t, "a", 0xb1), newFS(t, "b", 0xb2)
	for _, f := range []*fs{a, b} {
		f.mount()
		systemctl(t, "enable", "--now", f.unit)
	}
	ca, cb := a.tail(), b.tail()
	ca.sees("file")
	cb.sees("file")
	systemctl(t, "stop", a.unit)
	ca.ends()
	a.stopped()
	cb.sees("another")
	b.tail().sees("third")
	a.umount()
	b.tail().sees("fourth")
}

// The module is loaded, but the mount is another file system: it waits.
func TestNoScoutFS(t *testing.T) {
	f := newFS(t, "tmp", 0xc1)
	run(t, "mount", "-t", "tmpfs", "none", f.dir)
	systemctl(t, "start", f.unit)
	f.waits()
	if state, restarts := f.property("ActiveState"), f.property("NRestarts"); state != "active" || restarts != "0" {
		t.Errorf("state %s, %s restarts; want active, 0", state, restarts)
	}
	until(t, "the journal says why", func() bool {
		out, _ := try("journalctl", "--no-pager", "-u", f.unit)
		return strings.Contains(out, "mounted_there=tmpfs")
	})
	run(t, "umount", f.dir)
	f.mount()
	f.serves()
}

// Another reader has the file system: the daemon tries until it is gone.
func TestBusy(t *testing.T) {
	f := newFS(t, "busy", 0xc2)
	f.mount()
	reader, err := notify.Attach(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	systemctl(t, "enable", "--now", f.unit)
	if got := f.property("StatusText"); !strings.HasPrefix(got, "cannot serve") || !strings.Contains(got, "another reader is attached") {
		t.Errorf("status: %s", got)
	}
	time.Sleep(3 * time.Second) // in which it tries again, which nothing shows
	reader.Close()
	f.serves()
	f.tail().sees("file")
	if out := run(t, "journalctl", "--no-pager", "-u", f.unit); strings.Count(out, "level=ERROR") != 1 {
		t.Errorf("not one error in its log:\n%s", out)
	}
}

// systemd restarts a hanging daemon, but not an idle one.
func TestWatchdog(t *testing.T) {
	f := newFS(t, "dog", 0xd1)
	drop := "/run/systemd/system/" + f.unit + ".d"
	if err := os.MkdirAll(drop, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(drop)
		_, _ = try("systemctl", "daemon-reload")
	})
	// The unit's 30 seconds are too long for a test, and a stopped process does not
	// react to SIGABRT.
	if err := os.WriteFile(drop+"/test.conf", []byte("[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	f.mount()
	systemctl(t, "enable", "--now", f.unit)
	first := f.property("MainPID")
	for range 2 {
		last := f.property("WatchdogTimestampMonotonic")
		until(t, "a watchdog message", func() bool { return f.property("WatchdogTimestampMonotonic") != last })
	}
	if got := f.property("MainPID"); got != first {
		t.Fatalf("an idle daemon was restarted: pid %s, before %s", got, first)
	}
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "a new daemon", func() bool {
		return f.property("NRestarts") == "1" && f.property("ActiveState") == "active"
	})
	f.serves()
	f.tail().sees("file")
}

// byteRead is a record of a one-byte read. Reads have consecutive offsets from 0.
type byteRead struct {
	seq, offset uint64
}

// The daemon's package is upgraded while a file is read. The client sees the end of
// the stream and reconnects. Its records are complete except where seq has a gap.
func TestUpgrade(t *testing.T) {
	f := newFS(t, "load", 0xe1)
	f.mount()
	systemctl(t, "enable", "--now", f.unit)
	before := f.property("MainPID")

	// An instance that waits is restarted without its mount.
	idle := newFS(t, "idle", 0xe2)
	idleMount := idle.mountUnit()
	systemctl(t, "start", idle.unit)
	systemctl(t, "stop", idleMount)
	idle.waits()
	idleBefore := idle.property("MainPID")

	file, err := os.OpenFile(filepath.Join(f.dir, "data"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 24); err != nil {
		t.Fatal(err)
	}

	client, err := notify.Dial(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	var recs []byteRead
	resumed := make(map[int]bool) // indices of the first records after a reconnect
	stop, received := make(chan struct{}), make(chan error, 1)
	var last uint64 // the offset that ends the client, set before stop is closed
	go func() {
		received <- func() error {
			for {
				rec, err := client.Next()
				switch {
				case err == nil && rec.Type == notify.TypeRead:
					recs = append(recs, byteRead{rec.Seq, rec.Offset})
					select {
					case <-stop:
						if rec.Offset >= last {
							return nil
						}
					default:
					}
					continue
				case err == nil && rec.Type == notify.TypeOpen && rec.PID == uint32(os.Getpid()) && len(recs) == 0:
					// The open above was still in the ring when the client connected.
					continue
				case err == nil:
					return fmt.Errorf("unexpected record: %+v", rec)
				// A daemon that is stopping may refuse the client.
				case !errors.Is(err, io.EOF) && !errors.Is(err, notify.ErrRefused):
					return err
				}
				client.Close()
				end := time.Now().Add(patience)
				for {
					client, err = notify.Dial(f.dir)
					if err == nil {
						break
					}
					if time.Now().After(end) {
						return err
					}
					time.Sleep(10 * time.Millisecond)
				}
				resumed[len(recs)] = true
			}
		}()
	}()

	// At most one read per millisecond: the emulated machine must keep up.
	var load sync.WaitGroup
	quit := make(chan struct{})
	next := uint64(0)
	load.Go(func() {
		b := make([]byte, 1)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ; ; next++ {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if _, err := file.ReadAt(b, int64(next)); err != nil {
				t.Errorf("read at %d: %v", next, err)
				return
			}
		}
	})
	run(t, "rpm", "-U", Upgrade)
	until(t, "a new daemon", func() bool {
		pid := f.property("MainPID")
		return f.property("ActiveState") == "active" && pid != before && pid != "0"
	})
	until(t, "the client to reconnect", func() bool {
		select {
		case err := <-received:
			t.Fatalf("the client ended: %v", err)
		default:
		}
		return f.hasClient(os.Getpid())
	})
	close(quit)
	load.Wait()
	// The client is connected, so it gets this read, which ends it.
	last = next
	close(stop)
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, int64(next)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-received:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the last record did not arrive")
	}
	client.Close()

	if got := f.property("NRestarts"); got != "0" {
		t.Errorf("%s automatic restarts", got)
	}
	idle.waits()
	if out, err := try("systemctl", "is-active", idleMount); err == nil {
		t.Errorf("the upgrade has mounted a file system: %s", out)
	}
	if now := idle.property("MainPID"); now == idleBefore || now == "0" {
		t.Errorf("the instance that waits was process %s, and is %s", idleBefore, now)
	}
	// Without a daemon accesses are not counted, but a gap before the next daemon's
	// first record shows that there was none. Any other gap, from a ring that the
	// machine was too slow to drain, must be exactly as long as what is missing.
	var missing, dropped uint64
	for i := 1; i < len(recs); i++ {
		seq, offset := recs[i].seq-recs[i-1].seq, recs[i].offset-recs[i-1].offset
		switch {
		case resumed[i]:
			if missing += offset - 1; seq < 2 {
				t.Errorf("seq %d follows %d after the reconnect, without a gap", recs[i].seq, recs[i-1].seq)
			}
		case seq != offset:
			t.Errorf("%d reads are missing after seq %d, but the gap is %d", offset-1, recs[i-1].seq, seq-1)
		default:
			dropped += offset - 1
		}
	}
	if len(resumed) != 1 {
		t.Errorf("the client reconnected %d times, not once", len(resumed))
	}
	if len(recs) == 0 || recs[0].offset != 0 || uint64(len(recs))+missing+dropped != last+1 {
		t.Errorf("%d records, %d missing and %d dropped of %d reads", len(recs), missing, dropped, last+1)
	}
	t.Logf("%d reads, %d records, %d missing while there was no daemon, %d dropped", last+1, len(recs), missing, dropped)
	if out := run(t, "rpm", "-q", "scoutfs-notifyd"); !strings.HasPrefix(out, "scoutfs-notifyd-2-1") {
		t.Errorf("installed package: %s", out)
	}
	f.tail().sees("file")
}

// The daemon's package is removed while an enabled instance runs. This must be the last
// test.
func TestRemove(t *testing.T) {
	f := newFS(t, "gone", 0xf1)
	f.mount()
	systemctl(t, "enable", "--now", f.unit)
	links := func() []string {
		found, err := filepath.Glob("/etc/systemd/system/*/scoutfs-notifyd@*")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := links(); len(got) != 1 {
		t.Fatalf("links %v, want one", got)
	}
	c := f.tail()
	c.sees("file")

	run(t, "rpm", "-e", "scoutfs-notifyd")
	c.ends()
	f.await("inactive")
	if got := links(); len(got) != 0 {
		t.Errorf("links left: %v", got)
	}
	for _, path := range []string{f.socket(), "/run/scoutfs", "/usr/lib/systemd/system/scoutfs-notifyd@.service"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if got := f.property("LoadState"); got != "not-found" {
		t.Errorf("systemd still knows the unit: %s", got)
	}
	// The mount stays.
	if text, err := os.ReadFile(filepath.Join(f.dir, "file")); err != nil || string(text) != "text" {
		t.Errorf("read a file: %q, %v", text, err)
	}
	if _, err := notify.Statfs(f.dir); err != nil {
		t.Error(err)
	}
	f.umount()
}
