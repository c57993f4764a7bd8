// SPDX-License-Identifier: GPL-2.0-only

// Package standin builds the stand-in file system of tests/testfs with the
// notify files of the newest series, unchanged.
package standin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/plant"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// Scoutfs is a shell script that replaces ScoutFS's command on the stand-in. It
// only knows "statfs -s fsid -p DIR", and prints the fsid of the first mount,
// whatever DIR is.
const Scoutfs = `#!/bin/sh
set -eu
[ "$*" = "statfs -s fsid -p $5" ] || { echo "scoutfs: the stand-in only knows statfs -s fsid -p DIR" >&2; exit 1; }
set -- /sys/fs/scoutfs/f.*/fsid
cat "$1"
`

// NotifyFiles returns the text of the kernel files that s adds, kmod/src/notify*,
// by path.
func NotifyFiles(s *series.Series) map[string]string {
	files := map[string]string{}
	for path, text := range s.Added() {
		if strings.HasPrefix(path, "kmod/src/notify") {
			files[path] = text
		}
	}
	return files
}

// Modules holds the paths of the stand-in's two builds.
type Modules struct{ Patched, Unpatched string }

// Build builds the stand-in for k, with the newest series' notify files and
// without them. The environment's [plant.Env] puts a bug into them.
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
		Out:   filepath.Join(dir, "patched"+os.Getenv(plant.Env)),
	}
	from, err := os.MkdirTemp("", "series-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(from)
	for path, text := range NotifyFiles(s) {
		name := filepath.Base(path)
		if text, err = plant.Apply(os.Getenv(plant.Env), path, text); err != nil {
			return nil, err
		}
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
