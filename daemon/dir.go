// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// errServed means that another daemon serves the file system, at this or another
// of its mount points.
var errServed = errors.New("another scoutfs-notifyd serves this file system")

// errUnsafeDir means that others have a permission which they should not have. The
// daemon lacks the one to take it away, so it is a permission error, too.
var errUnsafeDir = fmt.Errorf("others could replace the socket: %w", os.ErrPermission)

// lockTries and lockPause are how long to wait for a lock that nobody keeps.
const lockTries, lockPause = 5, 10 * time.Millisecond

// dirMode lets monitoring read state and metrics. The socket has a mode of its own.
const dirMode = os.FileMode(0o755)

// runDir is the directory of one file system, which this process alone uses.
type runDir struct {
	dir  string
	fsid notify.ID
	lock *os.File
}

func (d *runDir) path(name string) string { return filepath.Join(d.dir, name) }

// claimDir makes the file system's directory if need be and locks it. The lock
// settles whether an earlier daemon is dead or alive, whatever the timing. It is on
// a file of its own: anybody may lock what they may open, such as the directory.
func claimDir(parent string, fsid notify.ID) (*runDir, error) {
	d := &runDir{dir: filepath.Join(parent, fsid.String()), fsid: fsid}
	lock, err := d.claim()
	// A daemon that sweeps, or looks whether this one runs, has it for a moment.
	for tries := 1; tries < lockTries && errors.Is(err, errServed); tries++ {
		time.Sleep(lockPause)
		lock, err = d.claim()
	}
	if err != nil {
		return nil, err
	}
	d.lock = lock
	// From here on the files of a daemon that was killed are of no use to anybody,
	// however this start ends.
	d.removeFile(notify.StateName)
	d.removeFile(notify.MetricsName)
	return d, nil
}

// claim makes the directory and its lock.
func (d *runDir) claim() (*os.File, error) {
	for _, dir := range []string{filepath.Dir(d.dir), d.dir} {
		if err := makeDir(dir); err != nil {
			return nil, err
		}
	}
	lock, err := lockFile(d.path(notify.LockName))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w: %s", d.path(notify.LockName), errServed, d.holder())
	}
	if err != nil {
		return nil, fmt.Errorf("lock run directory: %w", err)
	}
	return lock, nil
}

// ours tells whether the directory still has this daemon's lock.
func (d *runDir) ours() bool { return isAt(d.lock) }

// reclaim makes the directory and its lock again, if somebody has removed them.
func (d *runDir) reclaim() (restored bool, err error) {
	if d.ours() {
		return false, nil
	}
	lock, err := d.claim()
	if err != nil {
		return false, err
	}
	d.lock.Close()
	d.lock = lock
	return true, nil
}

// release gives the directory up. It stays, with any files that are not the
// daemon's.
func (d *runDir) release() {
	// Removed while it is locked; takeLock deals with others that have it open.
	if d.ours() {
		os.Remove(d.lock.Name())
	}
	d.lock.Close()
}

// servedBy tells whether a daemon serves a file system, and which.
func servedBy(parent string, fsid notify.ID) (holder string, served bool) {
	d := &runDir{dir: filepath.Join(parent, fsid.String())}
	f, err := os.Open(d.path(notify.LockName))
	if err != nil {
		return "", false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return "", false
	}
	return d.holder(), true
}

// holder says who serves the file system, if its state does.
func (d *runDir) holder() string {
	st, err := notify.ReadState(d.path(notify.StateName))
	if err != nil {
		return "it is starting or stopping"
	}
	return fmt.Sprintf("process %d at mount point %s", st.PID, st.MountPoint)
}

// makeDir makes a directory, or accepts one that nobody else can put files in.
func makeDir(dir string) error {
	err := os.Mkdir(dir, dirMode)
	if err == nil {
		// Whatever the umask is.
		err = os.Chmod(dir, dirMode)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make run directory: %w", err)
	}
	return checkDir(dir)
}

// checkDir fails if others can put files in a directory.
func checkDir(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("check run directory: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("check run directory %s: %w", dir, unix.ENOTDIR)
	}
	owner := fi.Sys().(*syscall.Stat_t).Uid
	if owner != uint32(os.Geteuid()) || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("check run directory %s: owned by uid %d with mode %#o: %w",
			dir, owner, fi.Mode().Perm(), errUnsafeDir)
	}
	return nil
}

// lockFile makes a file and locks it, without waiting: EWOULDBLOCK means that it is
// locked already.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		ok, err := takeLock(f)
		if ok {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// takeLock locks an open file. ok is false if its last holder has removed it.
func takeLock(f *os.File) (ok bool, err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	return isAt(f), nil
}

// isAt tells whether an open file is still the one that its name leads to.
func isAt(f *os.File) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(ours, there)
}

// replaceFile writes a file that anybody may read. Readers see either the old or
// the new content.
func (d *runDir) replaceFile(name string, content []byte) error {
	tmp := d.path("." + name + ".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, d.path(name))
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// removeFile undoes replaceFile.
func (d *runDir) removeFile(name string) {
	os.Remove(d.path("." + name + ".new"))
	os.Remove(d.path(name))
}
