// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// AttachDevice is [AttachContext] for a caller that knows the file system's device
// number, such as from [MountOf]: the mount point is open only while the
// kernel attaches the Reader, and the cluster's server is not asked, so that a
// umount(8) at that moment has next to no chance of finding it busy.
//
// The error is [ErrNotScoutFS] if another device is mounted there.
func AttachDevice(ctx context.Context, dir string, dev Device) (*Reader, error) {
	return await(ctx, "attach to "+dir, func() (*Reader, error) { return attachDevice(dir, dev) }, func(late *Reader) { late.Close() })
}

func attachDevice(dir string, dev Device) (*Reader, error) {
	fd, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	r := new(Reader)
	// Checked before the ioctl, whose number may mean anything on another file system.
	if got := deviceOf(fd); got != dev {
		err = fmt.Errorf("%w: it is device %v, not %v", ErrNotScoutFS, got, dev)
	}
	if err == nil {
		err = r.attach(fd)
	}
	unix.Close(fd)
	if err == nil {
		if r.mount, err = mountOf(r.fd); err != nil {
			r.Close()
		}
		r.mount.Device = dev
	}
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", dir, err)
	}
	return r, nil
}

// mountOf reads what a Reader is attached to from its descriptor's fdinfo.
func mountOf(fd int) (m Mount, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return m, err
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		id := map[string]*ID{"fsid": &m.FSID, "rid": &m.RID}[name]
		if id == nil {
			continue
		}
		if err := id.UnmarshalText([]byte(value)); err != nil {
			return m, err
		}
		found++
	}
	if found != 2 {
		return m, errors.New("the reader's fdinfo does not say what it is attached to")
	}
	return m, nil
}
