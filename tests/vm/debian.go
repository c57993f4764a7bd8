// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// MakeDebian makes a small root file system of a Debian release in dir, which
// must be missing or empty, with the packages and what they depend on. It comes
// from the archives that apt is configured with, without documentation and
// translations, and without manual pages if those are not wanted. Needs root.
func MakeDebian(ctx context.Context, dir, suite string, packages []string, manuals bool) error {
	mmdebstrap, err := run.Tool("mmdebstrap", "mmdebstrap")
	if err != nil {
		return err
	}
	mirrors, err := debianMirrors(ctx)
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
	cmd := exec.CommandContext(ctx, mmdebstrap, append(append(args, suite, dir), mirrors...)...)
	cmd.Env = run.Environ()
	cmd.WaitDelay = 5 * time.Second
	// It mounts /proc and /dev in the root. In a namespace of its own they are gone
	// when it is, and what removes a root can never walk into the host's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run mmdebstrap for Debian %s: %w\n%s", suite, err, out)
	}
	return nil
}

// debianMirrors returns the archives of Debian that apt is configured with here:
// no host stands in this repository.
func debianMirrors(ctx context.Context) ([]string, error) {
	out, err := run.Output(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
	if err != nil {
		return nil, err
	}
	uris := strings.Fields(out)
	slices.Sort(uris)
	uris = slices.Compact(uris)
	if len(uris) == 0 {
		return nil, errors.New("find a Debian archive: apt has no index of one with the component main: " +
			"run apt-get update, or add one to its sources")
	}
	return uris, nil
}
