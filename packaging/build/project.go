// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// kmodName is the name that DKMS knows the module source by.
const kmodName = "scoutfs-notify"

// project is the repository and what the environment says about this run.
type project struct {
	root       string // repository, absolute
	dist       string // where results go, absolute
	upstream   string // ScoutFS checkout, absolute; empty when not given
	kver       string // kernel release to compile for; empty: the running one
	kernelSrc  string // its headers, absolute; empty: where the kernel's are installed
	patchesDir string // absolute

	compileCheck bool // packages compile the module before they are packed

	release int // N: one number for all series and for the daemon
	epoch   time.Time
	changes []change // newest first
	series  []series // oldest ScoutFS first

	out io.Writer
}

// series is what patches/vX.YY holds.
type series struct {
	version string // "1.30"
	dir     string
	patches []string // absolute, in order
	kernels string   // file with the expression of supported kernel releases
}

func (s series) name() string { return "v" + s.version }

var versionRE = regexp.MustCompile(`^v([0-9]{1,4}\.[0-9]{1,4})$`)

// openProject reads the repository in root. Errors name the file to mend.
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
	p.kernelSrc = path("KERNEL_SRC", "")
	p.compileCheck = getenv("COMPILE_CHECK") != ""
	p.patchesDir = path("PATCHES_DIR", "patches")

	if p.release, err = readRelease(filepath.Join(p.patchesDir, "RELEASE")); err != nil {
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
	if p.series, err = readSeries(p.patchesDir, filepath.Join(root, "dkms", "kernels.txt")); err != nil {
		return nil, err
	}
	return p, nil
}

// readRelease reads N, the one number that all packages of a release carry.
func readRelease(file string) (int, error) {
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

// readSeries lists patches/v*, oldest version first. The folders are the list of
// versions: there is no other.
func readSeries(dir, kernels string) ([]series, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []series
	for _, e := range entries {
		m := versionRE.FindStringSubmatch(e.Name())
		if m == nil || !e.IsDir() {
			continue
		}
		s := series{version: m[1], dir: filepath.Join(dir, e.Name()), kernels: kernels}
		base, err := os.ReadFile(filepath.Join(s.dir, "base.txt"))
		if err != nil {
			return nil, err
		}
		if got := strings.TrimSpace(string(base)); got != s.name() {
			return nil, fmt.Errorf("%s/base.txt names tag %q, its folder %q", s.dir, got, s.name())
		}
		if s.patches, err = filepath.Glob(filepath.Join(s.dir, "[0-9]*.patch")); err != nil {
			return nil, err
		}
		if len(s.patches) == 0 {
			return nil, fmt.Errorf("%s holds no numbered patch", s.dir)
		}
		slices.Sort(s.patches)
		own := filepath.Join(s.dir, "kernels.txt")
		if _, err := os.Stat(own); err == nil {
			s.kernels = own
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no series (vX.YY folders)", dir)
	}
	slices.SortFunc(all, func(a, b series) int { return compareVersions(a.version, b.version) })
	return all, nil
}

// compareVersions orders X.YY by number: 1.9 comes before 1.30.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	return slices.CompareFunc(as, bs, func(x, y string) int {
		// Both match versionRE.
		xn, _ := strconv.Atoi(x)
		yn, _ := strconv.Atoi(y)
		return xn - yn
	})
}

// pick returns the series named, all of them without names.
func (p *project) pick(names []string) ([]series, error) {
	if len(names) == 0 {
		return p.series, nil
	}
	var picked []series
	for _, name := range names {
		i := slices.IndexFunc(p.series, func(s series) bool { return s.name() == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no series for %q in %s", name, p.patchesDir)
		}
		picked = append(picked, p.series[i])
	}
	return picked, nil
}

func (p *project) say(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
}

// file returns the path of a file of the repository.
func (p *project) file(elem ...string) string {
	return filepath.Join(append([]string{p.root}, elem...)...)
}

// command is a program run to its end.
type command struct {
	dir string
	env []string // added to the environment, which is otherwise ours with LC_ALL=C
	in  io.Reader
}

// run returns what the program printed on standard output. When it fails, the error
// carries everything it printed.
func (c command) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Stdin = c.in
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "TZ=UTC"), c.env...)
	var stdout bytes.Buffer
	var all locked
	cmd.Stdout = io.MultiWriter(&stdout, &all)
	cmd.Stderr = &all
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%s is not installed: %w", name, err)
		}
		text := strings.TrimRight(all.buf.String(), "\n")
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, text)
	}
	return stdout.String(), nil
}

// locked is a buffer for two streams, which come in goroutines of their own.
type locked struct {
	mu  sync.Mutex // for buf
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// copyFile copies a small file with mode 0644.
func copyFile(dst, src string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o644)
}
