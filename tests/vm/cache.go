// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Root returns the absolute path of the repository that holds the current
// working directory: the nearest parent with a tests/go.mod.
func Root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "tests", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the repository: no tests/go.mod above %s; run this inside a clone", wd)
		}
	}
}

// CacheDir returns the absolute path of a folder below the cache, which it
// creates. The cache is $SCOUTFS_NOTIFY_CACHE, or .cache in the repository.
// Everything in it can be deleted at any time and is made again.
func CacheDir(elem ...string) (string, error) {
	dir := os.Getenv("SCOUTFS_NOTIFY_CACHE")
	if dir == "" {
		root, err := Root()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".cache")
	}
	dir, err := filepath.Abs(filepath.Join(append([]string{dir}, elem...)...))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache folder: %w", err)
	}
	return dir, nil
}

// cached returns the folder parent/name and calls fill to make it when it is
// not there. fill works in a temporary folder that is renamed once it is
// complete, and a lock file lets one process at a time do so: a folder that
// exists is whole, however its maker ended.
func cached(parent, name string, fill func(tmp string) error) (string, error) {
	dir := filepath.Join(parent, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // made while this process waited for the lock
	}

	// What a killed run left behind; the lock says that nobody works on it.
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("remove leftover: %w", err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("complete cache entry: %w", err)
	}
	return dir, nil
}

// lockFile waits until no other goroutine or process holds the lock of that
// file, takes it and returns what gives it back.
func lockFile(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create lock file: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}

// Cached returns the folder name in a folder of the cache and calls fill to make
// it when it is not there, in a temporary folder. Calls for the same name wait
// for each other, in other processes too, and fill that fails leaves nothing.
func Cached(folder, name string, fill func(tmp string) error) (string, error) {
	parent, err := CacheDir(folder)
	if err != nil {
		return "", err
	}
	return cached(parent, name, fill)
}
