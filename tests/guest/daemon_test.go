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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// receive returns records up to and including the open of inode last.
func receive(t *testing.T, c *notify.Client, last uint64) []notify.Record {
	t.Helper()
	var recs []notify.Record
	for {
		rec, err := c.Next()
		if err != nil {
			t.Fatalf("after %d records: %v", len(recs), err)
		}
		recs = append(recs, rec)
		if rec.Ino == last {
			return recs
		}
	}
}

// wantBalance checks that a client accounts for every number from the hello on: each is in
// one of the records that it got or in a loss that it was told of.
func wantBalance(t *testing.T, c *notify.Client, records uint64) {
	t.Helper()
	if numbers := c.Seq() - (c.Hello().Next - 1); records+c.Lost() != numbers {
		t.Errorf("%d records and %d lost, but there were %d numbers from %d on", records, c.Lost(), numbers, c.Hello().Next)
	}
}

func wantContiguous(t *testing.T, recs []notify.Record) {
	t.Helper()
	for i := 1; i < len(recs); i++ {
		if recs[i].Seq != recs[i-1].Seq+1 {
			t.Errorf("seq %d follows %d", recs[i].Seq, recs[i-1].Seq)
		}
	}
}

// A workload with known records delivers exactly those, from the kernel through the
// daemon to the client.
func TestKnownAnswer(t *testing.T) {
	f := setup(t)
	type proc struct {
		name     string
		uid, gid uint32
		ino      uint64
		report
	}
	procs := []*proc{
		{name: "w0"}, {name: "w1"},
		{name: "w2", uid: 1000, gid: 2000}, {name: "w3", uid: 1000, gid: 2000},
	}
	if err := os.Mkdir(f.path("dir"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.path("dir"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		p.ino = f.create("dir/"+p.name, fileSize)
	}
	end := f.create("end", 1)
	f.startDaemon()
	c := f.dial()
	emitted0, dropped0 := f.counters()
	before := time.Now()

	var wg sync.WaitGroup
	for _, p := range procs {
		cmd := worker(roleAccess, f.path("dir/"+p.name),
			&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid}})
		wg.Go(func() {
			out, err := cmd.Output()
			if err == nil {
				err = json.Unmarshal(out, &p.report)
			}
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
			} else if p.TID != p.PID || p.OtherTID == p.PID || p.PID != cmd.Process.Pid {
				t.Errorf("%s: process %d, threads %d and %d", p.name, p.PID, p.TID, p.OtherTID)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	f.touch("end")
	recs := receive(t, c, end)
	after := time.Now()
	emitted, dropped := f.counters()

	wantContiguous(t, recs)
	if got := emitted - emitted0; got != uint64(len(recs)) {
		t.Errorf("counter notify_emitted rose by %d, %d records were delivered", got, len(recs))
	}
	if dropped != dropped0 {
		t.Errorf("%d records were dropped", dropped-dropped0)
	}
	recs = recs[:len(recs)-1]
	seen := 0
	for _, p := range procs {
		newIno := f.ino("dir/" + p.name + ".new")
		want := expected(t, p.report, p.uid, p.gid, p.ino, newIno)
		var got []notify.Record
		for _, rec := range recs {
			if rec.PID != uint32(p.PID) {
				continue
			}
			if at := rec.Time(); at.Before(before.Add(-time.Second)) || at.After(after.Add(time.Second)) {
				t.Errorf("time %v is not between %v and %v", at, before, after)
			}
			rec.Seq, rec.TimeNS = 0, 0
			got = append(got, rec)
		}
		seen += len(got)
		for i := range max(len(got), len(want)) {
			switch {
			case i >= len(got):
				t.Errorf("%s: missing %+v", p.name, want[i])
			case i >= len(want):
				t.Errorf("%s: not expected %+v", p.name, got[i])
			case got[i] != want[i]:
				t.Errorf("%s: record %d is\n%+v, not\n%+v", p.name, i, got[i], want[i])
			}
		}
	}
	if seen != len(recs) {
		t.Errorf("%d records are not of any worker", len(recs)-seen)
	}
	t.Logf("%d records of %d processes", len(recs), len(procs))
}

// Records of a process in a container have its ids in the initial namespaces.
func TestNamespaces(t *testing.T) {
	f := setup(t)
	ino := f.create("a", 10)
	f.startDaemon()
	c := f.dial()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}}
	cmd := worker(roleRead, f.path("a"), &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
		UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{Uid: 7, Gid: 8},
	})
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	if rep.PID != 1 {
		t.Errorf("the worker has pid %d in its namespace, not 1", rep.PID)
	}
	for _, typ := range []notify.Type{notify.TypeOpen, notify.TypeRead} {
		rec, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid)
		if rec.Type != typ || rec.Ino != ino || rec.PID != pid || rec.UID != 100007 || rec.GID != 100008 {
			t.Errorf("record %+v, should have type %v, ino %d, pid %d, uid 100007, gid 100008", rec, typ, ino, pid)
		}
		if rec.TID < pid || rec.TID > pid+1000 {
			t.Errorf("tid %d is not a thread of process %d in the initial namespace", rec.TID, pid)
		}
	}
}

// Only the host's root gets records, in whatever namespace. Knowing the socket's path
// is not enough.
func TestStrangers(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	f.startDaemon()
	defer f.keepTouching("a")()

	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	for _, c := range []struct {
		name string
		attr *syscall.SysProcAttr
		gets bool
	}{
		{"root", nil, true},
		{"another user", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}, false},
		{"another user in root's group", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 0}}, false},
		{"root of a user namespace created by root", &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: root, GidMappings: root,
		}, true},
		{"root of a container's user namespace", &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}},
			Credential:  &syscall.Credential{},
		}, false},
	} {
		cmd := worker(roleListen, notify.SocketPath(f.FSID), c.attr)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		t.Logf("%s: %s%s", c.name, out, stderr.String())
		if got := err == nil && len(out) > 0; got != c.gets {
			t.Errorf("%s: got a record: %v, should be %v", c.name, got, c.gets)
		}
	}
}

// A daemon that cannot see its clients in /proc serves them: hidepid hides from it
// all that have capabilities which it has not.
func TestHiddenClients(t *testing.T) {
	f := setup(t)
	ino := f.create("a", 1)
	hide := func(options string) {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_REMOUNT, options); err != nil {
			t.Fatalf("mount /proc with %s: %v", options, err)
		}
	}
	hide("hidepid=2,gid=12345")
	defer hide("hidepid=0,gid=0")

	d := f.watchDaemon(worker(roleDaemon, f.dir, nil))
	look := worker(roleLook, fmt.Sprintf("/proc/%d/stat", os.Getpid()), nil)
	if out, err := look.Output(); err != nil || string(out) != "\"no such file or directory\"\n" {
		t.Errorf("to a process with the daemon's capabilities this one is not hidden: %s, %v", out, err)
	}
	c := f.dial()
	f.touch("a")
	receive(t, c, ino)
	d.signal(unix.SIGTERM)
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d after SIGTERM", status)
	}
}

// umount succeeds at the first try while the daemon runs and has clients.
func TestUmountWithDaemon(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	d := f.startDaemon()
	clients := []*notify.Client{f.dial(), f.dial(), f.dial()}
	sock := notify.SocketPath(f.FSID)
	if st, err := os.Stat(sock); err != nil {
		t.Error(err)
	} else if m := st.Mode(); m != os.ModeSocket|0o600 {
		t.Errorf("mode of %s is %v, not 0600", sock, m)
	}
	f.touch("a")
	f.umount()
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d after umount", status)
	}
	for i, c := range clients {
		if _, err := c.Next(); err != nil {
			t.Errorf("client %d did not get the record: %v", i, err)
		}
		if _, err := c.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("client %d: %v, not the end of the stream", i, err)
		}
	}
	left, err := filepath.Glob(filepath.Dir(sock) + "/*.*")
	if err != nil || slices.Contains(left, sock) {
		t.Errorf("left after umount: %v", left)
	}
	rmmod(t)
	insmod(t, Module)

	f.mount()
	end := f.create("b", 1)
	d = f.startDaemon()
	c := f.dial()
	f.touch("b")
	if recs := receive(t, c, end); len(recs) != 1 || recs[0].Seq != 1 {
		t.Errorf("after the remount: %+v, not one record with seq 1", recs)
	}
	d.signal(unix.SIGTERM)
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d after SIGTERM", status)
	}
	if _, err := os.Stat(sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after SIGTERM: %v", err)
	}
}

// A daemon that was stopped by a signal says at once what the kernel dropped meanwhile,
// although no record follows, and again at the end of the stream.
func TestLossIsTold(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	d := f.startDaemon()
	c := f.dial()
	if c.Hello().Next == 0 || c.Hello().FSID != f.FSID || c.Hello().RID != f.RID {
		t.Errorf("hello: %+v", c.Hello())
	}
	d.signal(unix.SIGSTOP)
	const accesses = 5001
	for range accesses {
		f.touch("a")
	}
	d.signal(unix.SIGCONT)
	got, lost := uint64(0), uint64(0)
	for ev, err := range c.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		switch ev := ev.(type) {
		case *notify.Record:
			got++
		case *notify.Lost:
			lost += ev.Count
			if ev.Cause != notify.LostKernel {
				t.Errorf("%+v", ev)
			}
		}
		if got+lost == accesses {
			break
		}
	}
	if lost == 0 {
		t.Error("nothing was lost: this test is too short")
	}
	t.Logf("%d records, %d lost", got, lost)

	// The same, but the file system is unmounted before the daemon can look.
	d.signal(unix.SIGSTOP)
	for range accesses {
		f.touch("a")
	}
	f.umount()
	d.signal(unix.SIGCONT)
	for ev, err := range c.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := ev.(*notify.Record); ok {
			got++
		}
	}
	wantBalance(t, c, got)
	if c.End() == nil || c.End().Reason != notify.EndUnmounted {
		t.Errorf("end: %+v", c.End())
	}
	if got+c.Lost() < 2*accesses {
		t.Errorf("%d records and %d lost of %d accesses", got, c.Lost(), 2*accesses)
	}
	d.wait()
}

// A daemon that is stopped under load delivers all that it has drained, and logs how
// many records that was.
func TestStopUnderLoad(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	d := f.startDaemon()
	c := f.dial()
	var ends atomic.Bool
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for !ends.Load() {
				f.touch("a")
			}
		})
	}
	var got, last uint64
	for {
		rec, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, last = got+1, rec.Seq
		if got == 3000 {
			d.signal(unix.SIGTERM)
		}
	}
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d after SIGTERM", status)
	}
	ends.Store(true)
	load.Wait()
	if want := fmt.Sprintf(" records=%d ", got); !strings.Contains(d.stderr.String(), want) {
		t.Errorf("the client got %d records, the daemon says\n%s", got, d.stderr.String())
	}
	wantBalance(t, c, got)
	if c.End() == nil || c.End().Reason != notify.EndStopping || c.End().Seq < last {
		t.Errorf("the end of the stream after number %d: %+v", last, c.End())
	}
	if emitted := f.counter("notify_emitted"); emitted < got {
		t.Errorf("got %d records of %d emitted", got, emitted)
	}
	t.Logf("%d records, up to number %d", got, last)
}

// After kill -9 the next daemon works, and a client of both sees a gap.
func TestKilledDaemon(t *testing.T) {
	f := setup(t)
	f.create("a", 1)
	end := f.create("end", 1)
	d := f.startDaemon()
	c := f.dial()
	f.touch("end")
	before := receive(t, c, end)
	d.signal(unix.SIGKILL)
	d.wait()
	if _, err := os.Stat(notify.SocketPath(f.FSID)); err != nil {
		t.Errorf("the killed daemon should have left its socket: %v", err)
	}
	f.touch("a")

	f.startDaemon()
	c = f.dial()
	f.touch("end")
	after := receive(t, c, end)
	if len(after) != 1 || after[0].Seq <= before[len(before)-1].Seq+1 {
		t.Errorf("after the restart %+v, before it %+v: no gap", after, before)
	}
}

func TestSecondDaemon(t *testing.T) {
	f := setup(t)
	d := f.startDaemon()
	_, stderr, status := run(t, Daemon, f.dir)
	t.Logf("status %d: %s", status, stderr)
	if status == 0 || status == 78 {
		t.Errorf("a second scoutfs-notifyd ended with %d", status)
	}
	if !strings.Contains(stderr, f.dir) {
		t.Error("its message does not name the first daemon's mount point")
	}
	// and the first still serves
	end := f.create("end", 1)
	c := f.dial()
	f.touch("end")
	receive(t, c, end)
	d.signal(unix.SIGINT)
	if status := d.wait(); status != 0 {
		t.Errorf("scoutfs-notifyd ended with %d after SIGINT", status)
	}
}

// On mounts that cannot work the daemon says what to do and exits with the status that
// stops restarts.
func TestUnsupported(t *testing.T) {
	inGuest(t)
	t.Run("not ScoutFS", func(t *testing.T) {
		_, stderr, status := run(t, Daemon, t.TempDir())
		t.Logf("status %d: %s", status, stderr)
		if status != 78 || !strings.Contains(stderr, "ScoutFS") {
			t.Errorf("status %d and %q", status, stderr)
		}
	})
	t.Run("unpatched", func(t *testing.T) {
		insmod(t, Unpatched)
		defer rmmod(t)
		f := mountFS(t)
		defer f.umount()
		dir := f.openDir()
		var rn readNotify
		if _, err := ioctlReadNotify(dir, &rn); err != unix.ENOTTY {
			t.Errorf("attach to an unpatched module: %v, not ENOTTY", err)
		}
		unix.Close(dir)
		_, stderr, status := run(t, Daemon, f.dir)
		t.Logf("status %d: %s", status, stderr)
		if status != 78 || !strings.Contains(stderr, "scoutfs-notify-kmod-v") {
			t.Errorf("status %d and %q", status, stderr)
		}
	})
}

// tail shows a line for each record and one for each gap.
func TestTail(t *testing.T) {
	f := setup(t)
	ino := f.create("a", 10)
	f.startDaemon()
	start := func(args ...string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command(Command, append(append([]string{"tail"}, args...), f.dir)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, bufio.NewReader(out)
	}
	// tail may not be connected yet: go on until both have their two lines
	text, textOut := start("-count", "2")
	jsons, jsonOut := start("-count", "2", "-json")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				f.touch("a")
			}
		}
	})
	var lines []string
	for _, r := range []*bufio.Reader{textOut, jsonOut} {
		b, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		lines = append(lines, string(b))
		t.Logf("%s", b)
	}
	close(done)
	wg.Wait()
	for _, cmd := range []*exec.Cmd{text, jsons} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", cmd.Args, err)
		}
	}
	if !strings.Contains(strings.ToUpper(lines[0]), "OPEN") {
		t.Errorf("tail printed %q", lines[0])
	}
	dec := json.NewDecoder(strings.NewReader(lines[1]))
	n := 0
	for ; ; n++ {
		var rec struct {
			Ino  uint64
			Type string
		}
		if err := dec.Decode(&rec); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("tail -json: %v", err)
		}
		if rec.Type == "hello" {
			n--
			continue
		}
		if rec.Ino != ino || !strings.EqualFold(rec.Type, "open") {
			t.Errorf("tail -json: %+v", rec)
		}
	}
	if n != 2 {
		t.Errorf("tail -json -count 2 printed %d records", n)
	}
}

// The README's smoke test works with stock tools, unchanged. It waits for seconds, which
// can be too few for a machine that gets little processor time: then it says nothing.
func TestSmoke(t *testing.T) {
	f := setup(t)
	f.create("file", 100)
	f.startDaemon()
	var stdout string
	for end := time.Now().Add(patience); stdout == "" && time.Now().Before(end); {
		var stderr string
		var status int
		stdout, stderr, status = run(t, "sh", "-eux", Smoke)
		t.Logf("%s%s", stderr, stdout)
		if status != 0 {
			t.Fatalf("status %d", status)
		}
	}
	// xxd shows a record as four lines of 16 bytes
	if n := strings.Count(stdout, "\n"); n < 4 || n%4 != 0 {
		t.Errorf("%d lines are not whole records", n)
	}
	if !strings.HasPrefix(stdout, "00000000: ") {
		t.Error("this is not xxd's output")
	}
}
