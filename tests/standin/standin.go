// SPDX-License-Identifier: GPL-2.0-only

// Package standin builds the stand-in file system of tests/testfs, with the
// notify files taken unchanged out of a series.
package standin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
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

// NotifyFiles returns the module's files that a series adds and does not share
// with ScoutFS: kmod/src/notify*, by path, with their text.
func NotifyFiles(s *series.Series) map[string]string {
	files := map[string]string{}
	for path, text := range s.Added() {
		if strings.HasPrefix(path, "kmod/src/notify") {
			files[path] = text
		}
	}
	return files
}

// Modules are the paths of the stand-in's two builds.
type Modules struct{ Patched, Unpatched string }

// Build builds the stand-in for a kernel, with the newest series' files and as
// if it were unpatched.
func Build(ctx context.Context, k *vm.KernelTree) (*Modules, error) {
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	s, err := repo.Newest()
	if err != nil {
		return nil, err
	}
	dir, err := repo.CacheDir("standin", k.Version)
	if err != nil {
		return nil, err
	}
	src := vm.ModuleSource{
		Dir:   filepath.Join(root, "tests/testfs"),
		Files: map[string]string{},
		Out:   filepath.Join(dir, "patched"),
	}
	from, err := os.MkdirTemp("", "series-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(from)
	for path, text := range NotifyFiles(s) {
		name := filepath.Base(path)
		src.Files[name] = filepath.Join(from, name)
		if err := os.WriteFile(src.Files[name], []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("take %s out of the series for %s: %w", path, s.Version, err)
		}
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
