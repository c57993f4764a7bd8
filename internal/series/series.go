// SPDX-License-Identifier: GPL-2.0-only

// Package series reads patches/, which holds a series of patches for each
// supported release of ScoutFS:
//
//	patches/v1.30/base.txt        the release, upstream's tag: the folder's name
//	patches/v1.30/0001-….patch    what git format-patch wrote, numbered from 1
//	patches/main/base.txt         the commit of upstream's main that the rest applies to
//
// The folders vX.YY are the project's list of supported releases. What starts like a
// release, a v and a digit, must be one and whole. main is no release: nothing is made
// of it but the next release's series, and only [OpenMain] reads it. The rest of
// patches/ is none of this package's business. apply.sh reads the same layout for those
// without Go.
package series

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// HeaderPath is the file, among those that a series adds, that holds the whole
// interface to userspace.
const HeaderPath = "kmod/src/notify_ioctl.h"

// Main is the name, in place of a release's, of the series for upstream's main branch.
const Main = "main"

// A Series is the patches for one release, or for upstream's main.
type Series struct {
	Version string   // of ScoutFS, such as v1.30: the tag that the patches apply to; or Main
	Base    string   // what base.txt holds: the tag, or of Main the id of a commit
	Dir     string   // the folder that holds them
	Patches []*Patch // in the order in which they apply
}

var (
	release   = regexp.MustCompile(`^v(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$`)
	candidate = regexp.MustCompile(`^v[0-9]`)
	commitID  = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// IsRelease tells whether a name is that of a ScoutFS release, such as v1.30.
// Upstream has never had a third number.
func IsRelease(name string) bool { return release.MatchString(name) }

// Compare orders releases by their numbers, v1.9 before v1.30 before v2.0; other
// names come before all of them. It is negative, zero or positive as in
// [strings.Compare].
func Compare(a, b string) int {
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), strings.Compare(a, b))
}

// numbers returns the two numbers of a release, nil for other names.
func numbers(version string) []int {
	m := release.FindStringSubmatch(version)
	if m == nil {
		return nil
	}
	// At most four digits each: they fit.
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return []int{major, minor}
}

// Versions returns the releases that have a series in dir, oldest first; there is
// at least one. It looks at the folders' layout and not into the patches.
func Versions(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the supported releases: %w", err)
	}
	var all []string
	for _, e := range entries {
		if !candidate.MatchString(e.Name()) {
			continue
		}
		if _, _, err := files(dir, e.Name()); err != nil {
			return nil, fmt.Errorf("list the supported releases: %w", err)
		}
		all = append(all, e.Name())
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("list the supported releases: %s has no folder named vX.YY", dir)
	}
	slices.SortFunc(all, Compare)
	return all, nil
}

// Select opens the series in dir for the named releases, in that order, or all of
// them, oldest first, if none is named.
func Select(dir string, names ...string) ([]*Series, error) {
	versions, err := Versions(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		names = versions
	}
	var all []*Series
	for _, name := range names {
		if !slices.Contains(versions, name) {
			return nil, fmt.Errorf("there is no series for %q: the supported releases are %s", name, strings.Join(versions, " "))
		}
		s, err := Open(dir, name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Newest opens the series in dir for the newest release.
func Newest(dir string) (*Series, error) {
	versions, err := Versions(dir)
	if err != nil {
		return nil, err
	}
	return Open(dir, versions[len(versions)-1])
}

// OpenMain reads the series in dir for upstream's main. The error is fs.ErrNotExist if
// there is none.
func OpenMain(dir string) (*Series, error) { return open(dir, Main) }

// Open reads the series in dir for a release.
func Open(dir, version string) (*Series, error) {
	if !IsRelease(version) {
		return nil, fmt.Errorf("open the series for %q: ScoutFS's releases are named vX.YY", version)
	}
	return open(dir, version)
}

func open(dir, version string) (*Series, error) {
	base, names, err := files(dir, version)
	if err != nil {
		return nil, fmt.Errorf("open the series for %s: %w", version, err)
	}
	s := &Series{Version: version, Base: base, Dir: filepath.Join(dir, version)}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return nil, fmt.Errorf("open the series for %s: %w", version, err)
		}
		p, err := ParsePatch(name, text)
		if err != nil {
			return nil, fmt.Errorf("open the series for %s: %w", version, err)
		}
		s.Patches = append(s.Patches, p)
	}
	return s, nil
}

// Rev returns the revision that the patches apply to, as git names it.
func (s *Series) Rev() string {
	if s.Version == Main {
		return s.Base
	}
	return "refs/tags/" + s.Version
}

// files checks the folder of a release, or of Main, and returns what its base.txt holds
// and the names of its patches.
func files(dir, version string) (base string, names []string, err error) {
	folder := filepath.Join(dir, version)
	if version != Main && !IsRelease(version) {
		return "", nil, fmt.Errorf("%s: ScoutFS's releases are named vX.YY: rename or remove it", folder)
	}
	text, err := os.ReadFile(filepath.Join(folder, "base.txt"))
	if err != nil {
		return "", nil, err
	}
	base = strings.TrimSpace(string(text))
	if version != Main && base != version {
		return "", nil, fmt.Errorf("%s holds %q: it must hold the folder's name", filepath.Join(folder, "base.txt"), base)
	}
	if version == Main && !commitID.MatchString(base) {
		return "", nil, fmt.Errorf("%s holds %q: it must hold the id of a commit, 40 digits", filepath.Join(folder, "base.txt"), base)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries { // sorted by name
		if !strings.HasSuffix(e.Name(), ".patch") {
			continue
		}
		if number := fmt.Sprintf("%04d-", len(names)+1); !strings.HasPrefix(e.Name(), number) {
			return "", nil, fmt.Errorf("%s: its name must start with %s", filepath.Join(folder, e.Name()), number)
		}
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("%s holds no *.patch", folder)
	}
	return base, names, nil
}

// Paths returns where the patches are, in order.
func (s *Series) Paths() []string {
	var all []string
	for _, p := range s.Patches {
		all = append(all, filepath.Join(s.Dir, p.Name))
	}
	return all
}

// Added returns the text of each file that the series adds, by its path in
// ScoutFS's tree.
func (s *Series) Added() map[string]string {
	all := map[string]string{}
	for _, p := range s.Patches {
		for _, f := range p.Files {
			if f.Added {
				all[f.Path] = f.newText()
			}
		}
	}
	return all
}

// Header returns the text of [HeaderPath], "" if the series does not add it.
func (s *Series) Header() string { return s.Added()[HeaderPath] }

// CommonHeader returns the header of the interface, which must be the same in all
// of some series: there is one interface for all releases.
func CommonHeader(all []*Series) (string, error) {
	for _, s := range all {
		switch {
		case s.Header() == "":
			return "", fmt.Errorf("the series for %s does not add %s", s.Version, HeaderPath)
		case s.Header() != all[0].Header():
			return "", fmt.Errorf("%s differs between the series for %s and %s: the interface is one for all releases",
				HeaderPath, all[0].Version, s.Version)
		}
	}
	if len(all) == 0 {
		return "", errors.New("no series to take the header from")
	}
	return all[0].Header(), nil
}

// KernelsFile returns the file with a regular expression of the kernel releases that the
// series' packages are built for: its own kernels.txt, or else common.
func (s *Series) KernelsFile(common string) (string, error) {
	own := filepath.Join(s.Dir, "kernels.txt")
	_, err := os.Stat(own)
	if errors.Is(err, fs.ErrNotExist) {
		return common, nil
	}
	return own, err
}
