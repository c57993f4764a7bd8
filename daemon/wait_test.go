// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// fakeTable is a list of mounts whose changes a test makes.
type fakeTable struct {
	event int // eventfd, readable while there are changes that were not read
	slow  time.Duration

	mu    sync.Mutex
	lines []string
	reads int
}

func makeFakeTable() (*fakeTable, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &fakeTable{event: event}, nil
}

func newFakeTable(t testing.TB) *fakeTable {
	t.Helper()
	f, err := makeFakeTable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(f.event) })
	return f
}

// set replaces all mounts but the root's.
func (f *fakeTable) set(lines ...string) {
	f.mu.Lock()
	f.lines = lines
	f.mu.Unlock()
	unix.Write(f.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (f *fakeTable) poll() unix.PollFd {
	return unix.PollFd{Fd: int32(f.event), Events: unix.POLLIN}
}

func (f *fakeTable) close() {}

func (f *fakeTable) read(buf []byte) ([]byte, error) {
	var count [8]byte
	unix.Read(f.event, count[:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	time.Sleep(f.slow)
	text := append(buf[:0], "1 0 8:1 / / rw - ext4 /dev/root rw\n"...)
	return append(text, strings.Join(f.lines, "")...), nil
}

func (f *fakeTable) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

// mounted is a line of mountinfo for a file system at /mnt/scoutfs.
func mounted(id int, dev int, fsType string) string {
	return fmt.Sprintf("%d 1 0:%d / /mnt/scoutfs rw,relatime shared:1 - %s none rw\n", id, dev, fsType)
}

// waitSystem has a ring for each device, or errors.
type waitSystem struct {
	table *fakeTable

	mu       sync.Mutex
	rings    map[notify.Device]*fakeRing
	errs     []error // of the next attempts; the last one stays
	attached int     // attempts
	statfs   int     // calls
	change   sync.Cond
}

func newWaitSystem(t testing.TB) *waitSystem {
	s := &waitSystem{table: newFakeTable(t), rings: map[notify.Device]*fakeRing{}}
	s.change.L = &s.mu
	return s
}

func (s *waitSystem) Mounts() (mountTable, error) { return s.table, nil }

func (s *waitSystem) Statfs(context.Context, string) (notify.Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statfs++
	return testMount, nil
}

func (s *waitSystem) Attach(_ context.Context, _ string, dev notify.Device) (source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attached++
	defer s.change.Broadcast()
	if len(s.errs) > 0 {
		err := s.errs[0]
		if len(s.errs) > 1 {
			s.errs = s.errs[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	if s.rings[dev] == nil {
		return nil, fmt.Errorf("%w: another device", notify.ErrNotScoutFS)
	}
	return s.rings[dev], nil
}

// fail makes attempts fail.
func (s *waitSystem) fail(errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = errs
}

// attempts returns how often the mount point was opened, once that is at least least.
func (s *waitSystem) attempts(least int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.attached < least {
		s.change.Wait()
	}
	return s.attached
}

// mount makes a ring for a device, without changing the table.
func (s *waitSystem) mount(t testing.TB, dev int, fsid notify.ID) *fakeRing {
	ring := newFakeRing(t)
	ring.mount.FSID = fsid
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rings[notify.Device{Minor: uint32(dev)}] = ring
	return ring
}

// startWaiting starts a daemon that waits. Its ring and socket are those of testMount.
func startWaiting(t testing.TB, cfg *config, sys system) *testDaemon {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	d := &testDaemon{
		t: t, log: newLogs(), stop: stop, done: make(chan struct{}),
		dir: filepath.Join(cfg.runDir, testMount.FSID.String()),
	}
	own := *cfg
	own.wait, own.log = true, d.log.logger()
	go func() {
		d.err = waitAndServe(ctx, &own, sys)
		d.log.end()
		close(d.done)
	}()
	limit := time.AfterFunc(30*time.Second, stop)
	t.Cleanup(func() {
		limit.Stop()
		stop()
		<-d.done
		if t.Failed() {
			t.Logf("log of the daemon:\n%v", d.log)
		}
	})
	return d
}

// files returns what a daemon has in its run directory.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestWait: the daemon serves one mount after the other.
func TestWait(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	for i := range 3 {
		d.awaitCount(i+1, "waiting for a ScoutFS to be mounted")
		if n := sys.attempts(i); n != i {
			t.Errorf("the mount point was opened %d times, not %d", n, i)
		}
		if left := files(t, d.dir); len(left) > 0 {
			t.Errorf("files while there is no mount: %v", left)
		}
		d.ring = sys.mount(t, 42, testMount.FSID)
		sys.table.set(mounted(30, 42, "scoutfs"))
		d.awaitCount(i+1, "msg=serving")
		c := d.dial(0)
		d.ring.emit(10)
		if err := expect(c, 1, 10); err != nil {
			t.Fatal(err)
		}
		sys.table.set()
		d.ring.unmount()
		if err := expectEOF(c); err != nil {
			t.Error(err)
		}
	}
	d.awaitCount(4, "waiting for a ScoutFS to be mounted")
	d.stop()
	if err := d.wait(); err != nil {
		t.Error(err)
	}
}

// TestWaitBackToBack: an unmount and a mount that look like nothing.
func TestWaitBackToBack(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	line := mounted(30, 42, "scoutfs")
	old := sys.mount(t, 42, testMount.FSID)
	sys.table.set(line)
	for i := range 200 {
		d.awaitCount(i+1, "msg=serving")
		next := sys.mount(t, 42, testMount.FSID)
		sys.table.set(line)
		old.unmount()
		old = next
	}
	d.awaitCount(201, "msg=serving")
	if n := d.log.count("level=ERROR"); n != 0 {
		t.Errorf("%d errors", n)
	}
}

// TestWaitReplaced: it ends with what it serves when another file system is mounted in
// its place, or nothing is, although that may still be in use.
func TestWaitReplaced(t *testing.T) {
	other := notify.ID(7)
	for _, tt := range []struct {
		name   string
		now    []string
		serves bool
	}{
		{"unmounted lazily or moved", nil, false},
		{"another ScoutFS", []string{mounted(30, 43, "scoutfs")}, true},
		{"another ScoutFS on it", []string{mounted(30, 42, "scoutfs"), strings.Replace(mounted(31, 43, "scoutfs"), "31 1 ", "31 30 ", 1)}, true},
		{"another type on it", []string{mounted(30, 42, "scoutfs"), strings.Replace(mounted(31, 43, "tmpfs"), "31 1 ", "31 30 ", 1)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, sys := testConfig(t), newWaitSystem(t)
			d := startWaiting(t, cfg, sys)
			d.awaitCount(1, "waiting for a ScoutFS to be mounted")
			d.ring = sys.mount(t, 42, testMount.FSID)
			sys.mount(t, 43, other)
			sys.table.set(mounted(30, 42, "scoutfs"))
			d.awaitCount(1, "msg=serving")
			c := d.dial(0)
			d.ring.emit(10)
			sys.table.set(tt.now...)
			if err := errors.Join(expect(c, 1, 10), expectEOF(c)); err != nil {
				t.Error(err)
			}
			if tt.serves {
				d.awaitCount(2, "msg=serving")
				if d.log.await("msg=serving", "fsid="+other.String()) == "" {
					t.Error("it does not serve the other one")
				}
			} else {
				d.awaitCount(2, "waiting for a ScoutFS to be mounted")
			}
			if !d.ring.closed() {
				t.Error("the reader is still attached")
			}
		})
	}
}

// A mount elsewhere, or of the same file system on itself, changes nothing.
func TestWaitUndisturbed(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	d.ring = sys.mount(t, 42, testMount.FSID)
	own := mounted(30, 42, "scoutfs")
	sys.table.set(own)
	d.awaitCount(1, "msg=serving")
	c := d.dial(0)
	for i, lines := range [][]string{
		{own, "50 1 0:50 / /mnt/other rw - tmpfs none rw\n"},
		{own, strings.Replace(mounted(31, 42, "scoutfs"), "31 1 ", "31 30 ", 1)},
		{mounted(77, 42, "scoutfs")},
	} {
		before := sys.table.count()
		sys.table.set(lines...)
		for sys.table.count() == before {
			time.Sleep(time.Millisecond) // nothing signals that it was read
		}
		d.ring.emit(10)
		if err := expect(c, uint64(10*i+1), uint64(10*i+10)); err != nil {
			t.Fatal(err)
		}
	}
	if n := sys.attempts(1); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

// TestWaitFailures: whatever the causes, an episode of failures is one line in the log,
// and ends when its cause does.
func TestWaitFailures(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	d.ring = sys.mount(t, 42, testMount.FSID)
	sys.fail(notify.ErrBusy, unix.EIO, notify.ErrNotScoutFS, notify.ErrBusy, unix.ENOSPC, nil)
	sys.table.set(mounted(30, 42, "scoutfs"))
	d.awaitCount(1, "msg=serving")
	if n := sys.attempts(6); n < 6 {
		t.Errorf("%d attempts", n)
	}
	if n := d.log.count("level=ERROR"); n != 1 {
		t.Errorf("%d lines of errors", n)
	}
	// Another mount is another episode.
	sys.fail(unix.EIO, unix.EIO, nil)
	old := d.ring
	d.ring = sys.mount(t, 43, testMount.FSID)
	sys.table.set(mounted(31, 43, "scoutfs"))
	d.awaitCount(2, "msg=serving")
	if n := d.log.count("level=ERROR"); n != 2 {
		t.Errorf("%d lines of errors", n)
	}
	if !old.closed() {
		t.Error("the first reader is still attached")
	}
}

// TestWaitUnsupported: there is no use in trying again until something is mounted.
func TestWaitUnsupported(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	d.awaitCount(1, "waiting for a ScoutFS to be mounted")
	sys.fail(notify.ErrNotSupported)
	sys.table.set(mounted(30, 42, "scoutfs"))
	if d.log.await("level=ERROR", "trying again", "scoutfs-notify-kmod-v") == "" {
		t.Fatal("no error was logged")
	}
	tries := sys.attempts(1)
	time.Sleep(50 * cfg.retry)
	if n := sys.attempts(1); n != tries {
		t.Errorf("%d more attempts", n-tries)
	}
	sys.table.set()
	d.awaitCount(2, "waiting for a ScoutFS to be mounted")
	sys.fail(nil)
	d.ring = sys.mount(t, 42, testMount.FSID)
	sys.table.set(mounted(30, 42, "scoutfs"))
	d.awaitCount(1, "msg=serving")
}

// TestWaitServed: a mount that another daemon serves is opened once; whether that ends
// is seen by the lock.
func TestWaitServed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		attach error
	}{
		{"the same mount", notify.ErrBusy},
		{"another mount", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, sys := testConfig(t), newWaitSystem(t)
			first := startDaemon(t, cfg)
			d := startWaiting(t, cfg, sys)
			sys.fail(tt.attach)
			d.ring = sys.mount(t, 42, testMount.FSID)
			sys.table.set(mounted(30, 42, "scoutfs"))
			if d.log.await("level=ERROR", "another scoutfs-notifyd serves this file system: process "+fmt.Sprint(os.Getpid())) == "" {
				t.Fatal("it does not say who")
			}
			tries := sys.attempts(1)
			time.Sleep(200 * cfg.retry)
			if n := sys.attempts(1); n != tries {
				t.Errorf("the mount point was opened %d more times", n-tries)
			}
			sys.fail(nil)
			// The last attempt may have failed and closed its ring.
			d.ring = sys.mount(t, 42, testMount.FSID)
			first.stop()
			d.awaitCount(1, "msg=serving")
			if n := d.log.count("level=ERROR"); n != 1 {
				t.Errorf("%d lines of errors", n)
			}
		})
	}
}

// TestWaitFatal: what does not pass ends the daemon.
func TestWaitFatal(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	d := startWaiting(t, cfg, sys)
	sys.fail(fmt.Errorf("attach: %w", unix.EPERM))
	sys.table.set(mounted(30, 42, "scoutfs"))
	if err := d.wait(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}

// TestWaitOther: other file systems are none of its business.
func TestWaitOther(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	sys.table.set(mounted(30, 42, "tmpfs"))
	d := startWaiting(t, cfg, sys)
	if d.log.await("waiting for a ScoutFS to be mounted", "mounted_there=tmpfs") == "" {
		t.Fatal("it does not wait")
	}
	for i := range 100 {
		sys.table.set(mounted(30+i, 42, "tmpfs"), "99 1 0:99 / /mnt/scoutfs2 rw - scoutfs none rw\n99 30 0:99 / /mnt/scoutfs/a rw - scoutfs none rw\n")
	}
	d.stop()
	if err := d.wait(); err != nil {
		t.Error(err)
	}
	if n := sys.attempts(0); n != 0 {
		t.Errorf("%d attempts", n)
	}
}

// TestWaitBusyTable: a table that is long and changes all the time is read rarely.
func TestWaitBusyTable(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	sys.table.slow = 5 * time.Millisecond
	d := startWaiting(t, cfg, sys)
	d.awaitCount(1, "waiting for a ScoutFS to be mounted")
	before, start := sys.table.count(), time.Now()
	for time.Since(start) < 500*time.Millisecond {
		sys.table.set()
	}
	if n, most := sys.table.count()-before, int(time.Since(start)/(readShare*sys.table.slow))+1; n > most {
		t.Errorf("read %d times, more than %d", n, most)
	}
	// It sees the last change all the same.
	d.ring = sys.mount(t, 42, testMount.FSID)
	sys.table.set(mounted(30, 42, "scoutfs"))
	d.awaitCount(1, "msg=serving")
}

// tornTable changes while it is read, and then lacks a mount.
type tornTable struct {
	*fakeTable
	torn int // times
}

func (f *tornTable) read(buf []byte) ([]byte, error) {
	if f.torn == 0 {
		return f.fakeTable.read(buf)
	}
	f.torn--
	text, err := f.fakeTable.read(buf)
	unix.Write(f.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	first, _, _ := strings.Cut(string(text), "\n")
	return append(buf[:0], first+"\n"...), err
}

// TestTornTable: a mount that is missing in a table that has changed meanwhile may be
// there.
func TestTornTable(t *testing.T) {
	for _, tt := range []struct {
		torn, looks int
		there       bool
	}{
		{0, 1, true}, {1, 2, true}, {unstableReads - 1, unstableReads, true}, {unstableReads, unstableReads, false},
	} {
		table := &tornTable{newFakeTable(t), tt.torn}
		table.set(mounted(30, 42, "scoutfs"))
		w := &mountWatch{table: table, path: "/mnt/scoutfs"}
		looks := 1
		m, there, ok, err := w.look()
		for ; !ok && err == nil; looks++ {
			if !w.stale {
				t.Fatal("it does not know, but will not look again")
			}
			m, there, ok, err = w.look()
		}
		if err != nil || there != tt.there || looks != tt.looks || there && m.ID != 30 {
			t.Errorf("torn %d times: %v, %v, %v after %d looks", tt.torn, m, there, err, looks)
		}
	}
}

// TestWaitLink: symbolic links are followed once, when nothing is mounted there.
func TestWaitLink(t *testing.T) {
	cfg, sys := testConfig(t), newWaitSystem(t)
	dir, err := filepath.EvalSymlinks(cfg.runDir)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	cfg.mountPoint = filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(target, 0o700), os.Symlink("target", cfg.mountPoint)); err != nil {
		t.Fatal(err)
	}
	d := startWaiting(t, cfg, sys)
	d.awaitCount(1, "waiting for a ScoutFS to be mounted", "mount_point="+target)
	d.ring = sys.mount(t, 42, testMount.FSID)
	sys.table.set(strings.Replace(mounted(30, 42, "scoutfs"), "/mnt/scoutfs", target, 1))
	d.awaitCount(1, "msg=serving")
}

// TestKernelMounts reads the kernel's own list. tests/rpm/guest has it change.
func TestKernelMounts(t *testing.T) {
	table, err := openMounts()
	if err != nil {
		t.Fatal(err)
	}
	defer table.close()
	w := &mountWatch{table: table, path: "/proc"}
	for range 2 {
		m, there, ok, err := w.look()
		if err != nil || ok && (!there || m.Type != "proc") {
			t.Errorf("%v, %v, %v, %v", m, there, ok, err)
		}
	}
	if cap(w.buf) == 0 {
		t.Error("the buffer is not kept")
	}
}

// TestSweep: files that a killed daemon left go, all others stay.
func TestSweep(t *testing.T) {
	cfg := testConfig(t)
	d := startDaemon(t, cfg)
	make := func(dir string, names ...string) string {
		t.Helper()
		path := filepath.Join(cfg.runDir, dir)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	deadSocket := func(path string) {
		t.Helper()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(path, notify.SocketName)}); err != nil {
			t.Fatal(err)
		}
	}
	dead := make("00000000000000aa", notify.StateName, notify.MetricsName, notify.LockName, "others")
	deadSocket(dead)
	socket := make("00000000000000bb")
	deadSocket(socket)
	notOurs := make("00000000000000cc", notify.StateName)
	if err := os.Chmod(notOurs, 0o777); err != nil {
		t.Fatal(err)
	}
	elsewhere := make("elsewhere", notify.StateName)
	empty := make("00000000000000dd")
	// A daemon that has lost its lock, but listens.
	lost := make("00000000000000ee", notify.StateName)
	ln, err := listen(filepath.Join(lost, notify.SocketName), defaultSendBuffer)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.close()
	before := files(t, d.dir)

	swept, err := sweep(cfg.runDir)
	if !errors.Is(err, errUnsafeDir) || !strings.Contains(err.Error(), notOurs) {
		t.Errorf("of the directory that others can write to: %v", err)
	}
	if want := []string{dead, socket}; !slices.Equal(swept, want) {
		t.Errorf("swept %v, want %v", swept, want)
	}
	for _, tt := range []struct {
		dir  string
		want []string
	}{
		{dead, []string{"others"}}, {socket, nil}, {empty, nil},
		{notOurs, []string{notify.StateName}}, {elsewhere, []string{notify.StateName}},
		{lost, []string{notify.SocketName, notify.StateName}}, {d.dir, before},
	} {
		if got := files(t, tt.dir); !slices.Equal(got, tt.want) {
			t.Errorf("%s has %v, want %v", tt.dir, got, tt.want)
		}
	}
	if swept, err := sweep(filepath.Join(cfg.runDir, "missing")); err != nil || swept != nil {
		t.Errorf("no directory: %v, %v", swept, err)
	}
}

// TestClaimWhileSwept: a daemon starts although another has the lock for a moment.
func TestClaimWhileSwept(t *testing.T) {
	cfg := testConfig(t)
	d, err := claimDir(cfg.runDir, testMount.FSID)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lockPause, d.release)
	again, err := claimDir(cfg.runDir, testMount.FSID)
	if err != nil {
		t.Fatal(err)
	}
	again.release()
}

// TestRestore: what is removed below a daemon comes back, and clients stay.
func TestRestore(t *testing.T) {
	remove := func(names ...string) func(d *testDaemon) error {
		return func(d *testDaemon) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, os.Remove(filepath.Join(d.dir, name)))
			}
			return errors.Join(errs...)
		}
	}
	for _, tt := range []struct {
		name   string
		remove func(d *testDaemon) error
	}{
		// Renamed, because removing one file after the other takes longer than a check.
		{"directory", func(d *testDaemon) error { return os.Rename(d.dir, d.dir+".old") }},
		{"run directory", func(d *testDaemon) error {
			dir := filepath.Dir(d.dir)
			d.t.Cleanup(func() { os.RemoveAll(dir + ".old") })
			return os.Rename(dir, dir+".old")
		}},
		{"socket", remove(notify.SocketName)},
		{"lock", remove(notify.LockName)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			d := startDaemon(t, cfg)
			old := d.dial(0)
			if err := tt.remove(d); err != nil {
				t.Fatal(err)
			}
			if d.log.await("made anew what was removed from the run directory") == "" {
				t.Fatal("nothing was made anew")
			}
			c := d.dial(0)
			d.ring.emit(10)
			if err := errors.Join(expect(old, 1, 10), expect(c, 1, 10)); err != nil {
				t.Error(err)
			}
			d.awaitState(func(st *notify.State) bool { return st.Records == 10 && len(st.Clients) == 2 })
			if _, served := servedBy(cfg.runDir, testMount.FSID); !served {
				t.Error("the lock is not held")
			}
			d.stop()
			if err := d.wait(); err != nil {
				t.Error(err)
			}
			if left := files(t, d.dir); len(left) > 0 {
				t.Errorf("files left: %v", left)
			}
		})
	}
}

// TestRestoreMeanwhile: what is removed between the look at the directory and the writing
// of the files comes back at once, and is no error.
func TestRestoreMeanwhile(t *testing.T) {
	for _, start := range []bool{true, false} {
		dir, err := claimDir(testConfig(t).runDir, testMount.FSID)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.release()
		log := newLogs()
		ln := &listener{fd: -1}
		removals := 0
		p := &publisher{
			log: log.logger(), dir: dir, restore: func() (bool, error) { return restore(dir, ln, 0) },
			snapshot: func() *notify.State {
				removals++
				if err := os.RemoveAll(dir.dir); err != nil {
					t.Error(err)
				}
				return &notify.State{}
			},
		}
		if start {
			if err := p.start(); err != nil {
				t.Error(err)
			}
		} else {
			p.tick(time.Now(), true)
		}
		if got := files(t, dir.dir); !slices.Contains(got, notify.StateName) || !slices.Contains(got, notify.MetricsName) || removals != 1 {
			t.Errorf("files %v after %d removals", got, removals)
		}
		if log.count("made anew") != 1 || log.count("cannot publish state") != 0 || p.failed || p.news {
			t.Errorf("its log: %q", log.lines)
		}
	}
}

// TestRestoreTaken: a directory that another daemon has by now is left to it.
func TestRestoreTaken(t *testing.T) {
	cfg := testConfig(t)
	cfg.check = 0
	d := startDaemon(t, cfg)
	c := d.dial(0)
	d.awaitState(func(st *notify.State) bool { return len(st.Clients) == 1 })
	if err := os.RemoveAll(d.dir); err != nil {
		t.Fatal(err)
	}
	other, err := claimDir(cfg.runDir, testMount.FSID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.release()
	d.ring.emit(10) // which is news
	if d.log.await("cannot publish state", "another scoutfs-notifyd serves") == "" {
		t.Fatal("no error")
	}
	if err := expect(c, 1, 10); err != nil {
		t.Error(err)
	}
	d.stop()
	d.wait()
	if got := files(t, d.dir); !slices.Equal(got, []string{notify.LockName}) {
		t.Errorf("the other one's directory has %v", got)
	}
}

// TestFilesCannotBeWritten: that is no reason not to serve.
func TestFilesCannotBeWritten(t *testing.T) {
	cfg := testConfig(t)
	inTheWay := filepath.Join(cfg.runDir, testMount.FSID.String(), "."+notify.MetricsName+".new")
	if err := os.MkdirAll(filepath.Join(inTheWay, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, cfg)
	c := d.dial(0)
	d.ring.emit(10)
	if err := expect(c, 1, 10); err != nil {
		t.Error(err)
	}
	if n := d.log.count("cannot publish state"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(d.dir, notify.StateName)); err == nil {
			break
		}
		time.Sleep(time.Millisecond) // the directory was not there to be watched
	}
}
