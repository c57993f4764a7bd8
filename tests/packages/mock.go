// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const noMock = `mock is not installed:
    Fedora, RHEL family (EPEL):  dnf install mock && usermod -a -G mock USER
    Debian 12 has no package of it: build in a container, as in docs/ci.md`

// mock builds source packages of the series, rebuilds them in the chroot of
// mock/CHROOT.cfg and writes both kinds of packages to dist.
func (p *project) mock(ctx context.Context, args []string) (err error) {
	chroot := args[0]
	all, err := p.pick(args[1:])
	if err != nil {
		return err
	}
	config, err := p.mockConfig(chroot)
	if err != nil {
		return err
	}
	mock, err := exec.LookPath("mock")
	if err != nil {
		return errors.New(noMock)
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-mock-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			os.RemoveAll(tmp)
		} else {
			os.Remove(tmp) // unless it holds mock's logs, which the error names
		}
	}()
	// mock builds as another user.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	for _, s := range all {
		srpm, err := p.srpm(ctx, s, p.dist)
		if err != nil {
			return fmt.Errorf("srpm %s: %w", s.Version, err)
		}
		results := filepath.Join(tmp, s.Version)
		// The chroot is set up once; mock cleans it between packages.
		args := []string{"--root", config, "--resultdir", results}
		if p.compileCheck {
			// Not KERNEL_SRC: the chroot has the headers that the spec requires.
			args = append(args, "--with", "compile_check")
		}
		cmd := exec.CommandContext(ctx, mock, append(args, "--rebuild", srpm)...)
		cmd.Stdout, cmd.Stderr = p.out, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("mock: rebuild %s in %s: %w; its logs are in %s\n%s",
				filepath.Base(srpm), chroot, err, results, lastLines(filepath.Join(results, "build.log"), 30))
		}
		if _, err := p.collect(filepath.Join(results, s.packageName()+"-*.noarch.rpm"), p.dist); err != nil {
			return err
		}
	}
	return nil
}

// mockConfig returns a chroot's configuration file.
func (p *project) mockConfig(chroot string) (string, error) {
	configs, err := filepath.Glob(p.file("mock", "*.cfg"))
	if err != nil {
		return "", err
	}
	var known []string
	for _, config := range configs {
		name := strings.TrimSuffix(filepath.Base(config), ".cfg")
		if name == chroot {
			return config, nil
		}
		known = append(known, name)
	}
	return "", usageError(fmt.Sprintf("there is no chroot %q, only %s", chroot, strings.Join(known, ", ")))
}

// lastLines returns the last n lines of a build.log.
func lastLines(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "" // it failed before the build, and has said why
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "The end of build.log:\n" + strings.Join(lines[max(0, len(lines)-n):], "\n")
}
