// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// The tests of this file do to a mount, many times, what has left it without a daemon,
// or could. After each time the daemon must serve what is mounted then.

// rounds numbers the rounds of a test, from 0. Those that held in an earlier machine, see
// EnvHeld, are left out, and with EnvLife each that held is told, so that a long run shows how
// far it is. The first that fails is the last.
func rounds(t *testing.T) iter.Seq[int] {
	t.Helper()
	life := os.Getenv(EnvLife)
	if life == "" {
		life = "3"
	}
	n, err := strconv.Atoi(life)
	if err != nil {
		t.Fatalf("%s: %v", EnvLife, err)
	}
	first := 0
	for held := range strings.FieldsSeq(os.Getenv(EnvHeld)) {
		name, number, _ := strings.Cut(held, "=")
		if name != t.Name() {
			continue
		}
		if first, err = strconv.Atoi(number); err != nil {
			t.Fatalf("%s: %v", EnvHeld, err)
		}
		t.Logf("%d of %d rounds held in an earlier machine", first, n)
	}
	return func(yield func(int) bool) {
		for i := first; i < n; i++ {
			if !yield(i) || t.Failed() {
				return
			}
			if os.Getenv(EnvLife) != "" {
				fmt.Printf("\n%s%s=%d\n", Held, t.Name(), i+1)
			}
		}
		t.Logf("%d rounds held", n)
	}
}

// mkfs makes a real file system on two of the machine's disks, once.
func mkfs(t *testing.T, device int) (data, opts string) {
	t.Helper()
	// The first disk is the root's.
	meta, data := proto.DiskPath(1+2*device), proto.DiskPath(2+2*device)
	if !made[device] {
		run(t, "scoutfs", "mkfs", "-A", "-f", "-Q", fmt.Sprintf("0,127.0.0.1,%d", 20000+device), meta, data)
		made[device] = true
	}
	return data, "quorum_slot_nr=0,metadev_path=" + meta
}

var made [2]bool

// newLife prepares one of the two file systems, with an instance for a folder that is
// enabled and waits.
func newLife(t *testing.T, dir string, device int) *life {
	t.Helper()
	inGuest(t)
	if _, err := os.Stat("/sys/module/scoutfs"); err != nil {
		run(t, "modprobe", "scoutfs")
	}
	f := &life{fs: fs{t: t, dir: dir, unit: "scoutfs-notifyd@" + escape(dir) + ".service"}}
	f.use(device)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try("journalctl", "--no-pager", "-b", "-n", "200", "-o", "short-monotonic", "-u", f.unit)
			t.Logf("the end of the journal of %s:\n%s", f.unit, out)
			text, _ := os.ReadFile("/proc/self/mountinfo")
			t.Logf("mounts:\n%s", text)
		}
		_, _ = try("systemctl", "stop", f.unit)
		_, _ = try("systemctl", "--no-reload", "disable", f.unit)
		for f.mounted() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %q at the end: %v", dir, err)
				_ = unix.Unmount(dir, unix.MNT_DETACH)
			}
		}
	})
	f.earlier = len(f.errors())
	// Before anything was mounted there: systemd knows no unit of the mount yet.
	systemctl(t, "enable", "--now", f.unit)
	f.waits()
	return f
}

// life is a file system with an instance that runs all the time.
type life struct {
	fs
	source, opts string
	slowest      time.Duration // until it served
	earlier      int           // errors in the log before this test
}

// use makes it one of two file systems.
func (f *life) use(device int) {
	f.t.Helper()
	if os.Getenv(EnvFS) != ScoutFS {
		f.source, f.fsid = "none", fmt.Sprintf("%016x", 0x11fe0+device)
		f.opts = "fsid=" + f.fsid
		return
	}
	f.source, f.opts = mkfs(f.t, device)
	f.fsid = ""
}

// escape is systemd-escape --path, which takes only UTF-8.
func escape(path string) string {
	var b strings.Builder
	for i, c := range []byte(strings.Trim(path, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// at returns what is mounted at a path, without touching it.
func at(t *testing.T, path string) (mountinfo.Mount, bool) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return mountinfo.At(text, path)
}

func (f *life) mounted() bool {
	f.t.Helper()
	m, ok := at(f.t, f.dir)
	return ok && m.Type == "scoutfs"
}

// mountLimit is longer than a mount has taken.
const mountLimit = 20 * time.Second

// mount mounts it, by mount(2). One that hangs, see MountHangs, is interrupted and made
// again: in hundreds of them there are some.
func (f *life) mount() {
	f.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := unix.Gettid()
	hangs := time.AfterFunc(mountLimit, func() {
		f.t.Logf("%s: interrupting it", MountHangs)
		_ = unix.Tgkill(os.Getpid(), self, unix.SIGURG) // which Go ignores
	})
	defer hangs.Stop()
	defer endIfItHangs()()
	var err error = unix.EINTR // also by a signal of Go's scheduler
	for err == unix.EINTR {
		err = unix.Mount(f.source, f.dir, "scoutfs", 0, f.opts)
	}
	if err != nil {
		f.t.Fatalf("mount %s on %q: %v", f.source, f.dir, err)
	}
	if f.fsid == "" {
		m, err := notify.Statfs(f.dir)
		if err != nil {
			f.t.Fatal(err)
		}
		f.fsid = m.FSID.String()
	}
}

// endIfItHangs powers the machine off, and says why, if a mount of real ScoutFS that begins
// now does not end before the returned function is called, see MountHangs.
func endIfItHangs() (stop func()) {
	if os.Getenv(EnvFS) != ScoutFS {
		return func() {}
	}
	lost := time.AfterFunc(patience, func() {
		fmt.Printf("\n%s\n", MountHangs)
		_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // wait until that is written
		// Log the blocked tasks. There is no way out: interrupted, it hangs in its
		// own cleaning up.
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	})
	return func() { lost.Stop() }
}

// umount unmounts it, by umount(2), at the first try.
func (f *life) umount() {
	f.t.Helper()
	if err := unix.Unmount(f.dir, 0); err != nil {
		f.t.Fatalf("unmount %q: %v", f.dir, err)
	}
}

// goRound mounts it, has it served and unmounts it.
func (f *life) goRound() {
	f.t.Helper()
	f.mount()
	f.serves()
	f.umount()
}

// waits waits until the instance waits for a mount.
func (f *life) waits() {
	f.t.Helper()
	until(f.t, f.unit+" waits", func() bool {
		return strings.HasPrefix(f.property("StatusText"), "waiting for a ScoutFS")
	})
}

// serves waits until a client gets the record of a read that it makes.
func (f *life) serves() {
	f.t.Helper()
	start := time.Now()
	for {
		err := f.see()
		if err == nil {
			break
		}
		if time.Since(start) > patience {
			f.t.Fatalf("no daemon serves %q after %v: %v; systemd says: %s", f.dir, patience, err, f.property("StatusText"))
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.slowest = max(f.slowest, time.Since(start))
}

// see is serves, once.
func (f *life) see() error {
	c, err := notify.Dial("/run/scoutfs/" + f.fsid + "/" + notify.SocketName)
	if err != nil {
		return err
	}
	defer c.Close()
	path := filepath.Join(f.dir, "life")
	if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if _, err := os.ReadFile(path); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		rec, err := c.Next()
		if err != nil {
			return err
		}
		if rec.Type == notify.TypeRead && rec.Ino == st.Ino && rec.PID == uint32(os.Getpid()) {
			return nil
		}
	}
}

// same checks that the instance was not started again since, and that it has logged no
// more than expected errors.
func (f *life) same(pid string, errors int) {
	f.t.Helper()
	if now := f.property("MainPID"); now != pid {
		f.t.Errorf("%s was process %s, and is %s", f.unit, pid, now)
	}
	if lines := f.errors(); len(lines) != errors {
		f.t.Errorf("%d errors in the log, not %d:\n%s", len(lines), errors, strings.Join(lines, "\n"))
	}
	f.t.Logf("the slowest was served after %v", f.slowest.Round(time.Millisecond))
}

// errors returns the errors in the instance's log since the test began.
func (f *life) errors() []string {
	f.t.Helper()
	out, _ := try("journalctl", "--no-pager", "-b", "-q", "-o", "cat", "-p", "err", "-u", f.unit)
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "level=ERROR") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines[min(f.earlier, len(lines)):]
}

// beside starts a program. The function that it returns waits for its end.
func beside(t *testing.T, argv []string) (wait func()) {
	t.Helper()
	if argv == nil {
		return func() {}
	}
	var done sync.WaitGroup
	done.Go(func() {
		if out, err := try(argv...); err != nil {
			t.Errorf("%v: %v\n%s", argv, err, out)
		}
	})
	return done.Wait
}

// The daemon is in the host's mount namespace, for reasons that the unit gives.
func TestLifeNamespace(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	host, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.Readlink("/proc/" + f.property("MainPID") + "/ns/mnt"); err != nil || own != host {
		t.Errorf("its mount namespace is %s, systemd's %s: %v", own, host, err)
	}
}

// An unmount and a mount back to back, with nothing or something of systemd's beside it.
func TestLifeRemount(t *testing.T) {
	for _, tt := range []struct {
		name   string
		beside []string
	}{
		{"alone", nil},
		{"daemon-reload", []string{"systemctl", "daemon-reload"}},
		{"daemon-reexec", []string{"systemctl", "daemon-reexec"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newLife(t, "/mnt/life", 0)
			f.mount()
			f.serves()
			pid := f.property("MainPID")
			for i := range rounds(t) {
				wait := beside(t, tt.beside)
				if tt.beside != nil {
					// At another moment of what systemd does each time.
					time.Sleep(time.Duration(i%20) * 20 * time.Millisecond)
				}
				f.umount()
				f.mount()
				f.serves()
				wait()
				f.serves()
			}
			f.same(pid, 0)
		})
	}
}

// Unmounts that hit a daemon that is just attaching. It has the mount point open for a
// moment, once for each mount.
func TestLifeQuick(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	pid := f.property("MainPID")
	busy, times := 0, 0
	for range rounds(t) {
		for range 5 {
			f.mount()
			times++
			for try := 0; ; try++ {
				err := unix.Unmount(f.dir, 0)
				if err == nil {
					break
				}
				if !errors.Is(err, unix.EBUSY) || try > 1000 {
					t.Fatalf("unmount %q: %v", f.dir, err)
				}
				if try == 0 {
					busy++
				}
			}
		}
		f.mount()
		f.serves()
		f.umount()
	}
	f.same(pid, 0)
	t.Logf("%d of %d unmounts right after the mount found it busy", busy, times)
}

// systemd fails to stop the mount unit of a mount that is in use.
func TestLifeFailedStop(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	pid := f.property("MainPID")
	for range rounds(t) {
		f.mount()
		f.serves()
		busy, err := os.Open(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		unit := escape(f.dir) + ".mount"
		until(t, unit+" is active", func() bool {
			out, err := try("systemctl", "is-active", unit)
			return err == nil && out == "active\n"
		})
		if out, err := try("systemctl", "stop", unit); err == nil {
			t.Fatalf("systemctl stop of a busy mount succeeds: %s", out)
		}
		f.serves()
		busy.Close()
		systemctl(t, "stop", unit)
		if f.mounted() {
			t.Fatal("it is still mounted")
		}
	}
	f.waits()
	f.same(pid, 0)
}

// SIGHUP and systemctl reload change nothing, not even for a connected client.
func TestLifeHangup(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	f.mount()
	f.serves()
	pid := f.property("MainPID")
	c := f.tail()
	for i := range rounds(t) {
		if i%2 == 0 {
			systemctl(t, "reload", f.unit)
		} else {
			systemctl(t, "kill", "-s", "HUP", f.unit)
		}
		c.sees("file")
	}
	f.same(pid, 0)
	f.umount()
	systemctl(t, "reload", f.unit)
	f.waits()
	f.same(pid, 0)
}

// A daemon that is killed is started again, and until then nothing says that it runs.
func TestLifeKill(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	for i := range rounds(t) {
		f.mount()
		f.serves()
		pid := f.property("MainPID")
		number, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(number, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			f.umount()
		}
		until(t, "the dead daemon's files are gone", func() bool {
			st, err := notify.ReadState("/run/scoutfs/" + f.fsid + "/" + notify.StateName)
			return errors.Is(err, os.ErrNotExist) || err == nil && strconv.Itoa(st.PID) != pid
		})
		until(t, "a new daemon", func() bool {
			now := f.property("MainPID")
			return now != "0" && now != pid
		})
		if i%2 == 0 {
			f.waits()
			if left, _ := filepath.Glob("/run/scoutfs/" + f.fsid + "/*"); len(left) > 0 {
				t.Errorf("files while nothing is mounted: %v", left)
			}
			f.mount()
		}
		f.serves()
		f.umount()
	}
	f.same(f.property("MainPID"), 0)
}

// A file system that is in use is unmounted lazily, and another one mounted in its place.
func TestLifeLazy(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	pid := f.property("MainPID")
	for range rounds(t) {
		f.use(0)
		f.mount()
		f.serves()
		old := f.fsid
		used, err := os.Open(filepath.Join(f.dir, "life"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(f.dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		f.use(1)
		f.mount()
		if f.fsid == old {
			t.Fatal("the same file system is mounted again")
		}
		f.serves()
		if _, err := used.ReadAt(make([]byte, 1), 0); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat("/run/scoutfs/" + old + "/" + notify.SocketName); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket of the first file system: %v", err)
		}
		used.Close()
		f.umount()
		until(t, "both are gone", func() bool { return len(superblocks(t)) == 0 })
	}
	f.waits()
	f.same(pid, 0)
}

// superblocks returns the mounted file systems, wherever they are mounted.
func superblocks(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/scoutfs/f.*.r.*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// An automount with an idle timeout mounts, is served, and expires.
func TestLifeAutomount(t *testing.T) {
	f := newLife(t, "/mnt/auto", 0)
	pid := f.property("MainPID")
	const units = "/run/systemd/system/"
	name := escape(f.dir)
	source := f.source
	if strings.HasPrefix(source, "/dev/") {
		// By another name: without udev systemd would wait for the device.
		source = "/run/life-disk"
		if err := os.Symlink(f.source, source); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(source) })
	}
	for file, text := range map[string]string{
		name + ".mount":     fmt.Sprintf("[Mount]\nType=scoutfs\nWhat=%s\nWhere=%s\nOptions=%s\n", source, f.dir, f.opts),
		name + ".automount": fmt.Sprintf("[Automount]\nWhere=%s\nTimeoutIdleSec=1\n", f.dir),
	} {
		if err := os.WriteFile(units+file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, _ = try("systemctl", "stop", name+".automount", name+".mount")
		_ = os.Remove(units + name + ".mount")
		_ = os.Remove(units + name + ".automount")
		_, _ = try("systemctl", "daemon-reload")
	})
	systemctl(t, "daemon-reload")
	systemctl(t, "start", name+".automount")
	for range rounds(t) {
		if m, ok := at(t, f.dir); !ok || m.Type != "autofs" {
			t.Fatalf("at %s: %v, %v, want autofs", f.dir, m, ok)
		}
		stop := endIfItHangs()
		_, err := os.ReadDir(f.dir) // which mounts
		stop()
		if err != nil {
			t.Fatal(err)
		}
		if f.fsid == "" {
			m, err := notify.Statfs(f.dir)
			if err != nil {
				t.Fatal(err)
			}
			f.fsid = m.FSID.String()
		}
		f.serves()
		until(t, "it expires", func() bool { return !f.mounted() })
	}
	f.waits()
	f.same(pid, 0)
}

// privateDir mounts a tmpfs that shares nothing with other namespaces.
func privateDir(t *testing.T) string {
	t.Helper()
	inGuest(t)
	const dir = "/private"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Below a private mount an unmount frees the file system at once.
func TestLifePrivate(t *testing.T) {
	f := newLife(t, privateDir(t)+"/fs", 0)
	pid := f.property("MainPID")
	for i := range rounds(t) {
		f.use(i % 2)
		f.mount()
		f.serves()
		f.umount()
		if left := superblocks(t); len(left) > 0 {
			t.Fatalf("after the unmount there are %v", left)
		}
	}
	f.waits()
	f.same(pid, 0)
}

// A mount that is moved is served by the instance for its new place.
func TestLifeMove(t *testing.T) {
	dir := privateDir(t)
	from, to := newLife(t, dir+"/from", 0), newLife(t, dir+"/to", 0)
	pids := []string{from.property("MainPID"), to.property("MainPID")}
	from.mount()
	to.fsid = from.fsid
	for range rounds(t) {
		from.serves()
		if err := unix.Mount(from.dir, to.dir, "", unix.MS_MOVE, ""); err != nil {
			t.Fatal(err)
		}
		until(t, "the state has the new place", func() bool {
			st, err := notify.ReadState("/run/scoutfs/" + to.fsid + "/" + notify.StateName)
			return err == nil && st.MountPoint == to.dir
		})
		to.serves()
		from.waits()
		from, to = to, from
		slices.Reverse(pids)
	}
	from.umount()
	for i, f := range []*life{from, to} {
		f.waits()
		f.same(pids[i], 0)
	}
}

// Mount points with bytes that shells, systemd and mountinfo treat in their own ways.
func TestLifeNames(t *testing.T) {
	names := []string{
		"${HOME}", "$HOME", "a$$b", "%i%%", "two  spaces", "new\nline", "t\tab", `back\slash`, `"quotes"'`,
		"invalid\xff\xc3", "-dash", ".dot", "ünïcode", "#hash",
	}
	lives := make([]*life, len(names))
	for i, name := range names {
		lives[i] = newLife(t, "/mnt/"+name, 0)
	}
	last := len(lives) // if all rounds held earlier
	for round := range rounds(t) {
		// One after the other: real file systems can be mounted once.
		lives[round%len(lives)].goRound()
		last = round
	}
	for i, f := range lives {
		if i > last {
			f.goRound()
		}
		f.waits()
		if lines := f.errors(); len(lines) > 0 {
			t.Errorf("%q: %v", f.dir, lines)
		}
	}
}

// An instance for another mount point of a file system that is served says so once,
// and takes over when the first one stops.
func TestLifeBind(t *testing.T) {
	first, second := newLife(t, "/mnt/life", 0), newLife(t, "/mnt/bound", 0)
	first.mount()
	first.serves()
	second.fsid = first.fsid
	if err := unix.Mount(first.dir, second.dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	until(t, "the second says what is in its way", func() bool { return len(second.errors()) > 0 })
	time.Sleep(10 * time.Second) // in which it tries again, which nothing shows
	if lines := second.errors(); len(lines) != 1 || !strings.Contains(lines[0], "another scoutfs-notifyd serves this file system: process "+first.property("MainPID")) {
		t.Errorf("its log:\n%s", strings.Join(lines, "\n"))
	}
	first.serves()
	systemctl(t, "stop", first.unit)
	second.serves()
	if err := unix.Unmount(second.dir, 0); err != nil {
		t.Error(err)
	}
	systemctl(t, "start", first.unit)
	first.serves()
	first.umount()
}

// Without space in the run directory the daemon serves, and says once what it cannot do.
func TestLifeFull(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	systemctl(t, "stop", f.unit)
	if err := unix.Mount("none", "/run/scoutfs", "tmpfs", 0, "size=16k,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/run/scoutfs", unix.MNT_DETACH) })
	const filler = "/run/scoutfs/filler"
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the file system: %v", err)
	}
	f.mount()
	systemctl(t, "start", f.unit)
	f.serves()
	time.Sleep(5 * time.Second) // in which it tries again, which nothing shows
	if lines := f.errors(); len(lines) != 1 || !strings.Contains(lines[0], "no space left") {
		t.Errorf("its log:\n%s", strings.Join(lines, "\n"))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	until(t, "its state", func() bool {
		_, err := notify.ReadState("/run/scoutfs/" + f.fsid + "/" + notify.StateName)
		return err == nil
	})
	systemctl(t, "stop", f.unit)
	f.umount()
}

// What is removed below the daemon comes back, and a client does not notice.
func TestLifeRemoved(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	f.mount()
	f.serves()
	pid := f.property("MainPID")
	c := f.tail()
	for i := range rounds(t) {
		if err := os.RemoveAll("/run/scoutfs/" + f.fsid); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			c.sees("file") // the news of which shows it sooner
		}
		f.serves()
		c.sees("file")
	}
	f.same(pid, 0)
	f.umount()
	f.waits()
}

// A long list of mounts that changes costs little.
func TestLifeBusyTable(t *testing.T) {
	f := newLife(t, "/mnt/life", 0)
	const dir, mounts, changes = "/run/many", 300, 500
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	// A shared one would be mounted in each of its own mounts.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for i := range mounts {
		sub := fmt.Sprintf("%s/%d", dir, i)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(dir, sub, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	cpu := func() time.Duration {
		text, err := os.ReadFile("/proc/" + f.property("MainPID") + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+2:])
		user, _ := strconv.Atoi(string(fields[11]))
		system, _ := strconv.Atoi(string(fields[12]))
		return time.Duration(user+system) * 10 * time.Millisecond
	}
	before, start := cpu(), time.Now()
	sub := dir + "/0"
	for range changes {
		if err := errors.Join(unix.Unmount(sub, 0), unix.Mount(dir, sub, "", unix.MS_BIND, "")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	used, passed := cpu()-before, time.Since(start)
	t.Logf("%v of processor time in %v for %d changes of %d mounts", used, passed.Round(time.Millisecond), 2*changes, mounts)
	if used > passed/5 {
		t.Errorf("%v of processor time in %v", used, passed)
	}
	f.mount()
	f.serves()
	f.umount()
}
