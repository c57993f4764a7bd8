// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/scoutfs"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Mounted is an open directory of a mounted ScoutFS, to ask it about inodes by their
// number. While it is open the file system cannot be unmounted. None of its methods makes
// a record of an access that counts. It is for one goroutine.
type Mounted struct {
	fd   int
	dir  string
	path []byte // see Path
}

// OpenMounted opens a directory of a ScoutFS. The caller must have checked that it is one.
func OpenMounted(dir string) (*Mounted, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Mounted{fd: fd, dir: dir}, nil
}

// Close closes it.
func (m *Mounted) Close() { unix.Close(m.fd) }

// ScoutFS's ioctls, of its ioctl.h.
const (
	iocInoPath  = 0x4028e802
	iocGetAttrX = 0x4068e812

	attrProjectID = 1 << 9 // bit of x_mask
	fileIDScoutFS = 0x81   // type of a file handle: the inode number, nothing else
)

type inoPathArgs struct {
	ino, dirIno, dirPos uint64
	result              uint64
	bytes               uint16
	_                   [6]byte
}

type attrX struct {
	mask, flags                   uint64
	metaSeq, dataSeq, dataVersion uint64
	online, offline               uint64
	ctimeSec                      uint64
	ctimeNsec, crtimeNsec         uint32
	crtimeSec, size, bits         uint64
	project                       uint64
}

// Walk is a [Walk] of all regular files. A file is listed once the transaction that made
// it is committed, which takes half a minute at most.
func (m *Mounted) Walk(seq uint64, f func(ino uint64)) error {
	entries := make([]scoutfs.WalkEntry, 16384)
	args := scoutfs.WalkArgs{
		Last:       scoutfs.WalkEntry{Major: seq, Ino: ^uint64(0), Minor: ^uint32(0)},
		EntriesPtr: uint64(uintptr(unsafe.Pointer(&entries[0]))), NrEntries: uint32(len(entries)), Index: scoutfs.WalkDataSeq,
	}
	for {
		n, err := scoutfs.Ioctl(m.fd, scoutfs.IocWalkInodes, unsafe.Pointer(&args))
		runtime.KeepAlive(entries)
		if err != nil {
			return fmt.Errorf("list the inodes of %s: %w", m.dir, err)
		}
		if n == 0 {
			return nil
		}
		for i := range min(n, len(entries)) {
			f(entries[i].Ino)
		}
		next := entries[n-1]
		if next.Ino++; next.Ino == 0 {
			next.Major++
		}
		args.First = next
	}
}

// Committed returns the newest transaction up to which all are committed. It asks the
// cluster's server, and can block.
func (m *Mounted) Committed() (uint64, error) {
	var args scoutfs.StatfsMore
	if _, err := scoutfs.Ioctl(m.fd, scoutfs.IocStatfsMore, unsafe.Pointer(&args)); err != nil {
		return 0, fmt.Errorf("ask %s for its newest transaction: %w", m.dir, err)
	}
	return args.CommittedSeq, nil
}

// Path returns one of the names of an inode, from the root of the file system, without a
// slash at the start. The error is [os.ErrNotExist] if it has none.
func (m *Mounted) Path(ino uint64) (string, error) {
	// The kernel gets its address as a number, which would not follow a stack that moves: it
	// has to be on the heap.
	if m.path == nil {
		m.path = make([]byte, 8+8+8+unix.PathMax)
	}
	buf := m.path
	args := inoPathArgs{ino: ino, result: uint64(uintptr(unsafe.Pointer(&buf[0]))), bytes: uint16(len(buf))}
	_, err := scoutfs.Ioctl(m.fd, iocInoPath, unsafe.Pointer(&args))
	runtime.KeepAlive(buf)
	if err != nil {
		return "", fmt.Errorf("find the path of inode %d: %w", ino, err)
	}
	n := int(binary.NativeEndian.Uint16(buf[16:]))
	if n < 1 || 24+n > len(buf) {
		return "", fmt.Errorf("find the path of inode %d: a path of %d bytes", ino, n)
	}
	return string(buf[24 : 24+n-1]), nil
}

// open opens an inode by its number.
func (m *Mounted) open(ino uint64, flags int) (int, error) {
	h := unix.NewFileHandle(fileIDScoutFS, binary.LittleEndian.AppendUint64(nil, ino))
	return unix.OpenByHandleAt(m.fd, h, flags|unix.O_CLOEXEC|unix.O_NONBLOCK)
}

// Owner returns to whom an inode belongs, and its size. The error is [os.ErrNotExist] if
// it was deleted.
func (m *Mounted) Owner(ino uint64) (uid uint32, bytes int64, err error) {
	var st unix.Stat_t
	fd, err := m.open(ino, unix.O_PATH)
	if err == nil {
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
	}
	return st.Uid, st.Size, m.gone("look at", ino, err)
}

// Project returns the project that an inode belongs to, 0 for none.
func (m *Mounted) Project(ino uint64) (uint64, error) {
	// Neither for reading nor for writing, which no access is: see [Feed.Skip].
	fd, err := m.open(ino, unix.O_ACCMODE)
	if err != nil {
		return 0, m.gone("open", ino, err)
	}
	defer unix.Close(fd)
	args := attrX{mask: attrProjectID}
	if _, err := scoutfs.Ioctl(fd, iocGetAttrX, unsafe.Pointer(&args)); err != nil {
		if err == unix.EOPNOTSUPP {
			return 0, nil // a format without projects
		}
		return 0, m.gone("find the project of", ino, err)
	}
	return args.project, nil
}

func (m *Mounted) gone(what string, ino uint64, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ESTALE) {
		err = os.ErrNotExist
	}
	return fmt.Errorf("%s inode %d: %w", what, ino, err)
}

// Committed returns what [Mounted.Committed] does of the file system that is mounted at a
// directory, if it is the one.
func Committed(dir string, fsid notify.ID) (uint64, error) {
	got, err := notify.Statfs(dir)
	if err != nil {
		return 0, err
	}
	if got.FSID != fsid {
		return 0, fmt.Errorf("ask %s: %w", dir, ErrOther)
	}
	m, err := OpenMounted(dir)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	return m.Committed()
}
