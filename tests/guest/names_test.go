// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// access is what tail -json -paths -names says of one.
type access struct {
	Type, Path, User, Command string
	PathB64                   []byte `json:"path_b64"`
	PathError                 string `json:"path_error"`
	Ino, Offset, Length       uint64
	Opens, Reads, Bytes       uint64
}

// next returns the next access that tail prints.
func (tl *tailing) next() access {
	tl.t.Helper()
	for {
		var a access
		if err := tl.dec.Decode(&a); err != nil {
			tl.t.Fatalf("no access: %v, %s", err, &tl.stderr)
		}
		if a.Type == "open" || a.Type == "read" {
			return a
		}
	}
}

// named has a file accessed until tail knows its path, and returns what it prints then: in
// a machine that gets little processor time a path may not be found in time.
func (tl *tailing) named(access func()) access {
	tl.t.Helper()
	for end := time.Now().Add(patience); ; {
		access()
		if a := tl.next(); a.PathError != "unknown" || time.Now().After(end) {
			return a
		}
	}
}

// ownName returns the name that this process's threads have.
var ownName = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		panic(err)
	}
	return strings.TrimSuffix(string(b), "\n")
})

func comm(name string) (c notify.Comm) {
	copy(c[:], name)
	return c
}

// An open's record has its thread's name at that moment, any that it can have, and a read's
// has none.
func TestComm(t *testing.T) {
	f := setup(t)
	f.create("a", 10)
	r := f.attach()
	runtime.LockOSThread() // for good: the thread ends with the test
	for _, name := range []string{"n", "123456789012345", "12345", "\xff\x01 \n)(", "", ownName()} {
		text := append([]byte(name), 0)
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&text[0])), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(f.path("a")); err != nil {
			t.Fatal(err)
		}
		recs := drain(t, r)
		if len(recs) != 2 || recs[0].Comm.String() != name || recs[0].Flags != notify.FlagComm || recs[0].TID != uint32(unix.Gettid()) ||
			recs[1].Comm != (notify.Comm{}) || recs[1].Flags != 0 || recs[1].Length == 0 {
			t.Errorf("thread %q: %+v", name, recs)
		}
	}
}

// Commands that are gone at once have their names, with what they read, too.
func TestShortLived(t *testing.T) {
	const commands = 90
	f := setup(t)
	f.create("a", 10)
	f.startDaemon()
	tl := f.tail("-names")
	tl.until("hello")
	for range commands {
		if out, err := exec.Command("/bin/busybox", "cat", f.path("a")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	named := map[string]int{}
	for range 2 * commands {
		if a := tl.next(); a.Command == "busybox" {
			named[a.Type]++
		} else {
			t.Errorf("%+v", a)
		}
	}
	t.Logf("of %d commands named %d opens, %d reads", commands, named["open"], named["read"])
}

// everyByte has each that a name can have.
func everyByte() string {
	var b []byte
	for c := 1; c < 256; c++ {
		if c != '/' {
			b = append(b, byte(c))
		}
	}
	return string(b)
}

// Files have the paths that they have, whatever bytes are in them; one that is unlinked
// has none.
func TestPaths(t *testing.T) {
	f := setup(t)
	deep := strings.Repeat("d/", 10) + "file"
	if err := os.MkdirAll(filepath.Dir(f.path(deep)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", deep, everyByte(), "gone", strings.Repeat("n", 255)} {
		f.create(name, 100)
	}
	if err := os.Link(f.path("a"), f.path("another name")); err != nil {
		t.Fatal(err)
	}
	f.startDaemon()
	tl := f.tail("-paths", "-names")
	tl.until("hello")
	for _, name := range []string{"a", deep, everyByte(), strings.Repeat("n", 255)} {
		got := tl.named(func() { f.touch(name) })
		path := got.Path
		if got.PathB64 != nil {
			path = string(got.PathB64)
		}
		if path != name && (name != "a" || path != "another name") || got.Ino != f.ino(name) {
			t.Errorf("%q: %+v", name, got)
		}
		if got.User != "root" && got.User != "" { // the machine may have no /etc/passwd
			t.Errorf("%q: user %q", name, got.User)
		}
		if got.Command != "guest.test" && got.Command != "" { // it may be looked for too late
			t.Errorf("%q: command %q", name, got.Command)
		}
	}
	// One that tail has not seen before it was unlinked.
	fd, err := unix.Open(f.path("gone"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.path("gone")); err != nil {
		t.Fatal(err)
	}
	fresh := f.tail("-paths")
	fresh.until("hello")
	got := fresh.named(func() {
		if _, err := unix.Pread(fd, make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
	})
	if got.PathError != "unlinked" || got.Path != "" {
		t.Errorf("after it is unlinked: %+v", got)
	}
	unix.Close(fd)
}

// A rename, of the file or of a folder above it, shows when it is written to the devices.
func TestPathsRename(t *testing.T) {
	f := setup(t)
	if !isScoutFS() {
		t.Skip("skipped: the stand-in does not tell what was changed")
	}
	if err := os.MkdirAll(f.path("one/two"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.create("one/two/file", 10)
	f.startDaemon()
	tl := f.tail("-paths")
	tl.until("hello")
	if got := tl.named(func() { f.touch("one/two/file") }); got.Path != "one/two/file" {
		t.Errorf("%+v", got)
	}
	if err := os.Rename(f.path("one"), f.path("1")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for {
		unix.Sync()
		time.Sleep(200 * time.Millisecond) // names are looked at once a second
		f.create("other", 10)
		tl.next() // create opened it, and the file system was asked
		got := tl.named(func() { f.touch("1/two/file") })
		if got.Path == "1/two/file" {
			t.Logf("shows after %v", time.Since(begun).Round(time.Millisecond))
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("the old path shows still: %+v", got)
		}
		if err := os.Remove(f.path("other")); err != nil {
			t.Fatal(err)
		}
	}
}

// umount succeeds at the first try while paths are looked up, each time, and names go on
// with the next mount.
func TestPathsUmount(t *testing.T) {
	f := setup(t)
	rounds := 20
	if isScoutFS() {
		rounds = 3 // now and then its mount(2) hangs
	}
	f.startDaemon("-wait")
	tl := f.tail("-f", "-paths")
	for round := range rounds {
		// A file system that is open for a path when it is unmounted goes on if it is mounted
		// again at once. The daemon still needs a moment to attach again.
		seen := f.create("seen", 10)
		stop := f.keepTouching("seen")
		for tl.next().Ino != seen {
		}
		stop()
		name := fmt.Sprintf("file %d", round)
		ino := f.create(name, 10)
		for i := range 20 {
			f.touch(name)
			if i == round {
				break
			}
		}
		f.umount() // at once: it must succeed
		f.mount()
		got := tl.next()
		for got.Ino != ino { // of the round before
			got = tl.next()
		}
		if got.Path != name && got.PathError == "" {
			t.Errorf("round %d: %+v", round, got)
		}
	}
}

// A folder as argument is what is below it.
func TestPathsUnder(t *testing.T) {
	f := setup(t)
	for _, dir := range []string{"in/deeper", "out"} {
		if err := os.MkdirAll(f.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"in/deeper/a", "in/b", "out/c", "inn"} {
		f.create(name, 10)
	}
	f.startDaemon()
	f.paths = true
	tl := (&fs{t: t, dir: f.path("in"), Mount: f.Mount}).tail("-paths")
	tl.until("hello")
	// What is not found in time is left out, so each is touched until one comes.
	for _, want := range []string{"in/b", "in/deeper/a"} {
		stop := f.keepTouching("out/c", "inn", want)
		for {
			got := tl.next()
			if got.Path == want {
				break
			}
			if got.PathError == "" && !strings.HasPrefix(got.Path, "in/") {
				t.Errorf("%+v", got)
				break
			}
		}
		stop()
	}
}
