// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotScoutFS is returned for a path that is not on a mounted ScoutFS.
var ErrNotScoutFS = errors.New("not a mounted ScoutFS")

// ID is a 64-bit identifier of ScoutFS, written as it does: 16 hexadecimal
// digits.
type ID uint64

// String returns the identifier's 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText gives what String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText takes what String gives.
func (id *ID) UnmarshalText(b []byte) error {
	var v uint64
	if len(b) != 16 {
		return fmt.Errorf("parse identifier %q: not 16 hexadecimal digits", b)
	}
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return fmt.Errorf("parse identifier %q: not 16 hexadecimal digits", b)
		}
		v = v<<4 | uint64(c)
	}
	*id = ID(v)
	return nil
}

// Mount identifies one mount of one file system.
type Mount struct {
	// FSID is the file system's, the same wherever it is mounted.
	FSID ID

	// RID is this mount's: each mount of a file system, on any node, gets a
	// random one.
	RID ID
}

// Statfs says which file system is mounted at a directory. Any directory of
// the file system will do, if the caller may open it; no privilege is needed.
//
// The kernel asks the cluster's server while it answers, so Statfs can take
// as long as that is away. The directory is open only meanwhile.
//
// The error is [ErrNotScoutFS] for another file system, or the system's:
// [os.ErrNotExist], [os.ErrPermission] and so on.
func Statfs(dir string) (Mount, error) {
	fd, m, err := openMount(dir)
	if err != nil {
		return Mount{}, err
	}
	unix.Close(fd)
	return m, nil
}

// openMount opens a directory of a ScoutFS. It wants a directory because
// opening a file would be an access, which makes a record.
func openMount(dir string) (fd int, m Mount, err error) {
	for {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, Mount{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	m, err = statfs(fd)
	if err != nil {
		unix.Close(fd)
		return -1, Mount{}, fmt.Errorf("identify file system at %s: %w", dir, err)
	}
	return fd, m, nil
}

func statfs(fd int) (Mount, error) {
	var st unix.Statfs_t
	for {
		err := unix.Fstatfs(fd, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Mount{}, err
		}
		break
	}
	// Asked before the ioctl: the same number may mean anything elsewhere.
	if uint32(st.Type) != superMagic {
		return Mount{}, ErrNotScoutFS
	}
	var sfm statfsMore
	if _, err := ioctl(fd, iocStatfsMore, unsafe.Pointer(&sfm)); err != nil {
		if err == unix.ENOTTY {
			err = ErrNotScoutFS
		}
		return Mount{}, err
	}
	return Mount{FSID: ID(sfm.FSID), RID: ID(sfm.RID)}, nil
}

// RunDir is where the daemons of a node keep their sockets, in a directory for
// each file system.
const RunDir = "/run/scoutfs"

// SocketName is the name of the daemon's socket in its directory.
const SocketName = "notify.sock"

// SocketPath returns where the daemon that serves a file system listens:
// /run/scoutfs/<fsid>/notify.sock.
func SocketPath(fsid ID) string {
	return filepath.Join(RunDir, fsid.String(), SocketName)
}
