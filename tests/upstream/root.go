// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// rootSuite is the Debian release of the machine's root. The programs that the
// host builds run in it, so it has to be the host's.
const rootSuite = "bookworm"

// rootPackages are what upstream's suite calls, and the libraries of ScoutFS's
// command.
var rootPackages = []string{
	"acl", "attr", "bc", "bsdextrautils", "dmsetup", "e2fsprogs", "fdisk", "file", "gawk", "git", "kmod",
	"libblkid1", "libssl3", "libuuid1", "perl-base", "procps", "psmisc", "strace", "sudo", "uuid-runtime", "xfsprogs",
}

// rootImage returns the path of a disk image with a Debian root, which it makes
// at first.
func rootImage(ctx context.Context) (string, error) {
	for tool, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("find the program %s: install the Debian package %s", tool, pkg)
		}
	}
	mirrors, err := mirrors(ctx)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256([]byte(rootSuite + strings.Join(rootPackages, " ")))
	dir, err := vm.Cached("upstream", fmt.Sprintf("root-%x", key[:6]), func(tmp string) error {
		fmt.Fprintln(os.Stderr, "upstream: making a Debian root for the machine")
		tree := filepath.Join(tmp, "tree")
		args := append([]string{
			"--variant=minbase", "--format=directory", "--include=" + strings.Join(rootPackages, ","),
			"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*",
			"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
			rootSuite, tree,
		}, mirrors...)
		if out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("run mmdebstrap: %w\n%s", err, out)
		}
		out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", tree, filepath.Join(tmp, "image"), "4G").CombinedOutput()
		if err != nil {
			return fmt.Errorf("run mke2fs: %w\n%s", err, out)
		}
		return os.RemoveAll(tree)
	})
	if err != nil {
		return "", fmt.Errorf("make a root for the machine: %w", err)
	}
	return filepath.Join(dir, "image"), nil
}

// mirrors returns the archives of Debian that apt is configured with here: no
// host stands in this repository.
func mirrors(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main").Output()
	if err != nil {
		return nil, fmt.Errorf("run apt-get indextargets: %w", err)
	}
	uris := strings.Fields(string(out))
	slices.Sort(uris)
	uris = slices.Compact(uris)
	if len(uris) == 0 {
		return nil, errors.New("apt has no index of a Debian archive with the component main: run apt-get update")
	}
	return uris, nil
}
