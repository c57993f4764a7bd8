// SPDX-License-Identifier: GPL-2.0-only

// Clint checks this project's C, the patches' included: with the kernel's checkpatch.pl,
// and with sparse and gcc's analyzer, whose findings must be none. "make lint" runs it.
// What it has found good it does not check again until something changes.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func main() {
	run.Main(func(ctx context.Context) int {
		if _, err := run.Tool("dpkg-deb", "dpkg"); err != nil {
			fmt.Fprintln(os.Stderr, "clint: C is not checked: kernel headers and checkpatch.pl come from Debian's packages, and this is not Debian")
			return 0
		}
		if err := lint(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "clint:", err)
			return 1
		}
		return 0
	})
}

// source is a file to check, or a patch.
type source struct {
	name, text string
	ignore     []string // types of checkpatch's that do not apply
}

func (s *source) patch() bool { return strings.HasSuffix(s.name, ".patch") }

// kernelName is the kernel against which the stand-in is compiled.
const kernelName = "debian11"

// sources returns all C of this project: the series, and the files of the repository.
func sources(root string) ([]source, error) {
	all, err := repo.Series()
	if err != nil {
		return nil, err
	}
	next, err := series.OpenMain(filepath.Join(root, "patches"))
	if err != nil {
		return nil, err
	}
	all = append(all, next)
	var list []source
	seen := map[string]bool{}
	for _, s := range slices.Backward(all) {
		for _, p := range s.Patches {
			text := string(p.Bytes())
			// Most differ from those of another release in where they apply only.
			if same := place.ReplaceAllString(text, ""); !seen[same] {
				seen[same] = true
				list = append(list, source{filepath.Join(s.Version, p.Name), text, []string{
					"FILE_PATH_CHANGES",      // ScoutFS has no MAINTAINERS
					"SPDX_LICENSE_TAG",       // its test scripts have none
					"EMBEDDED_FUNCTION_NAME", // the usage of a program
				}})
			}
		}
	}
	for pattern, ignore := range map[string][]string{
		// It follows kernels, whose interfaces differ, and has macros for that.
		"tests/testfs/*.[ch]": {"CONSTANT_COMPARISON", "COMPLEX_MACRO"},
		// The typedef is an array whose size is an assertion, also before C11.
		"packaging/include/scoutfs/*.h": {"NEW_TYPEDEFS"},
	} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("find %s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			rel, err := filepath.Rel(root, f)
			if err != nil {
				return nil, err
			}
			list = append(list, source{rel, string(text), ignore})
		}
	}
	slices.SortFunc(list, func(a, b source) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// place matches what in a patch says where it applies.
var place = regexp.MustCompile(`(?m)^(index |@@ |Subject: |Date: ).*$`)

func lint(ctx context.Context) error {
	root, err := repo.Root()
	if err != nil {
		return err
	}
	list, err := sources(root)
	if err != nil {
		return err
	}
	key, err := keyOf(ctx, list)
	if err != nil {
		return err
	}
	_, err = repo.Cached("lint", key, func(tmp string) error { return check(ctx, root, list, tmp) })
	return err
}

// keyOf identifies everything that the result depends on.
func keyOf(ctx context.Context, list []source) (string, error) {
	h := sha256.New()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	for _, tool := range []string{"gcc", "sparse"} {
		version, err := run.Output(ctx, tool, "--version")
		if err != nil {
			return "", fmt.Errorf("%w; install the Debian package %s", err, tool)
		}
		fmt.Fprintln(h, version)
	}
	for _, s := range list {
		fmt.Fprintf(h, "%s %d\n%s", s.name, len(s.text), s.text)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// check runs all checks, in dir, and returns all that they find.
func check(ctx context.Context, root string, list []source, dir string) error {
	scripts, err := checkpatchScripts(ctx)
	if err != nil {
		return err
	}
	found := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(2)
	for i, s := range list {
		g.Go(func() error {
			found[i] = checkpatch(ctx, scripts, dir, s)
			return nil
		})
	}
	g.Wait()
	newest, err := repo.Newest()
	if err != nil {
		return err
	}
	found = append(found, compile(ctx, root, newest, dir), analyze(ctx, newest, dir))
	if err := errors.Join(found...); err != nil {
		return err
	}
	// What remains is a mark that all was good.
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// checkpatchScripts returns the folder with checkpatch.pl and its lists.
func checkpatchScripts(ctx context.Context) (string, error) {
	dir, err := repo.Cached("kernels", kernelName+"-checkpatch", func(tmp string) error {
		archive, err := vm.KernelSource(ctx, kernelName)
		if err != nil {
			return err
		}
		return vm.UnpackSource(ctx, archive, tmp, "*/scripts/checkpatch.pl", "*/scripts/spelling.txt", "*/scripts/const_structs.checkpatch")
	})
	return filepath.Join(dir, "scripts"), err
}

// blankContext matches an empty line of a hunk, which stands for one with a blank.
var blankContext = regexp.MustCompile(`(?m)^$`)

func checkpatch(ctx context.Context, scripts, dir string, s source) error {
	text := s.text
	argv := []string{"perl", filepath.Join(scripts, "checkpatch.pl"), "--no-tree", "--no-summary", "--terse", "--show-types", "--quiet"}
	if s.patch() {
		head, hunks, _ := strings.Cut(text, "\ndiff --git ")
		text = head + "\ndiff --git " + blankContext.ReplaceAllString(strings.TrimSuffix(hunks, "\n"), " ") + "\n"
	} else {
		argv = append(argv, "--file")
	}
	if len(s.ignore) > 0 {
		argv = append(argv, "--ignore="+strings.Join(s.ignore, ","))
	}
	file := filepath.Join(dir, strings.ReplaceAll(s.name, "/", "-"))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	out, err := run.Command{Argv: append(argv, file)}.Combined(ctx)
	if out = strings.TrimSpace(out); out != "" {
		return fmt.Errorf("checkpatch.pl, for %s:\n%s", s.name, strings.ReplaceAll(out, file+":", ""))
	}
	return err
}

// kernelC matches a line of a compiler's or of sparse's about a file of the stand-in's
// folder, not about one of the kernel's headers.
var kernelC = regexp.MustCompile(`(?m)^(/\S*/)?(notify\w*|testfs|sysfs|counters|ioctl|super)\.[ch]:\d+:.*`)

// compile builds the stand-in with the series' notify files, sparse and the analyzer.
func compile(ctx context.Context, root string, s *series.Series, dir string) error {
	k, err := vm.Kernel(ctx, kernelName)
	if err != nil {
		return err
	}
	build := filepath.Join(dir, "module")
	if err := os.CopyFS(build, os.DirFS(filepath.Join(root, "tests/testfs"))); err != nil {
		return err
	}
	for path, text := range s.Added() {
		if strings.HasPrefix(path, "kmod/src/notify") {
			if err := os.WriteFile(filepath.Join(build, filepath.Base(path)), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	out, err := run.Command{Argv: []string{
		"make", "-C", k.Build, "M=" + build, "C=2", "CHECK=sparse", "CF=-D__CHECK_ENDIAN__", "KCFLAGS=-fanalyzer", "modules",
	}}.Combined(ctx)
	if found := kernelC.FindAllString(out, -1); len(found) > 0 {
		return fmt.Errorf("sparse and gcc -fanalyzer, for the kernel:\n%s", strings.Join(found, "\n"))
	}
	return err
}

// analyze compiles the program of the series' own test.
func analyze(ctx context.Context, s *series.Series, dir string) error {
	const program, header = "tests/src/notify_reader.c", "kmod/src/notify_ioctl.h"
	added := s.Added()
	for _, path := range []string{program, header} {
		if added[path] == "" {
			return fmt.Errorf("the series for %s adds no %s", s.Version, path)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), []byte(added[path]), 0o644); err != nil {
			return err
		}
	}
	_, err := run.Command{Dir: dir, Argv: []string{
		"gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-fanalyzer", "-c", "-o", os.DevNull, filepath.Base(program),
	}}.Output(ctx)
	return err
}
