// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// MakeDebian makes a small root file system of a Debian release in dir, which
// must be missing or empty, with the packages and their dependencies, from the
// archives that apt is configured with. Documentation and translations are left
// out, and so are manual pages unless wanted. It needs root.
func MakeDebian(ctx context.Context, dir, suite string, packages []string, manuals bool) error {
	mmdebstrap, err := run.Tool("mmdebstrap", "mmdebstrap")
	if err != nil {
		return err
	}
	archives, err := debianArchives(ctx)
	if err != nil {
		return err
	}
	args := []string{
		"--variant=minbase", "--format=directory", "--include=" + strings.Join(packages, ","),
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
	if !manuals {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/man/*")
	}
	cmd := exec.CommandContext(ctx, mmdebstrap, append(append(args, suite, dir), slices.Sorted(maps.Keys(archives))...)...)
	cmd.Env = run.Environ()
	cmd.WaitDelay = 5 * time.Second
	// It mounts /proc and /dev in the root. In a mount namespace of its own they
	// vanish when it ends, so that removing a root can never reach the host's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run mmdebstrap for Debian %s: %w\n%s", suite, err, out)
	}
	return nil
}

// DebianPackage fetches the newest version of a package in a Debian suite, once, and
// returns the path of its file in the cache. Nothing of it is installed.
func DebianPackage(ctx context.Context, suite, pkg string) (string, error) {
	dir, err := repo.Cached("packages", pkg+"-"+suite, func(tmp string) error {
		progress("fetching %s of Debian %s", pkg, suite)
		scratch, err := os.MkdirTemp(tmp, "apt-")
		if err != nil {
			return err
		}
		a, err := newApt(ctx, scratch, suite)
		if err != nil {
			return err
		}
		debs, err := a.download(ctx, pkg)
		if err != nil {
			return err
		}
		if err := os.Rename(debs[pkg], filepath.Join(tmp, filepath.Base(debs[pkg]))); err != nil {
			return err
		}
		return os.RemoveAll(scratch)
	})
	if err != nil {
		return "", fmt.Errorf("get %s of Debian %s: %w", pkg, suite, err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, pkg+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("get %s of Debian %s: %d files in %s instead of one", pkg, suite, len(debs), dir)
	}
	return debs[0], nil
}

// debianArchives returns the Debian archives that apt is configured with: by URI,
// the entry of apt's sources as "file:number", counting lines or stanzas. No host is
// named in this repository.
func debianArchives(ctx context.Context) (map[string]string, error) {
	out, err := run.Output(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(SOURCESENTRY)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
	if err != nil {
		return nil, err
	}
	archives := map[string]string{}
	for line := range strings.Lines(out) {
		uri, entry, _ := strings.Cut(strings.TrimSpace(line), " ")
		if archives[uri] == "" {
			archives[uri] = entry
		}
	}
	if len(archives) == 0 {
		return nil, errors.New("find a Debian archive: apt has no index of one with the component main; " +
			"run apt-get update, or add one to its sources")
	}
	return archives, nil
}
