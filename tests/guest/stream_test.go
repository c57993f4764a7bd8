// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// tailing is a running tail -json.
type tailing struct {
	t      *testing.T
	cmd    *exec.Cmd
	dec    *json.Decoder
	stderr bytes.Buffer
}

// object is what tail -json prints: the fields that tests look at.
type object struct {
	Type                                     string
	Seq, Next, First, Last, Count, Code, PID uint64
	Unknown                                  bool
	Cause                                    string
	RID                                      notify.ID
	Ino                                      uint64
}

func (f *fs) tail(args ...string) *tailing {
	f.t.Helper()
	f.paths = f.paths || slices.Contains(args, "-paths")
	tl := &tailing{t: f.t, cmd: exec.Command(Command, append(append([]string{"tail", "-json"}, args...), f.dir)...)}
	tl.cmd.Stderr = &tl.stderr
	out, err := tl.cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	tl.dec = json.NewDecoder(out)
	if err := tl.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	hangs := time.AfterFunc(patience, func() { tl.cmd.Process.Kill() })
	f.t.Cleanup(func() {
		hangs.Stop()
		tl.cmd.Process.Kill()
	})
	return tl
}

// until returns what tail prints up to the first object of a type.
func (tl *tailing) until(typ string) (all []object, last object) {
	tl.t.Helper()
	for {
		var o object
		if err := tl.dec.Decode(&o); err != nil {
			tl.t.Fatalf("no %q after %+v: %v, %s", typ, all, err, &tl.stderr)
		}
		if all = append(all, o); o.Type == typ {
			return all, o
		}
	}
}

// tail tells of a loss that no access follows, as soon as the daemon knows, and why the
// stream ended.
func TestTailTellsLoss(t *testing.T) {
	const opens = 5001
	f := setup(t)
	f.create("a", 10)
	d := f.startDaemon()
	tl := f.tail()
	_, hello := tl.until("hello")
	d.signal(unix.SIGSTOP)
	for range opens {
		f.touch("a")
	}
	d.signal(unix.SIGCONT)
	all, lost := tl.until("lost")
	if n := uint64(len(all) - 1); n+lost.Count != opens || lost.Cause != "kernel" || lost.Unknown || lost.Last != hello.Next+opens-1 {
		t.Errorf("%d records from number %d on, then %+v", n, hello.Next, lost)
	}
	f.umount()
	if _, end := tl.until("end"); end.Code != uint64(notify.EndUnmounted) || end.Seq != lost.Last {
		t.Errorf("it ended with %+v", end)
	}
	if err := tl.cmd.Wait(); err != nil || !strings.HasSuffix(tl.stderr.String(), ": the stream ended: the file system was unmounted\n") {
		t.Errorf("%v, %s", err, &tl.stderr)
	}
	if d.wait() != 0 {
		t.Error("scoutfs-notifyd failed")
	}
}

// tail fails if the daemon is killed.
func TestTailBreaksOff(t *testing.T) {
	f := setup(t)
	d := f.startDaemon()
	tl := f.tail()
	tl.until("hello")
	d.signal(unix.SIGKILL)
	d.wait()
	err := tl.cmd.Wait()
	if tl.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(tl.stderr.String(), "scoutfs-notifyd was killed, and what it had not sent is lost") {
		t.Errorf("%v, %s", err, &tl.stderr)
	}
}

// tail -f goes on over restarts, a crash and a remount of the file system, tells what may
// be missing each time, and never keeps the file system from being unmounted.
func TestTailFollow(t *testing.T) {
	f := setup(t)
	f.create("a", 10)
	d := f.startDaemon()
	tl := f.tail("-f", "-type", "open")
	_, first := tl.until("hello")
	f.touch("a")
	_, rec := tl.until("open")

	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		d.signal(sig)
		d.wait()
		if sig == unix.SIGTERM {
			if _, end := tl.until("end"); end.Code != uint64(notify.EndStopping) {
				t.Errorf("after %v: %+v", sig, end)
			}
		}
		tl.until("waiting")
		f.touch("a") // nobody counts this
		d = f.startDaemon()
		_, hello := tl.until("hello")
		_, lost := tl.until("lost")
		if hello.RID != first.RID || !lost.Unknown || lost.Cause != "away+unattended" || lost.First != rec.Seq+1 || lost.Last != hello.Next-1 {
			t.Errorf("after %v: %+v, then %+v", sig, hello, lost)
		}
		f.touch("a")
		_, rec = tl.until("open")
	}

	f.umount()
	if _, end := tl.until("end"); end.Code != uint64(notify.EndUnmounted) {
		t.Errorf("after the unmount: %+v", end)
	}
	d.wait()
	tl.until("waiting")
	f.mount()
	f.create("a", 10)
	f.umount() // while tail waits
	f.mount()
	ino := f.create("a", 10)
	f.startDaemon()
	_, hello := tl.until("hello")
	_, lost := tl.until("lost")
	if hello.RID == first.RID || hello.RID != f.RID || !lost.Unknown || lost.Count != 0 {
		t.Errorf("after the mount: %+v, then %+v", hello, lost)
	}
	f.touch("a")
	if _, rec := tl.until("open"); rec.Seq != hello.Next || rec.Ino != ino {
		t.Errorf("after the mount: %+v", rec)
	}
	tl.cmd.Process.Signal(unix.SIGINT)
	if err := tl.cmd.Wait(); err != nil || tl.stderr.Len() > 0 {
		t.Errorf("%v, %s", err, &tl.stderr)
	}
}

// The daemon leaves out what the flags say.
func TestTailFilter(t *testing.T) {
	f := setup(t)
	f.create("a", 10)
	ino := f.create("b", 10)
	f.startDaemon()
	byIno := f.tail("-ino", "1,"+strconv.FormatUint(ino, 10))
	byRoot := f.tail("-exclude-user", "0", "-idle", "50ms")
	byIno.until("hello")
	_, hello := byRoot.until("hello")
	f.touch("a")
	f.touch("b")
	if all, rec := byIno.until("open"); len(all) != 1 || rec.Ino != ino {
		t.Errorf("-ino: %+v", all)
	}
	// It hears of no access, but that there were some.
	for idle := hello; idle.Seq != hello.Next+1; {
		var all []object
		if all, idle = byRoot.until("idle"); len(all) != 1 {
			t.Fatalf("-exclude-user: %+v", all)
		}
	}
}

// stat works for another user, in a container with process numbers of its own, and for a
// daemon that is stopped.
func TestStatAsks(t *testing.T) {
	f := setup(t)
	d := f.startDaemon()
	stat := func(attr *syscall.SysProcAttr, argv ...string) (string, int) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	running := f.RID.String() + ", device " + f.Device.String() + "\ndaemon       running, as of "
	if out, status := stat(nil, Command, "stat", f.dir); status != 0 || !strings.Contains(out, running) {
		t.Errorf("status %d, %s", status, out)
	}
	// The shell forks, so that stat is not process 1.
	out, status := stat(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS},
		"sh", "-c", "mount -t proc proc /proc && "+Command+" stat "+f.dir+"; exit $?")
	if status != 0 || !strings.Contains(out, running) {
		t.Errorf("in a pid namespace: status %d, %s", status, out)
	}
	user := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, status := stat(user, Command, "stat", f.dir); status != 0 || !strings.Contains(out, "; only root can ask whether it still runs\n") || !strings.Contains(out, "\nprocess ") {
		t.Errorf("as another user: status %d, %s", status, out)
	}
	d.signal(unix.SIGSTOP)
	if out, status := stat(nil, Command, "stat", f.dir); status != 1 || !strings.Contains(out, "daemon       does not answer within 5s") || !strings.Contains(out, "\nprocess ") {
		t.Errorf("of a stopped daemon: status %d, %s", status, out)
	}
	d.signal(unix.SIGCONT)
}

// The command never shows one mount's figures or accesses for another's.
func TestOtherMount(t *testing.T) {
	if isScoutFS() {
		t.Skip("skipped: a device with ScoutFS can be mounted once")
	}
	f := setup(t)
	f.startDaemon()
	second := filepath.Join(filepath.Dir(f.dir), "clone")
	if err := Mount(second); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(second, 0)
	for _, args := range [][]string{{"stat"}, {"stat", "-json"}, {"tail"}, {"top"}} {
		stdout, stderr, status := run(t, append(append([]string{Command}, args...), second)...)
		if status != 69 || stdout != "" || !strings.Contains(stderr, "scoutfs-notifyd serves another mount") {
			t.Errorf("%v: status %d, %s%s", args, status, stdout, stderr)
		}
	}
	// So it is when the first is gone but for a lazy unmount.
	hold := f.openDir()
	if err := unix.Unmount(f.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	f.mounted = false
	if err := Mount(f.dir); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := run(t, Command, "stat", f.dir); status != 69 || stdout != "" || !strings.Contains(stderr, "scoutfs-notifyd serves another mount") {
		t.Errorf("after a lazy unmount: status %d, %s%s", status, stdout, stderr)
	}
	unix.Close(hold)
	if err := unix.Unmount(f.dir, 0); err != nil {
		t.Error(err)
	}
}
