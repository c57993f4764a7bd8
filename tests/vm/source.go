// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// KernelSource returns the path of the archive with the source of a kernel that comes
// from Debian's packages, by its name for [Kernel]. It is downloaded once and then taken
// from the cache.
func KernelSource(ctx context.Context, name string) (string, error) {
	suite, err := debianSuite(name)
	if err != nil {
		return "", err
	}
	dir, err := repo.Cached("kernels", name+"-source", func(tmp string) error { return fetchSource(ctx, tmp, name, suite) })
	if err != nil {
		return "", fmt.Errorf("get the source of kernel %s: %w", name, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "linux-source-*.tar.xz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("find the source of kernel %s: %d archives in %s instead of one", name, len(found), dir)
	}
	return found[0], nil
}

// fetchSource puts the archive from Debian's package of a suite's kernel source into dir.
func fetchSource(ctx context.Context, dir, name, suite string) error {
	progress("%s: fetching the package lists of Debian %s", name, suite)
	scratch, err := os.MkdirTemp(dir, "apt-")
	if err != nil {
		return err
	}
	a, err := newApt(ctx, scratch, suite)
	if err != nil {
		return err
	}
	deps, err := a.depends(ctx, "linux-source")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(deps, func(d string) bool { return strings.HasPrefix(d, "linux-source-") })
	if i < 0 {
		return fmt.Errorf("find the kernel's source: linux-source depends on %v", deps)
	}
	progress("%s: downloading %s, 120 MB", name, deps[i])
	debs, err := a.download(ctx, deps[i])
	if err != nil {
		return err
	}
	if err := unpackDeb(ctx, debs[deps[i]], scratch); err != nil {
		return err
	}
	archive := deps[i] + ".tar.xz"
	if err := os.Rename(filepath.Join(scratch, "usr/src", archive), filepath.Join(dir, archive)); err != nil {
		return err
	}
	return os.RemoveAll(scratch)
}

// UnpackSource unpacks an archive of [KernelSource] into dir, which it creates, without
// its top folder. Of the members, only those that a pattern of tar's matches, all if
// there is none.
func UnpackSource(ctx context.Context, archive, dir string, members ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	xz, err := run.Tool("xz", "xz-utils")
	if err != nil {
		return err
	}
	argv := []string{"tar", "-x", "-I", xz, "-f", archive, "-C", dir, "--strip-components=1", "--no-same-owner"}
	if len(members) > 0 {
		argv = append(append(argv, "--wildcards"), members...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = run.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", archive, err, out)
	}
	return nil
}
