// SPDX-License-Identifier: GPL-2.0-only

// Package repo finds this repository, and caches what is expensive to make: kernels,
// builds, root file systems.
package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// Root returns the absolute path of the repository around the current directory: the
// nearest parent with a tests/go.mod.
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

// CacheDir creates a folder below the cache and returns its absolute path. The cache
// is $SCOUTFS_NOTIFY_CACHE, or .cache in the repository. Whatever is deleted from it
// is made again when needed.
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

// Cached returns the path of name in a folder of the cache, and calls fill to make
// it if it does not exist. fill gets a temporary folder that is renamed once it is
// complete, so that an existing folder is always whole, even after a crash. Callers
// with the same name wait for each other, also in different processes.
func Cached(folder, name string, fill func(tmp string) error) (string, error) {
	return cached(folder, name, func(tmp string) error {
		// A killed process may have left one; under the lock nobody else uses it.
		if err := os.RemoveAll(tmp); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
		if err := os.Mkdir(tmp, 0o755); err != nil {
			return err
		}
		return fill(tmp)
	})
}

// Continued is Cached for what takes so long that what a stopped run left is worth having:
// fill gets the folder as that left it, and has to see for itself how far it came.
func Continued(folder, name string, fill func(tmp string) error) (string, error) {
	return cached(folder, name, func(tmp string) error {
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			return err
		}
		return fill(tmp)
	})
}

func cached(folder, name string, fill func(tmp string) error) (string, error) {
	parent, err := CacheDir(folder)
	if err != nil {
		return "", err
	}
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

	tmp := dir + ".tmp"
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("complete cache entry: %w", err)
	}
	return dir, nil
}

// lockFile locks a file, waiting for other goroutines and processes that hold the
// lock, and returns the function that releases it.
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

// Patches returns the absolute path of the folder with all series.
func Patches() (string, error) {
	root, err := Root()
	return filepath.Join(root, "patches"), err
}

// Series returns the series to test, oldest first: those for the releases in the
// environment's VERSIONS, separated by blanks, or of all releases if it is empty. A last
// word main stands for the series for upstream's main.
func Series() ([]*series.Series, error) {
	dir, err := Patches()
	if err != nil {
		return nil, err
	}
	names := strings.Fields(os.Getenv("VERSIONS"))
	releases := slices.Clone(names)
	if n := len(names); n > 0 && names[n-1] == series.Main {
		releases = names[:n-1]
	}
	var all []*series.Series
	if len(releases) > 0 || len(names) == 0 {
		if all, err = series.Select(dir, releases...); err != nil {
			return nil, err
		}
	}
	if len(releases) == len(names) {
		return all, nil
	}
	s, err := series.OpenMain(dir)
	return append(all, s), err
}

// Newest returns the series for the newest release.
func Newest() (*series.Series, error) {
	dir, err := Patches()
	if err != nil {
		return nil, err
	}
	return series.Newest(dir)
}

// Release returns the series for one release, such as v1.30.
func Release(version string) (*series.Series, error) {
	dir, err := Patches()
	if err != nil {
		return nil, err
	}
	all, err := series.Select(dir, version)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Kernels returns the regular expression of the kernel releases that a series' packages
// are built for: the newest release's for that of upstream's main.
func Kernels(s *series.Series) (*regexp.Regexp, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	file, err := s.KernelsFile(filepath.Join(root, "dkms", "kernels.txt"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	re, err := regexp.CompilePOSIX(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	return re, nil
}
