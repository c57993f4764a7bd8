// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

var utsReleaseRE = regexp.MustCompile(`(?m)^#define UTS_RELEASE "([^"/]+)"`)

// kernel returns the kernel release and the header tree to compile for.
func (p *project) kernel(ctx context.Context) (kver, src string, err error) {
	kver, src = p.kver, p.kernelSrc
	if kver == "" && src != "" {
		// Not include/config/kernel.release: Debian's holds another release.
		file := filepath.Join(src, "include", "generated", "utsrelease.h")
		text, err := os.ReadFile(file)
		if err != nil {
			return "", "", fmt.Errorf("read the kernel release of KERNEL_SRC=%s: %w (or set KVER, too)", src, err)
		}
		m := utsReleaseRE.FindSubmatch(text)
		if m == nil {
			return "", "", fmt.Errorf("%s has no UTS_RELEASE: set KVER, too", file)
		}
		kver = string(m[1])
	}
	if kver == "" {
		if kver, err = run.Output(ctx, "uname", "-r"); err != nil {
			return "", "", err
		}
		kver = strings.TrimSpace(kver)
	}
	if src == "" {
		src = filepath.Join("/lib/modules", kver, "build")
	}
	if _, err := os.Stat(filepath.Join(src, "Makefile")); err != nil {
		return "", "", fmt.Errorf("headers of kernel %s: %w (install them, or set KVER and KERNEL_SRC)", kver, err)
	}
	return kver, src, nil
}

// dkms exit codes, from its source.
const (
	dkmsCompileFailed  = 10
	dkmsKernelExcluded = 77
)

// kmod compiles the module of s with dkms in temporary trees and copies it to
// dist/kmod/vX.YY/KVER/. It does not need root.
func (p *project) kmod(ctx context.Context, s release) error {
	kver, src, err := p.kernel(ctx)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-kmod-")
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			os.RemoveAll(tmp)
		}
	}()
	tree := func(name string) string { return filepath.Join(tmp, name) }
	for _, dir := range []string{tree("dkms"), tree("install")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := p.stage(ctx, s, tree("src")); err != nil {
		return err
	}
	dkms := func(verb string, more ...string) error {
		args := []string{"dkms", verb, "-m", kmodName, "-v", p.dkmsVersion(s),
			"--dkmstree", tree("dkms"), "--sourcetree", tree("src"), "--installtree", tree("install")}
		// As root, dkms would create a signing key in /var/lib/dkms.
		env := []string{"mok_signing_key=" + tree("key"), "mok_certificate=" + tree("cert")}
		_, err := run.Command{Env: env, Argv: append(args, more...)}.Output(ctx)
		return err
	}
	if err := dkms("add"); err != nil {
		return err
	}
	// Newer dkms looks for headers in the install tree by default.
	if err := dkms("build", "-k", kver, "--kernelsourcedir", src); err != nil {
		switch run.ExitStatus(err) {
		case dkmsKernelExcluded:
			return fmt.Errorf("kernel %s is not among those in %s: %w", kver, s.kernels, err)
		case dkmsCompileFailed:
			keep = true
			log := filepath.Join(tree("dkms"), kmodName, p.dkmsVersion(s), "build", "make.log")
			text, _ := os.ReadFile(log)
			return fmt.Errorf("compile failed, see %s: %w\n%s", log, err, text)
		}
		return err
	}
	built, err := filepath.Glob(filepath.Join(tree("dkms"), kmodName, p.dkmsVersion(s), kver, "*", "module", "scoutfs.ko*"))
	if err != nil {
		return err
	}
	if len(built) != 1 {
		return fmt.Errorf("dkms left %d modules instead of one: %v", len(built), built)
	}
	dest := filepath.Join(p.dist, "kmod", s.Version, kver, filepath.Base(built[0]))
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	if err := copyFile(dest, built[0]); err != nil {
		return err
	}
	p.say("%s", dest)
	return nil
}
