// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/scoutfs"
)

// The structures have the sizes that the commands' numbers have in them.
func TestTreeLayouts(t *testing.T) {
	for _, tt := range []struct {
		cmd  uintptr
		size uintptr
	}{
		{scoutfs.IocStatfsMore, unsafe.Sizeof(scoutfs.StatfsMore{})},
		{scoutfs.IocWalkInodes, unsafe.Sizeof(scoutfs.WalkArgs{})},
		{iocGetReferringEntries, unsafe.Sizeof(referringArgs{})},
	} {
		if in := tt.cmd >> 16 & 0x3fff; in != tt.size {
			t.Errorf("command %#x is for %d bytes, not %d", tt.cmd, in, tt.size)
		}
	}
}

// entry returns a struct scoutfs_ioctl_dirent as the kernel writes it.
func direntOf(dir uint64, name string) []byte {
	b := make([]byte, linkBytes)
	binary.NativeEndian.PutUint64(b, dir)
	b[28] = byte(len(name))
	copy(b[29:], name)
	return b
}

func FuzzParseLink(f *testing.F) {
	f.Add(uint64(1), "a\xff\x1b\n", []byte("x"))
	f.Add(uint64(1<<63), strings.Repeat("n", 255), []byte(nil))
	f.Fuzz(func(t *testing.T, dir uint64, name string, junk []byte) {
		b := make([]byte, linkBytes)
		copy(b, junk)
		parseLink(b)
		if len(name) > 255 {
			return
		}
		if got := parseLink(direntOf(dir, name)); got != (Link{dir, name}) {
			t.Errorf("got %+v", got)
		}
	})
}

// A file system that is not mounted has no tree, and one that is closed answers nothing.
func TestTreeClosed(t *testing.T) {
	if _, err := OpenTree(Device{0, 1<<20 - 1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not mounted: %v", err)
	}
	fd, err := openAside(t.TempDir())
	if errors.Is(err, os.ErrPermission) {
		t.Skip("skipped: opening a mount aside needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	tree := &Tree{fd: fd}
	// Another file system knows none of the commands.
	if _, err := tree.Link(1); err == nil || errors.Is(err, ErrUnlinked) {
		t.Errorf("link: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	_, err1 := tree.Link(1)
	_, err2 := tree.Seq()
	_, err3 := tree.Changes(Change{}, make([]Change, 1))
	for _, err := range []error{err1, err2, err3, tree.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}

// However often a file system is opened, umount(2) never finds it busy, and what is opened is
// that file system or an error.
func TestOpenBeside(t *testing.T) {
	for name, c := range map[string]struct{ mounter, opener uintptr }{
		"private": {unix.MS_PRIVATE, 0},
		"shared":  {unix.MS_SHARED, 0}, // as systemd makes them
		"slave":   {unix.MS_SHARED, unix.MS_SLAVE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("clone", func(t *testing.T) { testOpenBeside(t, c.mounter, c.opener, openBeside) })
			// Before Linux 5.2.
			t.Run("copy", func(t *testing.T) { testOpenBeside(t, c.mounter, c.opener, openCopied) })
		})
	}
}

// testOpenBeside mounts and unmounts in a namespace whose mounts are of one kind of
// propagation, and opens there, or in a copy of that namespace with another kind.
func testOpenBeside(t *testing.T, mounter, opener uintptr, open func(point string) (int, error)) {
	type opened struct {
		kind int64
		err  error
	}
	point := filepath.Join(t.TempDir(), "fs")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	propagate := func(kind uintptr) error { return unix.Mount("", "/", "", unix.MS_REC|kind, "") }
	namespace, ended := make(chan int), make(chan struct{})
	ready := make(chan error)
	results := make(chan opened, 1<<16)
	go onThread(func() {
		defer close(results)
		fd, ok := <-namespace
		if !ok {
			return
		}
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNS)
		}
		if err == nil && opener != 0 {
			if err = unix.Unshare(unix.CLONE_NEWNS); err == nil {
				err = propagate(opener)
			}
		}
		var own int
		if err == nil {
			own, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if ready <- err; err != nil {
			return
		}
		for range cap(results) {
			select {
			case <-ended:
				return
			default:
			}
			o := opened{}
			fd, err := open(point)
			if o.err = err; err == nil {
				var st unix.Statfs_t
				o.err = unix.Fstatfs(fd, &st)
				o.kind = st.Type
				unix.Close(fd)
			}
			if err := unix.Setns(own, unix.CLONE_NEWNS); err != nil {
				o.err = err
			}
			results <- o
		}
	})
	failed := make(chan error)
	go onThread(func() {
		defer close(failed)
		defer close(ended)
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		var fd int
		if err == nil {
			fd, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err == nil { // cut off from the host's before it is anything else
			err = errors.Join(propagate(unix.MS_PRIVATE), propagate(mounter))
		}
		if err != nil {
			close(namespace)
			failed <- err
			return
		}
		namespace <- fd
		if err := <-ready; err != nil {
			failed <- err
			return
		}
		for range 300 {
			if err := unix.Mount("none", point, "ramfs", 0, ""); err != nil {
				failed <- fmt.Errorf("mount: %w", err)
				return
			}
			for range 20 {
				runtime.Gosched()
			}
			if err := unix.Unmount(point, 0); err != nil {
				failed <- fmt.Errorf("umount: %w", err)
				return
			}
		}
	})
	err := <-failed
	if errors.Is(err, os.ErrPermission) {
		t.Skip("skipped: mounting needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Error(err)
	}
	n := map[string]int{}
	for o := range results {
		switch {
		case errors.Is(o.err, os.ErrNotExist):
			n["not mounted"]++
		case o.err != nil:
			t.Errorf("open: %v", o.err)
		case o.kind != unix.RAMFS_MAGIC:
			t.Errorf("opened a file system of type %#x", o.kind)
		default:
			n["opened"]++
		}
	}
	t.Log(n)
	if err == nil && n["opened"] == 0 {
		t.Error("it was never opened")
	}
}

// openInCopy leaves no thread in the copy, from whatever thread it is called.
func TestOpenInCopy(t *testing.T) {
	namespaces := func() (all []string) {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/mnt")
		if err != nil || len(tasks) == 0 {
			t.Fatal(tasks, err)
		}
		for _, task := range tasks {
			if ns, err := os.Readlink(task); err == nil && !slices.Contains(all, ns) { // or the thread has ended
				all = append(all, ns)
			}
		}
		return all
	}
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			fd, err := openInCopy("/proc")
			if errors.Is(err, os.ErrPermission) {
				return
			}
			var st unix.Statfs_t
			if err == nil {
				err = unix.Fstatfs(fd, &st)
				unix.Close(fd)
			}
			if err != nil || st.Type != unix.PROC_SUPER_MAGIC {
				t.Errorf("opened a file system of type %#x, %v", st.Type, err)
			}
		})
	}
	calls.Wait()
	_, err := openInCopy(t.TempDir())
	if errors.Is(err, os.ErrPermission) {
		t.Skip("skipped: copying the mount namespace needs CAP_SYS_ADMIN")
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing is mounted there: %v", err)
	}
	for all := namespaces(); len(all) > 1; all = namespaces() { // a thread ends just after the call
		runtime.Gosched()
	}
}

func TestMountsIn(t *testing.T) {
	const text = `20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 0:42 / /mnt/a rw - scoutfs /dev/vdb rw
31 20 0:43 / /mnt/hidden rw - scoutfs /dev/vdc rw
32 20 0:44 / /mnt/b\040c rw - scoutfs /dev/vdd rw
33 31 0:45 / /mnt/hidden rw - tmpfs none rw
34 20 0:42 /sub /mnt/again rw - scoutfs /dev/vdb rw
`
	want := []MountPoint{{"/mnt/a", "scoutfs", Device{0, 42}}, {"/mnt/b c", "scoutfs", Device{0, 44}}}
	if got := mountsIn(text); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
