// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// realDaemon is scoutfs-notifyd as a process, on a ring that makes accesses when it is told
// to: the test binary of package daemon is one.
type realDaemon struct {
	t      *testing.T
	binary string
	runDir string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader

	rid  notify.ID
	seq  uint64 // the last number of the mount
	ever bool   // the mount has had a reader
	all  []Place
}

func buildDaemon(t *testing.T) *realDaemon {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "daemon.test")
	out, err := exec.Command("go", "test", "-c", "-o", binary, "git.anomalous.dev/alphacentri/scoutfs-notify/daemon").CombinedOutput()
	if err != nil {
		t.Fatalf("build the daemon: %v\n%s", err, out)
	}
	runDir, err := os.MkdirTemp("", "notifyd") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &realDaemon{t: t, binary: binary, runDir: runDir, rid: 1}
	t.Cleanup(func() {
		if d.cmd != nil {
			d.end("")
		}
		os.RemoveAll(runDir)
	})
	return d
}

func (d *realDaemon) socket() string {
	return filepath.Join(d.runDir, testFSID.String(), notify.SocketName)
}

// start attaches, and waits until it serves.
func (d *realDaemon) start() {
	d.t.Helper()
	if d.ever {
		d.seq++ // as the kernel does
	}
	d.ever = true
	d.cmd = exec.Command(d.binary, "-interval=1ms", "-run-dir="+d.runDir, "/mnt/scoutfs")
	d.cmd.Env = append(os.Environ(), "SCOUTFS_NOTIFYD_TEST=serve", fmt.Sprintf("SCOUTFS_NOTIFYD_TEST_RING=%d %d", d.rid, d.seq))
	in, err := d.cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	log, err := d.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.in, d.out = in, bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	for !strings.Contains(lines.Text(), "msg=serving") {
		if !lines.Scan() {
			d.t.Fatalf("the daemon ended: %s", lines.Text())
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
}

func (d *realDaemon) order(format string, a ...any) {
	d.t.Helper()
	fmt.Fprintf(d.in, format+"\n", a...)
	if line, err := d.out.ReadString('\n'); err != nil || line != "done\n" {
		d.t.Fatalf("%s: %q, %v", fmt.Sprintf(format, a...), line, err)
	}
}

// access makes accesses, as fast as it can.
func (d *realDaemon) access(n int) {
	d.t.Helper()
	d.order("access %d", n)
	for range n {
		d.seq++
		d.all = append(d.all, Place{d.rid, d.seq})
	}
}

// end ends it: by a signal, or "unmount", or, with neither, at once.
func (d *realDaemon) end(how string) {
	switch how {
	case "unmount":
		d.order("unmount")
		d.rid++
		d.seq, d.ever = 0, false
	case "stop":
		d.cmd.Process.Signal(unix.SIGTERM)
	default:
		d.cmd.Process.Kill()
	}
	d.cmd.Wait()
	d.in.Close()
	d.cmd = nil
}

// With the real daemon instead of one that the test plays: whatever is killed, each access
// is in the store once, or between two numbers that a gap names.
func TestKillDaemon(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 4))
	d := buildDaemon(t)
	dir := memoryDir(t)
	w := &world{t: t, socket: d.socket(), dir: dir, inodes: 4096} // for its index
	defer func() {
		if w.index != nil {
			w.index.Process.Kill()
			w.index.Wait()
		}
	}()
	// caughtUp waits until the store has all that was told.
	caughtUp := func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			v, err := OpenView(dir, testFSID)
			if err == nil {
				at := v.Nodes[0].At
				v.Close()
				if at == (Place{d.rid, d.seq}) {
					return
				}
			}
			if time.Now().After(end) {
				t.Fatalf("the index does not get to %d of mount %d: %v", d.seq, d.rid, err)
			}
		}
	}
	d.start()
	w.startIndex()
	for range 25 {
		if rnd.IntN(5) > 0 { // it is connected when the rest comes
			d.access(1)
			caughtUp()
		}
		for range rnd.IntN(4) {
			d.access(1 + rnd.IntN([]int{10, 100, 100, 2000}[rnd.IntN(4)]))
		}
		if rnd.IntN(2) > 0 {
			caughtUp()
			d.access(rnd.IntN(50)) // something ends while these are told
		}
		switch rnd.IntN(6) {
		case 0, 1:
			w.stopIndex(syscall.SIGKILL)
			d.access(rnd.IntN(20))
			w.startIndex()
		case 2:
			w.stopIndex(syscall.SIGKILL)
			d.end("")
			d.start()
			w.startIndex()
		default:
			d.end([]string{"", "stop", "unmount"}[rnd.IntN(3)])
			d.start()
		}
	}
	d.access(1)
	caughtUp()
	w.stopIndex(syscall.SIGTERM)
	d.check(view(t, dir))
}

// check compares a store with what was accessed.
func (d *realDaemon) check(v *View) {
	n := &v.Nodes[0]
	stored, told, lost := make(map[uint64]bool), uint64(0), 0
	err := All([]*View{v}, func(e *Entry) error {
		stored[e.Ino] = true
		if e.Reads != 1 {
			d.t.Errorf("inode %#x has %d accesses", e.Ino, e.Reads)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, p := range d.all {
		switch has, is := n.has(p), stored[p.Seq|uint64(p.RID)<<32]; {
		case is != has:
			d.t.Errorf("access %d of mount %d: in the store %v, and by the gaps %v", p.Seq, p.RID, is, has)
		case is:
			told++
		default:
			lost++
		}
	}
	if n.Records != told || len(stored) != int(told) {
		d.t.Errorf("%d accesses and %d inodes in the store, %d were told", n.Records, len(stored), told)
	}
	if told < uint64(len(d.all)/10) || lost == 0 {
		d.t.Errorf("%d told and %d lost: this shows little", told, lost)
	}
	d.t.Logf("%d accesses, %d told, %d lost, %d gaps", len(d.all), told, lost, len(n.Gaps))
}
