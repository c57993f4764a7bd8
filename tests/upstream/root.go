// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// rootSuite is the Debian release of the machine's root. It has to be the host's:
// programs built on the host run in it.
const rootSuite = "bookworm"

// rootPackages hold the programs that upstream's suite calls, and the libraries of
// ScoutFS's command.
var rootPackages = []string{
	"acl", "attr", "bc", "bsdextrautils", "dmsetup", "e2fsprogs", "fdisk", "file", "gawk", "git", "kmod",
	"libblkid1", "libssl3", "libuuid1", "perl-base", "procps", "psmisc", "strace", "sudo", "uuid-runtime", "xfsprogs",
}

// rootImage returns the path of a disk image with a Debian root, which it makes
// unless the cache has it.
func rootImage(ctx context.Context) (string, error) {
	key := sha256.Sum256([]byte(rootSuite + strings.Join(rootPackages, " ")))
	dir, err := repo.Cached("upstream", fmt.Sprintf("root-%x", key[:6]), func(tmp string) error {
		fmt.Fprintln(os.Stderr, "upstream: making a Debian root for the machine")
		tree := filepath.Join(tmp, "tree")
		if err := vm.MakeDebian(ctx, tree, rootSuite, rootPackages, false); err != nil {
			return err
		}
		mke2fs, err := run.Tool("mke2fs", "e2fsprogs")
		if err != nil {
			return err
		}
		if _, err := run.Output(ctx, mke2fs, "-q", "-t", "ext4", "-d", tree, filepath.Join(tmp, "image"), "4G"); err != nil {
			return err
		}
		return os.RemoveAll(tree)
	})
	if err != nil {
		return "", fmt.Errorf("make a root for the machine: %w", err)
	}
	return filepath.Join(dir, "image"), nil
}
