// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// kmodName is the module source's name in DKMS.
const kmodName = "scoutfs-notify"

// project is the repository, with the settings from the environment.
type project struct {
	root       string // repository, absolute
	dist       string // where results go, absolute
	upstream   string // ScoutFS checkout, absolute; empty when not given
	relative   bool   // it was given as a relative path
	kver       string // kernel release to compile for; empty: the running one
	kernelSrc  string // its headers, absolute; empty: the installed ones
	patchesDir string // absolute

	compileCheck bool // compile the module before packaging it

	number   int // N: one number for all series and for the daemon
	epoch    time.Time
	changes  []change  // newest first
	releases []release // oldest first

	out io.Writer
}

// release is a ScoutFS release's series and supported kernels.
type release struct {
	*series.Series
	// kernels is the file with a regular expression of supported kernel releases: the
	// series' own, or dkms/kernels.txt.
	kernels string
}

// number returns the release without the v, as in package versions.
func (r release) number() string { return strings.TrimPrefix(r.Version, "v") }

// openProject reads the repository in root. Errors name the file to fix.
func openProject(root string, getenv func(string) string, out io.Writer) (*project, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "packaging", "scoutfs-notify.spec")); err != nil {
		return nil, fmt.Errorf("%s is not the root of the repository: %w", root, err)
	}
	p := &project{root: root, kver: getenv("KVER"), out: out}
	path := func(name, def string) string {
		v := getenv(name)
		if v == "" {
			v = def
		}
		if v == "" || filepath.IsAbs(v) {
			return v
		}
		return filepath.Join(root, v)
	}
	p.dist = path("DIST_DIR", "dist")
	p.upstream = path("SCOUTFS_SRC", "")
	p.relative = p.upstream != "" && !filepath.IsAbs(getenv("SCOUTFS_SRC"))
	p.kernelSrc = path("KERNEL_SRC", "")
	p.compileCheck = getenv("COMPILE_CHECK") != ""
	p.patchesDir = path("PATCHES_DIR", "patches")

	if p.number, err = readNumber(filepath.Join(p.patchesDir, "RELEASE")); err != nil {
		return nil, err
	}
	changelog := filepath.Join(root, "packaging", "changelog")
	text, err := os.ReadFile(changelog)
	if err != nil {
		return nil, err
	}
	if p.changes, err = parseChangelog(string(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", changelog, err)
	}
	p.epoch = p.changes[0].date
	if v := getenv("SOURCE_DATE_EPOCH"); v != "" {
		sec, err := strconv.ParseInt(v, 10, 64)
		if err != nil || sec < 0 {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH=%s is not a number of seconds since 1970", v)
		}
		p.epoch = time.Unix(sec, 0).UTC()
	}
	p.releases, err = p.pick(nil)
	return p, err
}

// readNumber reads N, the number that all packages of a release share.
func readNumber(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("release number: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s: %q is not a release number (1, 2, 3...)", file, strings.TrimSpace(string(text)))
	}
	return n, nil
}

// pick opens the series for the named releases, or all if there are no names.
func (p *project) pick(names []string) ([]release, error) {
	all, err := series.Select(p.patchesDir, names...)
	if err != nil {
		return nil, err
	}
	var releases []release
	for _, s := range all {
		kernels, err := s.KernelsFile(p.file("dkms", "kernels.txt"))
		if err != nil {
			return nil, err
		}
		releases = append(releases, release{s, kernels})
	}
	return releases, nil
}

func (p *project) say(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
}

// file returns the path of a file of the repository.
func (p *project) file(elem ...string) string {
	return filepath.Join(append([]string{p.root}, elem...)...)
}

// copyFile copies a small file with mode 0644.
func copyFile(dst, src string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o644)
}

// stamp sets the times of everything below dir to the packages' own, for rpmbuild
// and nfpm, which record them.
func (p *project) stamp(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, p.epoch, p.epoch)
	})
}
