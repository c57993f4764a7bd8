// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// scriptlets are those of the module's package, functions of packaging/kmod.sh.
var scriptlets = []string{"pre", "post", "preun", "posttrans"}

// spec returns the spec file of s: its parameters, the common text, the scriptlets and
// the changelog.
func (p *project) spec(s release) (string, error) {
	text, err := os.ReadFile(p.file("packaging", "scoutfs-notify.spec"))
	if err != nil {
		return "", err
	}
	script, err := os.ReadFile(p.file("packaging", "kmod.sh"))
	if err != nil {
		return "", err
	}
	// rpm adds the first line, and expands macros.
	_, shell, _ := strings.Cut(string(script), "\n")
	shell = strings.ReplaceAll(shell, "%", "%%")
	var b strings.Builder
	fmt.Fprintf(&b, "%%global scoutfs_version %s\n", s.number())
	fmt.Fprintf(&b, "%%global series_release %d\n", p.number)
	for i, patch := range s.Paths() {
		fmt.Fprintf(&b, "Patch%04d: %s\n", i+1, filepath.Base(patch))
	}
	b.Write(text)
	for _, scriptlet := range scriptlets {
		fmt.Fprintf(&b, "\n%%%s\nname=%%{name} scoutfs=%%{scoutfs_version} release=%%{series_release}\n%s%s \"$1\"\n",
			scriptlet, shell, scriptlet)
	}
	b.WriteString("\n%changelog\n" + rpmChangelog(p.changes, s.number()))
	return b.String(), nil
}

func (s release) packageName() string { return "scoutfs-notify-kmod-" + s.Version }

// rpmbuild runs rpmbuild in topdir.
//
// For source packages _topdir is /proc/self/cwd: they hold the spec with its macros
// expanded, and a path that differs would make a different package. Builds change
// folders, so they need the real path; it does not get into packages without
// compiled code.
func (p *project) rpmbuild(ctx context.Context, topdir string, args ...string) error {
	// HOME: in the user's, Debian's rpm would leave a database and find macros that
	// change the result.
	env := []string{"HOME=" + topdir, "SOURCE_DATE_EPOCH=" + strconv.FormatInt(p.epoch.Unix(), 10)}
	name := topdir
	if args[0] == "-bs" {
		name = "/proc/self/cwd"
	}
	// Source packages record who owns their files.
	argv := append([]string{"rpmbuild", "--define", "_topdir " + name, "--define", "_srcdefattr (-,root,root)", "--nodeps"}, args...)
	_, err := run.Command{Dir: topdir, Env: env, Argv: argv}.Output(ctx)
	return err
}

// srpm writes the source package of s to dir and returns its path.
func (p *project) srpm(ctx context.Context, s release, dir string) (string, error) {
	top, err := os.MkdirTemp("", "scoutfs-notify-rpm-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(top)
	sources := filepath.Join(top, "SOURCES")
	if err := os.Mkdir(sources, 0o755); err != nil {
		return "", err
	}
	if err := p.archiveGzip(ctx, s, filepath.Join(sources, s.prefix()+".tar.gz")); err != nil {
		return "", err
	}
	files := append([]string{
		p.file("dkms", "dkms.conf"), p.file("dkms", "stage.sh"), s.kernels, p.file("LICENSES", "GPL-2.0-only.txt"),
		p.file("packaging", "kmod.sh"), p.file("packaging", "dkms.service.conf"),
	}, s.Paths()...)
	for _, f := range files {
		if err := copyFile(filepath.Join(sources, filepath.Base(f)), f); err != nil {
			return "", err
		}
	}
	text, err := p.spec(s)
	if err != nil {
		return "", err
	}
	spec := filepath.Join(top, s.packageName()+".spec")
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		return "", err
	}
	if err := p.stamp(top); err != nil {
		return "", err
	}
	if err := p.rpmbuild(ctx, top, "-bs", spec); err != nil {
		return "", err
	}
	return p.collect(filepath.Join(top, "SRPMS", "*.src.rpm"), dir)
}

// rpm writes the source package of s and the package built from it to dist.
func (p *project) rpm(ctx context.Context, s release) error {
	srpm, err := p.srpm(ctx, s, p.dist)
	if err != nil {
		return err
	}
	top, err := os.MkdirTemp("", "scoutfs-notify-rpm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(top)
	args := []string{"--rebuild"}
	if p.compileCheck || p.kernelSrc != "" {
		args = append(args, "--with", "compile_check")
	}
	if p.kernelSrc != "" {
		args = append(args, "--define", "kernel_sources "+p.kernelSrc)
	}
	if err := p.rpmbuild(ctx, top, append(args, srpm)...); err != nil {
		return err
	}
	_, err = p.collect(filepath.Join(top, "RPMS", "noarch", "*.rpm"), p.dist)
	return err
}

// collect copies the one file that matches pattern to dir and returns its new path.
func (p *project) collect(pattern, dir string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d files match %s instead of one: %v", len(found), pattern, found)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	dest := filepath.Join(dir, filepath.Base(found[0]))
	if err := copyFile(dest, found[0]); err != nil {
		return "", err
	}
	p.say("%s", dest)
	return dest, nil
}

// all writes the packages of the module and of the daemon to dist, with an
// index for dnf and one for apt. Without SCOUTFS_SRC it leaves out those of the module, and says so.
func (p *project) all(ctx context.Context, names []string) error {
	all, err := p.pick(names)
	if err != nil {
		return err
	}
	if p.upstream == "" {
		p.say("left out the packages of the module: %s", noSource)
	} else {
		for _, s := range all {
			if err := errors.Join(p.rpm(ctx, s), p.deb(ctx, s)); err != nil {
				return fmt.Errorf("packages of %s: %w", s.Version, err)
			}
		}
	}
	if err := p.notifyd(ctx); err != nil {
		return err
	}
	return p.index(ctx)
}

// index writes the indexes of dist for dnf and for apt. They cover all that is there, with
// the packages of former releases.
func (p *project) index(ctx context.Context) error {
	if _, err := run.Output(ctx, "createrepo_c", "--quiet", p.dist); err != nil {
		return err
	}
	if err := aptIndex(p.dist, p.epoch); err != nil {
		return fmt.Errorf("make the index for apt: %w", err)
	}
	p.say("install from it with: dnf --repofrompath=scoutfs-notify,file://%s --nogpgcheck install ...", p.dist)
	p.say("or tell apt about it:  deb [trusted=yes] file:%s ./", p.dist)
	return nil
}
