// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// restore makes anew what somebody has removed of a daemon's directory, lock and
// socket. Clients that are connected stay.
func restore(dir *runDir, ln *listener, sendBuffer int) (restored bool, err error) {
	if restored, err = dir.reclaim(); err != nil {
		return restored, fmt.Errorf("restore %s: %w", dir.dir, err)
	}
	there, err := os.Lstat(ln.path)
	if ln.fd < 0 || err == nil && os.SameFile(there, ln.ours) {
		return restored, nil
	}
	anew, err := listen(ln.path, sendBuffer)
	if err != nil {
		return restored, err
	}
	// Nobody can have reached the old one since its name was removed, and who did
	// before was accepted or sees the end, and connects again.
	unix.Close(ln.fd)
	unix.Close(anew.spare)
	ln.fd, ln.ours = anew.fd, anew.ours
	return true, nil
}

// sweep removes the files that killed daemons left, which look as if they still ran,
// and returns the directories in which there were any. It leaves alone what a living
// daemon has locked, and what is not a daemon's.
func sweep(parent string) (swept []string, err error) {
	err = checkDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var entries []os.DirEntry
	if err == nil {
		entries, err = os.ReadDir(parent)
	}
	if err != nil {
		return nil, fmt.Errorf("sweep run directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		var fsid notify.ID
		if fsid.UnmarshalText([]byte(e.Name())) != nil || !e.IsDir() {
			continue
		}
		d := &runDir{dir: filepath.Join(parent, e.Name()), fsid: fsid}
		found, err := d.sweep()
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep %s: %w", d.dir, err))
		}
		if found {
			swept = append(swept, d.dir)
		}
	}
	return swept, errors.Join(errs...)
}

// sweep does that for one directory. Without files of a daemon it takes no lock, which
// could be in the way of one that starts.
func (d *runDir) sweep() (found bool, err error) {
	for _, name := range []string{notify.StateName, notify.MetricsName, notify.SocketName} {
		_, err := os.Lstat(d.path(name))
		found = found || err == nil
	}
	if !found {
		return false, nil
	}
	if err := checkDir(d.dir); err != nil {
		return false, err
	}
	lock, err := lockFile(d.path(notify.LockName))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d.lock = lock
	defer d.release()
	// First: somebody who listens there has lost the lock, but serves all the same.
	if err := removeStale(d.path(notify.SocketName)); errors.Is(err, errServed) {
		return false, nil
	} else if err != nil && !errors.Is(err, errInTheWay) {
		return false, err
	}
	d.removeFile(notify.StateName)
	d.removeFile(notify.MetricsName)
	return true, nil
}
