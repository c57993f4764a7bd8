// SPDX-License-Identifier: GPL-2.0-only

// Package standin builds the stand-in file system of tests/testfs, with the
// notify files taken unchanged out of a series.
package standin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// Scoutfs is a shell script that takes the place of ScoutFS's command where the
// stand-in takes the place of ScoutFS. It knows "statfs -s fsid -p DIR" alone,
// and takes the first mount's.
const Scoutfs = `#!/bin/sh
set -eu
[ "$*" = "statfs -s fsid -p $5" ] || { echo "scoutfs: the stand-in only knows statfs -s fsid -p DIR" >&2; exit 1; }
set -- /sys/fs/scoutfs/f.*/fsid
cat "$1"
`

// Versions returns the supported ScoutFS versions, oldest first: the folders of
// patches/. VERSIONS in the environment, separated by spaces, narrows them.
func Versions() ([]string, error) {
	root, err := vm.Root()
	if err != nil {
		return nil, err
	}
	bases, err := filepath.Glob(filepath.Join(root, "patches/v*/base.txt"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, b := range bases {
		all = append(all, filepath.Base(filepath.Dir(b)))
	}
	if len(all) == 0 {
		return nil, errors.New("list the supported versions: patches/ has no series")
	}
	sort.Slice(all, func(i, j int) bool { return minor(all[i]) < minor(all[j]) })
	want := strings.Fields(os.Getenv("VERSIONS"))
	if len(want) == 0 {
		return all, nil
	}
	known := make(map[string]bool)
	for _, v := range all {
		known[v] = true
	}
	for _, v := range want {
		if !known[v] {
			return nil, fmt.Errorf("VERSIONS names %q; supported are %s", v, strings.Join(all, " "))
		}
	}
	return want, nil
}

// minor is the second number of a version; ScoutFS's first has always been 1.
func minor(v string) int {
	_, m, _ := strings.Cut(v, ".")
	n, _ := strconv.Atoi(m)
	return n
}

// Series extracts the files that a series adds, kmod/src/notify*, into a folder
// and returns their paths by name.
func Series(ctx context.Context, version, dir string) (map[string]string, error) {
	root, err := vm.Root()
	if err != nil {
		return nil, err
	}
	patches, err := filepath.Glob(filepath.Join(root, "patches", version, "*.patch"))
	if err != nil || len(patches) == 0 {
		return nil, fmt.Errorf("extract from the series for %s: no patches in patches/%s", version, version)
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, p := range patches {
		// git takes paths from the top of a repository it is run in
		cmd := exec.CommandContext(ctx, "git", "apply", "--include=kmod/src/notify*", p)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("extract from %s: %w\n%s", filepath.Base(p), err, out)
		}
	}
	files := make(map[string]string)
	for _, name := range []string{"notify.c", "notify.h", "notify_ioctl.h", "notify_trace.h"} {
		files[name] = filepath.Join(dir, "kmod/src", name)
		if _, err := os.Stat(files[name]); err != nil {
			return nil, fmt.Errorf("extract from the series for %s: %w", version, err)
		}
	}
	return files, nil
}

// Modules are the paths of the stand-in's two builds.
type Modules struct{ Patched, Unpatched string }

// Build builds the stand-in for a kernel, with the newest series' files and as
// if it were unpatched.
func Build(ctx context.Context, k *vm.KernelTree) (*Modules, error) {
	root, err := vm.Root()
	if err != nil {
		return nil, err
	}
	versions, err := Versions()
	if err != nil {
		return nil, err
	}
	dir, err := vm.CacheDir("standin", k.Version)
	if err != nil {
		return nil, err
	}
	files, err := Series(ctx, versions[len(versions)-1], filepath.Join(dir, "series"))
	if err != nil {
		return nil, err
	}
	src := vm.ModuleSource{
		Dir:   filepath.Join(root, "tests/testfs"),
		Files: files,
		Out:   filepath.Join(dir, "patched"),
	}
	var m Modules
	if m.Patched, err = vm.BuildModule(ctx, k, src); err != nil {
		return nil, err
	}
	src.Files, src.Out, src.Make = nil, filepath.Join(dir, "unpatched"), []string{"UNPATCHED=1"}
	if m.Unpatched, err = vm.BuildModule(ctx, k, src); err != nil {
		return nil, err
	}
	return &m, nil
}
