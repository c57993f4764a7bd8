// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/scoutfs"
)

// RootIno is the inode number of a ScoutFS's root directory.
const RootIno = 1

// ErrUnlinked: the inode has no name: it was deleted, perhaps while it is open.
var ErrUnlinked = errors.New("no name refers to the inode")

// Link is a name of an inode.
type Link struct {
	Dir  uint64 // inode number of the directory that has the name
	Name string // as it is: any bytes but NUL and '/', not always UTF-8
}

// Change is an inode whose metadata was changed, as a rename does to the inode renamed.
type Change struct {
	MetaSeq uint64 // grows with each change in the file system; see [Tree.Changes]
	Ino     uint64
}

// Tree looks up the names of inodes in a mounted ScoutFS. That needs the capabilities
// CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN.
//
// As long as it is open, the file system does not end when it is unmounted, although
// umount(2) succeeds; where hundreds of file systems are mounted, umount(2) fails while it is
// opened, and on a kernel older than 5.2 as long as it is open. So open it, look up what there
// is to look up, and close it. Its methods can wait for as long as the cluster's server is
// away, and cannot be interrupted. They are safe for concurrent use, one at a time.
type Tree struct {
	mu  sync.Mutex // guards what follows
	fd  int        // -1 once closed
	buf [linkBytes + 16]byte
	ref referringArgs
	wlk scoutfs.WalkArgs

	entries []scoutfs.WalkEntry // see Changes
}

// linkBytes is room for the longest entry: 29 bytes, 255 of name, NUL, and padding.
const linkBytes = 288

// OpenTree opens the file system that is mounted on a device, as [Hello] names it. It
// looks for it in the list of mounts, and asks neither the file system nor the
// cluster's server. The error is [os.ErrNotExist] if it is not mounted where this
// process sees it, or the system's.
func OpenTree(dev Device) (*Tree, error) {
	m, all, err := mountOn(dev)
	if err != nil {
		return nil, fmt.Errorf("open file system on device %v: %w", dev, err)
	}
	fd, err := openMounted(m.Point, all)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", m.Point, err)
	}
	// It was that mount if that is still there: something else mounted at its place
	// has another device.
	if again, _, err := mountOn(dev); err != nil || again.ID != m.ID {
		unix.Close(fd)
		return nil, fmt.Errorf("open file system on device %v: %w: it is being unmounted", dev, os.ErrNotExist)
	}
	return &Tree{fd: fd}, nil
}

// mountOn returns where a ScoutFS is mounted, as the list of mounts has it, and all mounts.
func mountOn(dev Device) (m mountinfo.Mount, all []mountinfo.Mount, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return mountinfo.Mount{}, nil, err
	}
	all = mountinfo.Parse(string(text))
	for _, m := range all {
		if m.Type != FSType || dev != (Device{m.Major, m.Minor}) {
			continue
		}
		// Another mount may lie on it.
		if top, ok := mountinfo.Find(all, m.Point); ok && top.ID == m.ID {
			return m, all, nil
		}
	}
	return mountinfo.Mount{}, nil, fmt.Errorf("%w: it is not mounted", os.ErrNotExist)
}

// mostCopied is how many mounts are copied, for a moment, to get at one of them.
const mostCopied = 256

// openMounted opens the root of what is mounted at a point, in the way that disturbs
// umount(2) least with these mounts on the host.
func openMounted(point string, all []mountinfo.Mount) (fd int, err error) {
	beside := 0
	for _, m := range all {
		if mountinfo.Below(m.Point, filepath.Dir(point)) {
			beside++
		}
	}
	if beside <= mostCopied {
		fd, err = openBeside(point)
	} else {
		fd, err = openAside(point)
	}
	if err != unix.ENOSYS { // before Linux 5.2
		return fd, err
	}
	if len(all) <= mostCopied && point != "/" {
		fd, err = openInCopy(point)
		if err != unix.EINVAL {
			return fd, err
		}
	}
	return openDirectory(point)
}

// openBeside opens the root of what is mounted at a point, as openAside does, without
// taking hold of that mount at any moment: it clones the folder that has the mount point,
// and what is mounted below that with it.
func openBeside(point string) (fd int, err error) {
	dir, name := filepath.Split(point)
	if name == "" {
		return openAside(point)
	}
	fd, err = openClone(dir, name, unix.AT_RECURSIVE)
	// That folder's mount is not to be cloned, or the clone not to be made private, which
	// says nothing of this one.
	if err == unix.EINVAL {
		return openAside(point)
	}
	return fd, err
}

// openAside opens a directory through a mount of its own, which nobody sees, so that the
// one where it is found can be unmounted meanwhile. To clone that takes hold of it for a
// moment, in which umount(2) finds it busy.
func openAside(dir string) (fd int, err error) { return openClone(dir, ".", 0) }

// openClone opens a directory in a folder through a clone of the folder's mount. With
// AT_RECURSIVE what is mounted below is cloned, too, and the directory has to be a mount.
func openClone(dir, name string, flags uint) (fd int, err error) {
	aside, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_NO_AUTOMOUNT|flags)
	if err != nil {
		return -1, err
	}
	defer unix.Close(aside)
	if flags&unix.AT_RECURSIVE != 0 {
		if err := setPrivate(aside); err != nil {
			return -1, err
		}
	}
	err = retry(func() (err error) {
		fd, err = unix.Openat(aside, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil || flags&unix.AT_RECURSIVE == 0 {
		return fd, err
	}
	return fd, checkMounted(fd, aside)
}

// openInCopy opens the root of what is mounted at a point in a copy of the mount namespace,
// which a thread has that ends with it, without taking hold of that mount at any moment. The
// error is EINVAL where that cannot be, as in a chroot.
func openInCopy(point string) (fd int, err error) {
	onThread(func() { fd, err = openCopied(point) })
	return fd, err
}

// onThread runs f on a thread of its own, which ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Go does not end the main thread. While this holds it, that is another one.
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f() // and the thread is never unlocked
	}()
	<-done
}

// openCopied does that for openInCopy, and leaves its thread in the copy.
func openCopied(point string) (fd int, err error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, err
	}
	// As in setPrivate, before anything in it is opened.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, err
	}
	below, err := openDirectory(filepath.Dir(point))
	if err != nil {
		return -1, err
	}
	defer unix.Close(below)
	if fd, err = openDirectory(point); err != nil {
		return -1, err
	}
	return fd, checkMounted(fd, below)
}

// checkMounted returns an error, and closes fd, if fd is on the same mount as below, which is
// of the folder that has the mount point: that was unmounted before.
func checkMounted(fd, below int) error {
	under, ok := mountID(below)
	if id, known := mountID(fd); ok && known && id != under {
		return nil
	}
	unix.Close(fd)
	return fmt.Errorf("%w: nothing is mounted there", os.ErrNotExist)
}

// setPrivate cuts a tree of mounts that was just cloned off from the one that it was cloned
// of. Where mounts are shared, as systemd makes them, umount(2) unmounts in the clone as
// well, and so would find the directory busy that is opened there.
func setPrivate(tree int) error {
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err == unix.ENOSYS { // before Linux 5.12
		err = unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", tree), "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	return err
}

// Link returns a name of an inode, the first if it has several. The error is
// [ErrUnlinked], [os.ErrPermission], [ErrClosed], or the system's.
func (t *Tree) Link(ino uint64) (Link, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return Link{}, fmt.Errorf("look up inode %d: %w", ino, ErrClosed)
	}
	// The kernel wants it aligned to 16 bytes.
	at := uintptr(unsafe.Pointer(&t.buf))
	skip := -at & 15
	entry := t.buf[skip:][:linkBytes]
	t.ref = referringArgs{Ino: ino, EntriesPtr: uint64(at + skip), EntriesBytes: linkBytes}
	n, err := scoutfs.Ioctl(t.fd, iocGetReferringEntries, unsafe.Pointer(&t.ref))
	switch {
	case err != nil:
		return Link{}, fmt.Errorf("look up inode %d: %w", ino, err)
	case n == 0:
		return Link{}, fmt.Errorf("look up inode %d: %w", ino, ErrUnlinked)
	}
	return parseLink(entry), nil
}

// parseLink decodes a struct scoutfs_ioctl_dirent.
func parseLink(b []byte) Link {
	const nameLen, name = 28, 29
	n := min(int(b[nameLen]), len(b)-name)
	return Link{Dir: binary.NativeEndian.Uint64(b), Name: string(b[name : name+n])}
}

// Seq returns the MetaSeq of the last change that [Tree.Changes] can tell of now.
func (t *Tree) Seq() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return 0, fmt.Errorf("find the last change: %w", ErrClosed)
	}
	var sfm scoutfs.StatfsMore
	if _, err := scoutfs.Ioctl(t.fd, scoutfs.IocStatfsMore, unsafe.Pointer(&sfm)); err != nil {
		return 0, fmt.Errorf("find the last change: %w", err)
	}
	return sfm.CommittedSeq, nil
}

// Changes sets into to the inodes that were changed after a change, in the order of
// their last changes, and returns how many it found; go on after the last if that is all
// that into has room for. Changes show when the file system has written them to its
// devices, which can take some seconds.
func (t *Tree) Changes(after Change, into []Change) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return 0, fmt.Errorf("walk changed inodes: %w", ErrClosed)
	}
	// The kernel gets its address as a number, which would not follow a stack that moves: it
	// has to be on the heap.
	if cap(t.entries) < len(into) {
		t.entries = make([]scoutfs.WalkEntry, len(into))
	}
	entries := t.entries[:len(into)]
	first := scoutfs.WalkEntry{Major: after.MetaSeq, Ino: after.Ino + 1}
	if first.Ino == 0 {
		first.Major++
	}
	t.wlk = scoutfs.WalkArgs{
		First: first, Last: scoutfs.WalkEntry{Major: ^uint64(0), Ino: ^uint64(0), Minor: ^uint32(0)},
		EntriesPtr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(entries)))), NrEntries: uint32(len(entries)),
	}
	n, err := scoutfs.Ioctl(t.fd, scoutfs.IocWalkInodes, unsafe.Pointer(&t.wlk))
	if err != nil {
		return 0, fmt.Errorf("walk changed inodes: %w", err)
	}
	for i, e := range entries[:n] {
		into[i] = Change{MetaSeq: e.Major, Ino: e.Ino}
	}
	return n, nil
}

// Close closes the Tree. Closing it again returns [ErrClosed].
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return fmt.Errorf("close tree: %w", ErrClosed)
	}
	err := unix.Close(t.fd)
	t.fd = -1
	return err
}
