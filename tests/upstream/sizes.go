// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// smaller gives the edits to tests that take too long in an emulated machine: they
// make up to millions of files, start tens of thousands of programs or write
// gigabytes. Edited, they take the same steps with less. -full runs them unedited.
var smaller = map[string][]edit{
	"large-fragmented-free": {
		{"tests", "EXTENTS_PER_LIST_BLOCK=8192", "EXTENTS_PER_LIST_BLOCK=82"},
	},
	"enospc": {
		{"tests", "t_scratch_mkfs -A -m 10G", "t_scratch_mkfs -A -m 6G"},
	},
	"srch-basic-functionality": {
		{"tests", "LOG=340000", "LOG=3400"},
		{"tests", "LIM=1000000", "LIM=10000"},
	},
	"totl-xattr-tag": {
		{"tests", "NR=5000", "NR=500"},
	},
	"totl-merge-read": {
		{"tests", "for i in $(seq 1 2500); do : >", "for i in $(seq 1 250); do : >"},
		{"tests", "for i in $(seq 1 2500); do\n", "for i in $(seq 1 250); do\n"},
	},
	"stage-release-race-alloc": {
		{"tests", "for r in $(seq 1 1000)", "for r in $(seq 1 40)"},
	},
	"lock-ex-race-processes": {
		{"tests", "COUNT=250", "COUNT=50"},
	},
	"stage-multi-part": {
		{"tests", "FILE_BYTES=$((4 * 1024 * 1024 * 1024))", "FILE_BYTES=$((256 * 1024 * 1024))"},
		{"tests", "FRAG_BYTES=$((128 * 1024 * 1024))", "FRAG_BYTES=$((8 * 1024 * 1024))"},
	},
	"createmany-large-names": {
		{"tests", "COUNT=100000", "COUNT=2000"},
	},
	"createmany-rename-large-dir": {
		{"tests", "NR=$((298 * 4096))", "NR=$((298 * 40))"},
		{"tests", "RENAMES=5000", "RENAMES=500"},
		{"golden", "with 1220608 files", "with 11920 files"},
		{"golden", "renaming 5000 files", "renaming 500 files"},
	},
	"createmany-parallel-mounts": {
		{"tests", "COUNT=50000", "COUNT=2000"},
	},
	"archive-light-cycle": {
		{"tests", "MEM_MEGS=$((MEM_MEGS / 2))", "MEM_MEGS=$((MEM_MEGS / 100))"},
		{"tests", "MAX_FILE_BYTES=$((1024 * 1024 * 1024))", "MAX_FILE_BYTES=$((8 * 1024 * 1024))"},
	},
}

// An edit changes one place of a test, in the folder of scripts or of golden
// outputs.
type edit struct {
	folder   string
	old, new string
}

// shrink makes the edits to those tests that are in order.
func shrink(files map[string]vm.File, tree string, order []string) error {
	for _, name := range order {
		for _, e := range smaller[name] {
			path := filepath.Join("tests", e.folder, name)
			if e.folder == "tests" {
				path += ".sh"
			}
			guest := "/upstream/" + path
			file := files[guest]
			if file.Data == nil {
				data, err := os.ReadFile(filepath.Join(tree, path))
				if err != nil {
					return fmt.Errorf("make a test smaller: %w", err)
				}
				file = vm.File{Data: data, Mode: file.Mode}
			}
			if n := strings.Count(string(file.Data), e.old); n != 1 {
				return fmt.Errorf("make %s smaller: %q occurs %d times, not once; change tests/upstream/sizes.go, or run it with -full", path, e.old, n)
			}
			file.Data = []byte(strings.Replace(string(file.Data), e.old, e.new, 1))
			files[guest] = file
		}
	}
	return nil
}
