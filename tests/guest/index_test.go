// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// indexRoot is where the index keeps its stores if it is told nothing else.
const indexRoot = "/var/lib/scoutfs-notify"

// index is a running scoutfs-notify-index.
type index struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// archiver is the user whose accesses the index leaves out.
const archiver = 993

func (f *fs) startIndex(flags ...string) *index {
	f.t.Helper()
	args := append([]string{"follow", "-flush", "1s", "-exclude", fmt.Sprint("uid=", archiver)}, flags...)
	x := &index{t: f.t, cmd: exec.Command(Index, append(args, f.dir)...)}
	x.cmd.Stderr = &x.stderr
	if err := x.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if x.cmd.ProcessState == nil {
			x.stop()
		}
		if f.t.Failed() {
			f.t.Logf("scoutfs-notify-index logged:\n%s", x.stderr.Bytes())
		}
		os.RemoveAll(indexRoot)
	})
	return x
}

func (x *index) stop() {
	x.t.Helper()
	x.cmd.Process.Signal(unix.SIGTERM)
	if err := x.cmd.Wait(); err != nil {
		x.t.Errorf("scoutfs-notify-index: %v", err)
	}
}

// indexNode is what "stat -json" says of the node.
type indexNode struct {
	Since     int64
	Told      int64
	Connected bool
	Records   uint64
	Excluded  uint64
	Gaps      []struct {
		Unknown bool
		To      int64
	}
	Steps []struct {
		By time.Duration `json:"by_ns"`
	}
	Samples []struct{ Time, Seq uint64 }
}

// indexStat is what "stat -json" says.
type indexStat struct {
	Nodes    []indexNode
	Segments []struct{ Span, Entries int }
	Vacuumed struct{ Entries int }
}

// await waits until the index's store is as it should be.
func (f *fs) await(what string, ok func(*indexNode) bool) *indexNode {
	f.t.Helper()
	return &f.awaitStat(what, func(st *indexStat) bool { return ok(&st.Nodes[0]) }).Nodes[0]
}

func (f *fs) awaitStat(what string, ok func(*indexStat) bool) *indexStat {
	f.t.Helper()
	var stdout, stderr string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		stdout, stderr, _ = run(f.t, Index, "stat", "-json", f.dir)
		var st indexStat
		if json.Unmarshal([]byte(stdout), &st) == nil && len(st.Nodes) == 1 && ok(&st) {
			return &st
		}
	}
	f.t.Fatalf("the index does not get to %s:\n%s%s", what, stdout, stderr)
	return nil
}

// last returns what "last" says of a file.
func (f *fs) last(name string) (last time.Time, opens, reads uint64, certain bool) {
	f.t.Helper()
	stdout, stderr, status := run(f.t, Command, "last", "-json", f.dir, f.path(name))
	var o struct {
		Last         *time.Time
		Opens, Reads uint64
		Certain      bool
	}
	if err := json.Unmarshal([]byte(stdout), &o); err != nil || status != 0 {
		f.t.Fatalf("last %s: status %d, %v\n%s%s", name, status, err, stdout, stderr)
	}
	if o.Last != nil {
		last = *o.Last
	}
	return last, o.Opens, o.Reads, o.Certain
}

func (f *fs) read(name string) {
	f.t.Helper()
	if _, err := os.ReadFile(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

// The index knows the last access after an unmount and a mount, when ScoutFS has
// forgotten it, and says that it cannot know what was accessed in between. It never keeps
// the file system from being unmounted.
func TestIndexLast(t *testing.T) {
	f := setup(t)
	f.create("a", 4096)
	f.startDaemon()
	x := f.startIndex()
	f.await("the daemon", func(n *indexNode) bool { return n.Connected && n.Told > 0 })
	time.Sleep(10 * time.Millisecond) // the read must not be in the millisecond of the write
	start := time.Now().Truncate(time.Millisecond)
	f.read("a")
	if _, err := exec.Command("/bin/busybox", "cp", "/bin/busybox", f.path("prog")).CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	prog := exec.Command(f.path("prog"), "true")
	prog.Args[0] = "busybox"
	if out, err := prog.CombinedOutput(); err != nil {
		t.Fatalf("prog: %v %s", err, out)
	}
	f.await("the read", func(n *indexNode) bool { return n.Records >= 3 })
	last, opens, reads, certain := f.last("a")
	if last.Before(start) || opens != 1 || reads == 0 || !certain {
		t.Errorf("after a read: %v (since %v), %d opens, %d reads, certain %v", last, start, opens, reads, certain)
	}
	if _, opens, _, _ := f.last("prog"); opens < 2 {
		t.Errorf("a program that was made and executed has %d opens", opens)
	}

	f.umount()
	f.mount()
	if isScoutFS() {
		var st unix.Stat_t
		if err := unix.Stat(f.path("a"), &st); err != nil {
			t.Fatal(err)
		}
		atime := time.Unix(st.Atim.Unix())
		t.Logf("after a mount stat says that the last access was at %v, last says %v", atime.UTC(), last)
		if !atime.Before(start) {
			t.Errorf("stat has the access at %v: it is not wrong", atime)
		}
		if again, opens, _, _ := f.last("a"); !again.Equal(last) || opens != 1 {
			t.Errorf("after a mount: %v, %d opens, and before it was %v", again, opens, last)
		}
	}
	f.startDaemon()
	n := f.await("the gap", func(n *indexNode) bool { return n.Connected && len(n.Gaps) == 1 && n.Gaps[0].Unknown })
	if isScoutFS() {
		if again, _, _, certain := f.last("a"); !again.Equal(last) || certain {
			t.Errorf("with a daemon again: %v, certain %v, and before it was %v", again, certain, last)
		}
		// Before, it may have been in the gap for all that its time says.
		time.Sleep(time.Until(time.UnixMilli(n.Gaps[0].To)) + time.Millisecond)
		f.read("a")
		f.await("another read", func(n *indexNode) bool {
			again, _, _, certain := f.last("a")
			return again.After(last) && certain
		})
	}
	x.stop()
	if isScoutFS() { // the stand-in has forgotten its files
		if again, _, _, _ := f.last("prog"); again.IsZero() {
			t.Error("without the index running nothing is known")
		}
	}
}

// timeOf returns a time as -older takes it.
func timeOf(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// clear removes the files of other tests, which real ScoutFS keeps.
func (f *fs) clear() {
	f.t.Helper()
	names, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, name := range names {
		if err := os.RemoveAll(f.path(name.Name())); err != nil {
			f.t.Fatal(err)
		}
	}
}

// coldFiles returns the names that cold lists.
func (f *fs) coldFiles(since time.Time, args ...string) (names []string, stderr string) {
	f.t.Helper()
	args = append([]string{Command, "cold", "-older", timeOf(since), "-0"}, args...)
	stdout, stderr, status := run(f.t, append(args, f.dir)...)
	if status != 0 {
		f.t.Fatalf("cold: status %d\n%s", status, stderr)
	}
	for path := range strings.SplitSeq(strings.TrimSuffix(stdout, "\x00"), "\x00") {
		if path != "" {
			names = append(names, strings.TrimPrefix(path, f.dir+"/"))
		}
	}
	slices.Sort(names)
	return names, stderr
}

// cold lists all files that were neither accessed nor written since a time, and no other:
// not those that an archiver passed over, which is left out, nor those that were made
// since, nor one that took the place of another. Looking warms nothing.
func TestIndexCold(t *testing.T) {
	f := setup(t)
	if !isScoutFS() {
		t.Skip("the stand-in cannot list its inodes")
	}
	f.clear()
	for _, name := range []string{"read", "written", "cold", "cold\n2", "deleted", "archived"} {
		f.create(name, 4096)
	}
	unix.Sync()
	d := f.startDaemon()
	x := f.startIndex()
	f.await("a sample", func(n *indexNode) bool { return n.Connected && len(n.Samples) > 0 })
	time.Sleep(10 * time.Millisecond)
	mark := time.Now()
	old := f.ino("deleted")
	f.read("read")
	f.create("new", 100)
	f.create("written", 5000)
	if err := os.Remove(f.path("deleted")); err != nil {
		t.Fatal(err)
	}
	if ino := f.create("deleted", 4096); ino == old {
		t.Errorf("ScoutFS has used the number %d again", ino)
	}
	unix.Sync()
	backup := exec.Command("/bin/busybox", "cat", f.path("archived"), f.path("cold"))
	backup.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: archiver, Gid: archiver}}
	if out, err := backup.Output(); err != nil || len(out) != 2*4096 {
		t.Fatalf("the archiver: %v, %d bytes", err, len(out))
	}
	n := f.await("all of it", func(n *indexNode) bool { return n.Excluded >= 4 })
	want := []string{"archived", "cold", "cold\n2"}
	check := func(what string, args ...string) {
		t.Helper()
		if got, stderr := f.coldFiles(mark, args...); !slices.Equal(got, want) {
			t.Errorf("%s: cold lists %q, not %q\n%s", what, got, want, stderr)
		}
	}
	check("first")
	check("certain", "-certain")
	// Looking: by owner, by project, by folder, with paths.
	for _, by := range []string{"user", "project", "directory"} {
		stdout, stderr, status := run(t, Command, "cold", "-older", timeOf(mark), "-by", by, f.dir)
		t.Logf("-by %s:\n%s%s", by, stdout, stderr)
		if fields := strings.Fields(stdout); status != 0 || len(fields) < 6 || fields[3] != "3" || fields[4] != "12288" {
			t.Errorf("-by %s: status %d", by, status)
		}
	}
	stdout, stderr, status := run(t, Command, "cold", "-older", timeOf(mark), "-paths", f.dir)
	if status != 0 || !strings.Contains(stdout, `/cold\x0a2`+"\n") || strings.Count(stdout, "\n") != 3 {
		t.Errorf("-paths: status %d\n%s%s", status, stdout, stderr)
	}
	f.await("what looking made", func(now *indexNode) bool { return now.Excluded >= n.Excluded+3 && now.Told > n.Told })
	check("after looking", "-certain")
	if stdout, stderr, status := run(t, Command, "hot", "-sort", "reads", "-n", "1", "-paths", f.dir); status != 0 || !strings.Contains(stdout, f.path("read")) {
		t.Errorf("hot: status %d\n%s%s", status, stdout, stderr)
	}
	if _, stderr, status := run(t, Command, "cold", "-older", "90d", f.dir); status != 1 || !strings.Contains(stderr, "not observed for long enough") {
		t.Errorf("cold -older 90d: status %d\n%s", status, stderr)
	}
	f.runNight(mark)

	// A daemon that was killed: nothing is certain any more, and the list stays.
	d.signal(unix.SIGKILL)
	<-d.done
	f.startDaemon()
	f.await("the gap", func(n *indexNode) bool { return n.Connected && len(n.Gaps) > 0 })
	check("after a gap")
	if got, stderr := f.coldFiles(mark, "-certain"); len(got) > 0 || !strings.Contains(stderr, "nothing is certain") {
		t.Errorf("after a gap these are certainly cold: %q\n%s", got, stderr)
	}
	x.stop()
}

// The clock is set while the index follows. What was accessed while it was behind is not
// cold, though its time is long ago, and "last" says so; what was accessed while it was ahead
// is warm. All is certain all the same: nothing was missed.
func TestIndexClock(t *testing.T) {
	f := setup(t)
	if isScoutFS() {
		f.clear()
	}
	for _, name := range []string{"before", "behind", "ahead", "after", "cold"} {
		f.create(name, 4096)
	}
	unix.Sync()
	f.startDaemon()
	x := f.startIndex()
	f.await("the daemon", func(n *indexNode) bool { return n.Connected && (len(n.Samples) > 0 || !isScoutFS()) })
	time.Sleep(10 * time.Millisecond)
	mark := time.Now()
	// For what is within a second of a step the index cannot say which clock it had.
	time.Sleep(1100 * time.Millisecond)

	const step = 10 * 24 * time.Hour
	skew := time.Duration(0)
	t.Cleanup(func() { setClock(t, -skew) })
	steps, records := 0, uint64(0)
	set := func(by time.Duration) {
		t.Helper()
		setClock(t, by)
		skew += by
		steps++
		f.await(fmt.Sprint("step ", steps), func(n *indexNode) bool {
			return len(n.Steps) == steps && (n.Steps[steps-1].By-by).Abs() < time.Second
		})
	}
	read := func(name string) {
		t.Helper()
		f.read(name)
		records += 2 // the open, too
		f.await("the read of "+name, func(n *indexNode) bool { return n.Records >= records })
	}
	read("before")
	set(-step)
	read("behind")
	set(step)
	set(step)
	read("ahead")
	set(-step)
	read("after")
	n := f.await("now", func(n *indexNode) bool { return time.Since(time.UnixMilli(n.Told)).Abs() < 20*time.Second })
	if len(n.Gaps) != 0 {
		t.Errorf("gaps: %+v", n.Gaps)
	}
	for name, want := range map[string]time.Duration{"before": 0, "behind": -step, "ahead": step, "after": 0} {
		last, _, _, certain := f.last(name)
		if at := last.Sub(mark) - want; at < 0 || at > patience || !certain {
			t.Errorf("%s: last accessed at %v, certain %v", name, last, certain)
		}
	}
	stdout, stderr, status := run(t, Command, "last", f.dir, f.path("behind"))
	if _, late, ok := strings.Cut(stdout, "the clock was set since: it was at "); !ok || status != 0 {
		t.Errorf("last behind: status %d\n%s%s", status, stdout, stderr)
	} else if at, err := time.Parse(time.RFC3339, strings.Fields(late)[0]); err != nil || at.Before(mark.Truncate(time.Second)) {
		t.Errorf("last behind: %v, %v, and it was after %v\n%s", at, err, mark, stdout)
	}
	if isScoutFS() {
		if got, stderr := f.coldFiles(mark, "-certain"); !slices.Equal(got, []string{"cold"}) {
			t.Errorf("certainly cold are %q\n%s", got, stderr)
		}
	}
	x.stop()
}

// vacuum finds the file that was deleted, and follow forgets it, and no other.
func TestIndexVacuum(t *testing.T) {
	f := setup(t)
	if !isScoutFS() {
		t.Skip("the stand-in cannot list its inodes")
	}
	f.clear()
	f.create("kept", 4096)
	f.create("deleted", 4096)
	ino := fmt.Sprint(f.ino("deleted"))
	unix.Sync()
	f.startDaemon()
	x := f.startIndex("-hours", "1h", "-days", "1h", "-settle", "1s")
	f.await("the daemon", func(n *indexNode) bool { return n.Connected && len(n.Samples) > 0 })
	f.read("kept")
	f.read("deleted")
	f.await("the reads", func(n *indexNode) bool { return n.Records >= 4 })
	if err := os.Remove(f.path("deleted")); err != nil {
		t.Fatal(err)
	}
	const step = 4 * 24 * time.Hour
	setClock(t, step)
	t.Cleanup(func() { setClock(t, -step) })
	f.await("the step", func(n *indexNode) bool { return len(n.Steps) == 1 })
	f.read("kept")
	const spanAll = 3
	f.awaitStat("what is old", func(st *indexStat) bool {
		return slices.ContainsFunc(st.Segments, func(s struct{ Span, Entries int }) bool { return s.Span == spanAll && s.Entries >= 2 })
	})
	stdout, stderr, status := run(t, Index, "vacuum", f.dir)
	if status != 0 || !strings.HasPrefix(stdout, "1 of ") {
		t.Fatalf("vacuum: status %d\n%s%s", status, stdout, stderr)
	}
	f.read("kept") // for a flush
	f.awaitStat("the vacuum", func(st *indexStat) bool { return st.Vacuumed.Entries == 1 })
	if stdout, stderr, status := run(t, Command, "last", "-inodes", f.dir, ino); status != 0 || !strings.Contains(stdout, "not accessed while observed") {
		t.Errorf("the deleted file: status %d\n%s%s", status, stdout, stderr)
	}
	if last, opens, reads, _ := f.last("kept"); last.IsZero() || opens < 3 || reads < 3 {
		t.Errorf("the file that was kept: %v, %d opens, %d reads", last, opens, reads)
	}
	if stdout, stderr, status := run(t, Index, "stat", f.dir); status != 0 || !strings.Contains(stdout, "1 deleted ones dropped") {
		t.Errorf("stat: status %d\n%s%s", status, stdout, stderr)
	}
	x.stop()
}

// runNight runs the README's commands for each night as they are typed, but for the time.
func (f *fs) runNight(mark time.Time) {
	f.t.Helper()
	script, err := os.ReadFile(Night)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.MkdirAll("/var/tmp", 0o755); err != nil {
		f.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(script), "90d", timeOf(mark))
	out, err := exec.Command("/bin/sh", "-euc", text).CombinedOutput()
	f.t.Logf("the night:\n%s%s", text, out)
	if err != nil {
		f.t.Errorf("the night: %v", err)
	}
	list, err := os.ReadFile("/var/tmp/cold")
	if err != nil || strings.Count(string(list), "\x00") != 3 {
		f.t.Errorf("the list of the night is %q, %v", list, err)
	}
}
