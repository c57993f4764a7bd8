// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// patience is how long a test waits for something that must happen. It is long
// because the machine is emulated and shares two cores, and longer where a kernel with
// sanitizers is several times as slow.
var patience = func() time.Duration {
	if sanitized() {
		return 5 * time.Minute
	}
	return time.Minute
}()

// Workers check thread ids, so main must stay on the main thread.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if role := os.Getenv(envWorker); role != "" {
		os.Exit(workerMain(role))
	}
	flag.Parse()
	dumpTasks(flag.Lookup("test.timeout"))
	startSanitizers()
	if err := shareMounts(); err != nil {
		fmt.Fprintln(os.Stderr, "share the machine's mounts:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// shareMounts makes the machine's mounts shared, as systemd does: what is unmounted in one
// place is in all copies of it, and found busy if one of them is in use.
func shareMounts() error {
	if os.Getenv(proto.EnvGuest) == "" {
		return nil
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// dumpTasks makes the machine's kernel log the state of all tasks shortly before a
// test that hangs times out.
func dumpTasks(timeout *flag.Flag) {
	const before = 20 * time.Second
	limit, err := time.ParseDuration(timeout.Value.String())
	if err != nil || limit <= before || os.Getenv(proto.EnvGuest) == "" {
		return
	}
	time.AfterFunc(limit-before, func() {
		os.WriteFile("/proc/sysrq-trigger", []byte("t"), 0)
	})
}

// inGuest skips the test outside a machine of tests/vm.
func inGuest(t *testing.T) {
	t.Helper()
	if os.Getenv(proto.EnvGuest) == "" {
		t.Skip("runs only inside tests/vm")
	}
}

func isScoutFS() bool { return os.Getenv(EnvFS) == ScoutFS }

func insmod(t *testing.T, path string) {
	t.Helper()
	if err := LoadModule(path); err != nil {
		t.Fatal(err)
	}
}

func rmmod(t *testing.T) {
	t.Helper()
	if err := unix.DeleteModule("scoutfs", unix.O_NONBLOCK); err != nil {
		t.Errorf("remove module scoutfs: %v", err)
	}
}

// loadLater loads a module that the machine has for the tests that need it, if the
// kernel has it as a module, after those that it needs and that come before it.
func loadLater(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(proto.SpecPath)
	if err != nil {
		t.Fatal(err)
	}
	var spec proto.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatalf("parse %s: %v", proto.SpecPath, err)
	}
	last := slices.IndexFunc(spec.Later, func(path string) bool { return filepath.Base(path) == name+".ko" })
	for _, m := range spec.Later[:last+1] {
		if err := LoadModule(m); err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
	}
}

// fs is a mounted file system.
type fs struct {
	t   *testing.T
	dir string
	notify.Mount
	mounted bool
	paths   bool // somebody looked for paths
}

// setup loads the module with notify support and mounts. When the test ends,
// umount and the module's removal must succeed.
func setup(t *testing.T) *fs {
	t.Helper()
	inGuest(t)
	insmod(t, Module)
	var f *fs
	t.Cleanup(func() {
		if f != nil && f.paths {
			awaitUnused(t)
		}
		rmmod(t)
	})
	f = mountFS(t)
	return f
}

// awaitUnused waits until no file system of the module is left. One that was open for a
// path when it was unmounted ends a moment later, in a thread of the kernel.
func awaitUnused(t *testing.T) {
	t.Helper()
	const refcnt = "/sys/module/scoutfs/refcnt"
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(refcnt); err != nil || strings.TrimSpace(string(b)) == "0" || time.Now().After(end) {
			return
		}
	}
}

func mountFS(t *testing.T) *fs {
	t.Helper()
	f := &fs{t: t, dir: MountPoint}
	f.mount()
	t.Cleanup(func() {
		if f.mounted {
			f.umount()
		}
	})
	return f
}

func (f *fs) mount() {
	f.t.Helper()
	done := guardMount()
	err := Mount(f.dir)
	done()
	if err != nil {
		f.t.Fatal(err)
	}
	f.mounted = true
	if f.Mount, err = notify.Statfs(f.dir); err != nil {
		f.t.Fatal(err)
	}
}

// mountLimit is how long a mount may take: far longer than any does that returns. With
// sanitizers the older releases' mounts hang every few minutes.
const mountLimit = 90 * time.Second

// guardMount ends the machine if a mount(2) of real ScoutFS does not return before done
// is called.
func guardMount() (done func()) {
	if !isScoutFS() {
		return func() {}
	}
	hangs := time.AfterFunc(min(patience, mountLimit), func() {
		fmt.Printf("\n%s\n", MountHangs)
		unix.IoctlSetInt(1, unix.TCSBRK, 1) // wait until that is written
		// log the blocked tasks
		os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
		// This process hangs in mount(2) and could not exit.
		proto.PowerOff()
	})
	return func() { hangs.Stop() }
}

// umount must succeed at the first try, with or without a reader.
func (f *fs) umount() {
	f.t.Helper()
	start := time.Now()
	if err := unix.Unmount(f.dir, 0); err != nil {
		f.t.Fatalf("umount %s: %v", f.dir, err)
	}
	f.mounted = false
	f.t.Logf("umount took %v", time.Since(start).Round(time.Millisecond))
}

func (f *fs) path(name string) string { return filepath.Join(f.dir, name) }

// create makes a file of size bytes and returns its inode number.
func (f *fs) create(name string, size int) uint64 {
	f.t.Helper()
	data := bytes.Repeat([]byte("scoutfs-notify\n"), size/15+1)[:size]
	if err := os.WriteFile(f.path(name), data, 0o644); err != nil {
		f.t.Fatal(err)
	}
	return f.ino(name)
}

func (f *fs) ino(name string) uint64 {
	f.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(f.path(name), &st); err != nil {
		f.t.Fatalf("stat %s: %v", name, err)
	}
	return st.Ino
}

// touch opens a file, which makes one record, and closes it.
func (f *fs) touch(name string) {
	f.t.Helper()
	fd, err := unix.Open(f.path(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.t.Fatalf("open %s: %v", name, err)
	}
	unix.Close(fd)
}

// keepTouching opens files repeatedly until the returned function is called.
func (f *fs) keepTouching(names ...string) (stop func()) {
	done := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				for _, name := range names {
					f.touch(name)
				}
			}
		}
	})
	return func() {
		close(done)
		load.Wait()
	}
}

// counter reads one of the mount's counters.
func (f *fs) counter(name string) uint64 {
	f.t.Helper()
	p := fmt.Sprintf("/sys/fs/scoutfs/f.%06x.r.%06x/counters/%s",
		uint64(f.FSID)>>40, uint64(f.RID)>>40, name)
	text, err := os.ReadFile(p)
	if err != nil {
		f.t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		f.t.Fatalf("%s: %v", p, err)
	}
	return n
}

// counters returns the counters of emitted and dropped records.
func (f *fs) counters() (emitted, dropped uint64) {
	f.t.Helper()
	return f.counter("notify_emitted"), f.counter("notify_dropped_ring_full")
}

// daemon is a running scoutfs-notifyd.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
	err    error // of Wait, set when done is closed
}

// startDaemon starts a daemon and waits until it reports that it is ready.
func (f *fs) startDaemon(args ...string) *daemon {
	f.t.Helper()
	return f.watchDaemon(exec.Command(Daemon, append(args, f.dir)...))
}

// watchDaemon is startDaemon with a command that runs one.
func (f *fs) watchDaemon(cmd *exec.Cmd) *daemon {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "sd") // TempDir is new each time
	sd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		f.t.Fatal(err)
	}
	d := &daemon{t: f.t, cmd: cmd, done: make(chan struct{})}
	d.cmd.Env = append(d.cmd.Environ(), "NOTIFY_SOCKET="+path)
	d.cmd.Stderr = &d.stderr
	if err := d.cmd.Start(); err != nil {
		sd.Close()
		f.t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
		sd.Close()
	}()
	f.t.Cleanup(func() {
		select {
		case <-d.done:
		default:
			d.cmd.Process.Kill()
			<-d.done
		}
		if f.t.Failed() {
			f.t.Logf("scoutfs-notifyd logged:\n%s", d.stderr.Bytes())
		}
	})

	// Like a service manager, keep reading after it is ready.
	ready := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for reported := false; ; {
			n, err := sd.Read(buf)
			if err != nil {
				return
			}
			if !reported && bytes.Contains(buf[:n], []byte("READY=1")) {
				reported = true
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-d.done:
		f.t.Fatalf("scoutfs-notifyd ended before it was ready: %v", d.err)
	case <-time.After(patience):
		f.t.Fatal("scoutfs-notifyd did not become ready")
	}
	return d
}

// wait waits for the end of the daemon and returns its exit status.
func (d *daemon) wait() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Fatal("scoutfs-notifyd did not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) signal(sig unix.Signal) {
	d.t.Helper()
	if err := unix.Kill(d.cmd.Process.Pid, sig); err != nil {
		d.t.Fatalf("%v: %v", sig, err)
	}
}

func (f *fs) dial() *notify.Client {
	f.t.Helper()
	c, err := notify.Dial(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	return c
}

func (f *fs) attach() *notify.Reader {
	f.t.Helper()
	r, err := notify.Attach(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { r.Close() })
	return r
}

// drain returns the records in the ring.
func drain(t *testing.T, r *notify.Reader) []notify.Record {
	t.Helper()
	recs, err := tryDrain(r)
	if err != nil {
		t.Fatalf("drain: %v", err)
	}
	return recs
}

func tryDrain(r *notify.Reader) ([]notify.Record, error) {
	buf := make([]byte, notify.RingRecords*notify.RecordSize)
	n, _, err := r.Drain(buf)
	if err != nil {
		return nil, err
	}
	return notify.Decode(nil, buf[:n*notify.RecordSize])
}

// poll returns a descriptor's pending events.
func poll(t *testing.T, fd int) int16 {
	t.Helper()
	return pollFor(t, fd, 0)
}

func pollFor(t *testing.T, fd int, d time.Duration) int16 {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, int(d.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("poll: %v", err)
		}
		return p[0].Revents
	}
}

// fdinfo returns the fields of a descriptor's fdinfo.
func fdinfo(t *testing.T, fd int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// run runs a program and returns its output and exit status.
func run(t *testing.T, argv ...string) (stdout, stderr string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", argv[0], err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// withoutSignals makes a system call that copies from file to file, with all signals of its
// thread held back. One that comes between the call's read and its write, such as Go's to
// preempt, has the kernel make the call once more, and so read and record once more.
func withoutSignals(call func() (int, error)) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = math.MaxUint64
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return 0, fmt.Errorf("hold signals back: %w", err)
	}
	n, err := call()
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); e != nil {
		err = errors.Join(err, fmt.Errorf("take signals again: %w", e))
	}
	return n, err
}
