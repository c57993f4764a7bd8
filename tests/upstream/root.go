// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
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
	key := sha256.Sum256([]byte(rootSuite + strings.Join(rootPackages, " ")))
	dir, err := repo.Cached("upstream", fmt.Sprintf("root-%x", key[:6]), func(tmp string) error {
		fmt.Fprintln(os.Stderr, "upstream: making a Debian root for the machine")
		tree := filepath.Join(tmp, "tree")
		if err := vm.MakeDebian(ctx, tree, rootSuite, rootPackages, false); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", tree, filepath.Join(tmp, "image"), "4G").CombinedOutput()
		if err != nil {
			return fmt.Errorf("run mke2fs (Debian package e2fsprogs): %w\n%s", err, out)
		}
		return os.RemoveAll(tree)
	})
	if err != nil {
		return "", fmt.Errorf("make a root for the machine: %w", err)
	}
	return filepath.Join(dir, "image"), nil
}
