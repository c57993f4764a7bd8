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

// patience is how long a test waits for what must come. The machine is emulated
// and shares two cores, so it is long.
const patience = 60 * time.Second

func inGuest(t *testing.T) {
	t.Helper()
	if os.Getenv(proto.EnvGuest) == "" {
		t.Skip("runs only in a machine that tests/rpm boots")
	}
}

// try runs a program and returns all it prints.
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

// until waits for what can only be asked for again and again: another process's
// doing, of which nothing tells.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// fs is a file system that the test mounts at dir, and the daemon's instance.
type fs struct {
	t    *testing.T
	dir  string
	unit string // scoutfs-notifyd@...
	fsid string
}

// newFS mounts nothing yet. Whatever happens, nothing of it is left afterwards.
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

// mount is plain mount(8).
func (f *fs) mount() {
	f.t.Helper()
	run(f.t, "mount", "-t", "scoutfs", "-o", "fsid="+f.fsid, "none", f.dir)
}

// umount is plain umount(8), which must succeed at the first try.
func (f *fs) umount() {
	f.t.Helper()
	run(f.t, "umount", f.dir)
}

func (f *fs) property(name string) string {
	f.t.Helper()
	return strings.TrimSpace(systemctl(f.t, "show", "--value", "-p", name, f.unit))
}

func (f *fs) await(state string) {
	f.t.Helper()
	until(f.t, f.unit+" is "+state, func() bool { return f.property("ActiveState") == state })
}

func (f *fs) socket() string { return "/run/scoutfs/" + f.fsid + "/notify.sock" }

// stopped holds an instance that has ended against what must be true of it.
func (f *fs) stopped() {
	f.t.Helper()
	f.await("inactive")
	if got := f.property("Result"); got != "success" {
		f.t.Errorf("%s ended with result %s", f.unit, got)
	}
	if _, err := os.Lstat(f.socket()); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("socket of an instance that was stopped: %v", err)
	}
	if fi, err := os.Stat("/run/scoutfs"); err != nil || !fi.IsDir() {
		f.t.Errorf("/run/scoutfs: %v", err)
	}
}

// tail is a running "scoutfs-notify tail -json" that the daemon has let in.
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

// hasClient says whether the daemon counts a process among its clients.
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

// sees opens and reads a file, and waits for tail to print both.
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

// The machine is what the tests take it for.
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
	t.Log(run(t, "uname", "-r"), run(t, "systemctl", "--version"), run(t, "modinfo", "-F", "git_describe", "scoutfs"))
}

// What the README says an admin types, and plain mount(8) and umount(8).
func TestPlainMount(t *testing.T) {
	f := newFS(t, "scoutfs", 0xa1)
	f.mount()
	run(t, "sh", "-eu", Enable)
	f.await("active")
	c := f.tail()
	c.sees("one")

	// The unit is in a mount namespace of its own and has a client: umount(8) does
	// not fail, and the daemon and the stream end.
	f.umount()
	c.ends()
	f.stopped()

	// Nothing but the mount starts it again.
	f.mount()
	f.await("active")
	c = f.tail()
	c.sees("two")

	// Stopping the instance leaves the mount alone, and it can be started again.
	systemctl(t, "stop", f.unit)
	c.ends()
	f.stopped()
	if _, err := notify.Statfs(f.dir); err != nil {
		t.Errorf("after the instance was stopped: %v", err)
	}
	systemctl(t, "start", f.unit)
	f.tail().sees("three")

	// Enough unmounts and mounts to meet a daemon that is just starting. An emulated
	// machine is too slow to make more starts than systemd's default allows.
	if got := f.property("StartLimitIntervalUSec"); got != "0" {
		t.Errorf("starts are limited in %s, which quick remounts would run into", got)
	}
	for range 3 {
		f.umount()
		f.mount()
	}
	f.await("active")
	f.tail().sees("four")
	systemctl(t, "stop", "mnt-scoutfs.mount")
	f.stopped()
}

// A mount unit, stopped and started.
func TestMountUnit(t *testing.T) {
	f := newFS(t, "unit", 0xa2)
	const file = "/etc/systemd/system/mnt-unit.mount"
	text := "[Mount]\nType=scoutfs\nWhat=none\nWhere=" + f.dir + "\nOptions=fsid=" + f.fsid + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = try("systemctl", "stop", "mnt-unit.mount")
		os.Remove(file)
		_, _ = try("systemctl", "daemon-reload")
	})
	systemctl(t, "daemon-reload")
	systemctl(t, "enable", f.unit)
	systemctl(t, "start", "mnt-unit.mount")
	f.await("active")
	c := f.tail()
	c.sees("file")
	systemctl(t, "stop", "mnt-unit.mount")
	c.ends()
	f.stopped()
	// The instance brings its mount.
	systemctl(t, "start", f.unit)
	f.await("active")
	systemctl(t, "restart", "mnt-unit.mount")
	f.await("active")
	f.tail().sees("file")
}

// Two instances, of which one is stopped.
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

// A module that is there but a mount that is none of it: no second try.
func TestNoScoutFS(t *testing.T) {
	f := newFS(t, "tmp", 0xc1)
	run(t, "mount", "-t", "tmpfs", "none", f.dir)
	if out, err := try("systemctl", "start", f.unit); err == nil {
		t.Errorf("started on a tmpfs: %s", out)
	}
	// Before another try it would be activating.
	if state, status, restarts := f.property("ActiveState"), f.property("ExecMainStatus"), f.property("NRestarts"); state != "failed" || status != "78" || restarts != "0" {
		t.Errorf("state %s, exit status %s, %s restarts; want failed, 78, 0", state, status, restarts)
	}
	if out, _ := try("journalctl", "--no-pager", "-u", f.unit); !strings.Contains(out, "not a mounted ScoutFS") {
		t.Errorf("the journal does not tell why:\n%s", out)
	}
}

// Another reader has the file system: the daemon comes when that is gone.
func TestBusy(t *testing.T) {
	f := newFS(t, "busy", 0xc2)
	f.mount()
	reader, err := notify.Attach(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if out, err := try("systemctl", "enable", "--now", f.unit); err == nil {
		t.Errorf("started with another reader there: %s", out)
	}
	until(t, "another try that fails", func() bool {
		return f.property("NRestarts") != "0" && f.property("ExecMainStatus") == "75"
	})
	reader.Close()
	f.await("active")
	f.tail().sees("file")
}

// A daemon that hangs is replaced; one that is idle is not.
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
	// Half a minute is for real machines; what is stopped does not see SIGABRT.
	if err := os.WriteFile(drop+"/test.conf", []byte("[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	f.mount()
	systemctl(t, "enable", "--now", f.unit)
	first := f.property("MainPID")
	for range 2 {
		last := f.property("WatchdogTimestampMonotonic")
		until(t, "a sign of life", func() bool { return f.property("WatchdogTimestampMonotonic") != last })
	}
	if got := f.property("MainPID"); got != first {
		t.Fatalf("an idle daemon was replaced: %s, %s", first, got)
	}
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "another daemon", func() bool {
		return f.property("NRestarts") == "1" && f.property("ActiveState") == "active"
	})
	f.tail().sees("file")
}

// span is a client's records: of reads of one byte each, whose offset is their
// number.
type span struct {
	seq, offset uint64
}

// The daemon's package is upgraded while files are read. Clients see the end of the
// stream and come back; seq shows where something is missing, and nothing is
// missing elsewhere.
func TestUpgrade(t *testing.T) {
	f := newFS(t, "load", 0xe1)
	f.mount()
	systemctl(t, "enable", "--now", f.unit)
	before := f.property("MainPID")

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
	var recs []span
	resumed := make(map[int]bool) // indices of records that came first after the client came back
	stop, received := make(chan struct{}), make(chan error, 1)
	var last uint64 // offset that ends it, set before stop is closed
	go func() {
		received <- func() error {
			for {
				rec, err := client.Next()
				switch {
				case err == nil && rec.Type == notify.TypeRead:
					recs = append(recs, span{rec.Seq, rec.Offset})
					select {
					case <-stop:
						if rec.Offset >= last {
							return nil
						}
					default:
					}
					continue
				case err == nil && rec.Type == notify.TypeOpen && rec.PID == uint32(os.Getpid()) && len(recs) == 0:
					// The file's, which was still in the ring when the client came.
					continue
				case err == nil:
					return fmt.Errorf("a record that nobody made: %+v", rec)
				// Who connects to the daemon that goes may be turned away instead.
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

	// A read a millisecond at most: the machine is emulated, and nothing may be lost
	// for want of speed.
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
	until(t, "another daemon", func() bool {
		pid := f.property("MainPID")
		return f.property("ActiveState") == "active" && pid != before && pid != "0"
	})
	until(t, "the client is back", func() bool {
		select {
		case err := <-received:
			t.Fatalf("the client ended: %v", err)
		default:
		}
		return f.hasClient(os.Getpid())
	})
	close(quit)
	load.Wait()
	// These come when the client is back for sure, and end it.
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
		t.Fatal("the last record did not come")
	}
	client.Close()

	if got := f.property("NRestarts"); got != "0" {
		t.Errorf("%s automatic restarts", got)
	}
	// Without a daemon nothing is counted, but the next one's first record has a
	// seq that says that there was none. Any other gap is as long as what is missing,
	// should the machine have been too slow to drain the ring.
	var missing, dropped uint64
	for i := 1; i < len(recs); i++ {
		seq, offset := recs[i].seq-recs[i-1].seq, recs[i].offset-recs[i-1].offset
		switch {
		case resumed[i]:
			if missing += offset - 1; seq < 2 {
				t.Errorf("the client came back, and seq %d comes after %d", recs[i].seq, recs[i-1].seq)
			}
		case seq != offset:
			t.Errorf("%d reads are missing after seq %d, the gap says %d", offset-1, recs[i-1].seq, seq-1)
		default:
			dropped += offset - 1
		}
	}
	if len(resumed) != 1 {
		t.Errorf("the client came back %d times, not once", len(resumed))
	}
	if len(recs) == 0 || recs[0].offset != 0 || uint64(len(recs))+missing+dropped != last+1 {
		t.Errorf("%d records, %d missing and %d dropped of %d reads", len(recs), missing, dropped, last+1)
	}
	t.Logf("%d reads, %d records, %d missing while there was no daemon, %d dropped", last+1, len(recs), missing, dropped)
	if out := run(t, "rpm", "-q", "scoutfs-notifyd"); !strings.HasPrefix(out, "scoutfs-notifyd-2-1") {
		t.Errorf("installed is %s", out)
	}
	f.tail().sees("file")
}

// The daemon's package is removed under a running, enabled instance. It must be the
// last test.
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
		t.Errorf("links that are left: %v", got)
	}
	for _, path := range []string{f.socket(), "/run/scoutfs", "/usr/lib/systemd/system/scoutfs-notifyd@.service"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if got := f.property("LoadState"); got != "not-found" {
		t.Errorf("systemd still knows the unit: %s", got)
	}
	// The mount is nobody's business but its owner's.
	if text, err := os.ReadFile(filepath.Join(f.dir, "file")); err != nil || string(text) != "text" {
		t.Errorf("read a file: %q, %v", text, err)
	}
	if _, err := notify.Statfs(f.dir); err != nil {
		t.Error(err)
	}
	f.umount()
}
