// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/scoutfs"
)

// ErrNotScoutFS is returned for a path that is not on a mounted ScoutFS.
var ErrNotScoutFS = errors.New("not a mounted ScoutFS")

// ID is a 64-bit identifier of ScoutFS, written as ScoutFS does: 16 hexadecimal
// digits.
type ID uint64

// String returns the identifier's 16 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText returns the same as String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText parses what String returns, and nothing else.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || ID(v).String() != string(b) {
		return fmt.Errorf("parse identifier %q: not 16 hexadecimal digits", b)
	}
	*id = ID(v)
	return nil
}

// Mount identifies one mount of one file system.
type Mount struct {
	// FSID identifies the file system. It is the same wherever that is mounted.
	FSID ID

	// RID identifies this mount: each mount of a file system, on any node, gets a
	// random one.
	RID ID

	// Device tells it from all others that are mounted on this node now, also from one
	// with the same FSID, such as a clone. It is the zero value without /proc.
	Device Device
}

// Statfs identifies the file system that is mounted at a directory. Any directory
// of the file system will do, if the caller may open it; no privilege is needed.
//
// The kernel asks the cluster's server, so Statfs can block for as long as that
// is away; see [StatfsContext]. The directory stays open, and so keeps the file
// system mounted, until the kernel has answered.
//
// The error is [ErrNotScoutFS] for another file system, or the system's, such as
// [os.ErrNotExist] or [os.ErrPermission].
func Statfs(dir string) (Mount, error) {
	fd, m, err := openMount(dir)
	if err != nil {
		return Mount{}, err
	}
	unix.Close(fd)
	return m, nil
}

// StatfsContext is [Statfs], but waits no longer than the context lasts and returns
// its error then. The system call goes on in the background.
func StatfsContext(ctx context.Context, dir string) (Mount, error) {
	return await(ctx, "identify file system at "+dir, func() (Mount, error) { return Statfs(dir) }, nil)
}

// openDirectory opens a directory. Opening a regular file instead would be an access
// itself, and make a record.
func openDirectory(dir string) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// openMount opens a directory of a ScoutFS.
func openMount(dir string) (fd int, m Mount, err error) {
	fd, err = openDirectory(dir)
	if err != nil {
		return -1, Mount{}, err
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
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return Mount{}, err
	}
	// Checked before the ioctl, whose number may mean anything on another file
	// system.
	if uint32(st.Type) != superMagic {
		return Mount{}, ErrNotScoutFS
	}
	var sfm scoutfs.StatfsMore
	if _, err := scoutfs.Ioctl(fd, scoutfs.IocStatfsMore, unsafe.Pointer(&sfm)); err != nil {
		if err == unix.ENOTTY {
			err = ErrNotScoutFS
		}
		return Mount{}, err
	}
	return Mount{FSID: ID(sfm.FSID), RID: ID(sfm.RID), Device: deviceOf(fd)}, nil
}

// deviceOf returns the device of the file system that a descriptor is on, or the zero
// Device. It asks /proc, because fstat(2) asks the file system and can wait for it.
func deviceOf(fd int) Device {
	id, ok := mountID(fd)
	if !ok {
		return Device{}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Device{}
	}
	for _, m := range mountinfo.Parse(string(text)) {
		if uint64(m.ID) == id {
			return mountPoint(m).Device
		}
	}
	return Device{} // unmounted lazily
}

// mountID returns the number of the mount that a descriptor is on, as fdinfo has it.
func mountID(fd int) (id uint64, ok bool) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, false
	}
	return fdinfoNumber(info, "mnt_id")
}

// fdinfoNumber returns the number in the line of an fdinfo file that name starts.
func fdinfoNumber(info []byte, name string) (uint64, bool) {
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// retry calls f again for as long as a signal interrupts it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
