// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func TestShrink(t *testing.T) {
	const name = "createmany-rename-large-dir"
	script, golden := "tests/tests/"+name+".sh", "tests/golden/"+name
	upstream := map[string]string{
		script: "NR=$((298 * 4096))\nRENAMES=5000\n",
		golden: "== create large directory with 1220608 files\n== randomly renaming 5000 files\n",
	}
	for _, tt := range []struct {
		name   string
		script string // instead of upstream's
		order  []string
		want   map[string]string
		err    string
	}{
		{name: "smaller", order: []string{"quota", name}, want: map[string]string{
			script: "NR=$((298 * 40))\nRENAMES=500\n",
			golden: "== create large directory with 11920 files\n== randomly renaming 500 files\n",
		}},
		{name: "does not run", order: []string{"quota"}},
		{name: "changed upstream", order: []string{name}, script: "NR=1000\nRENAMES=5000\n", err: "0 times"},
		{name: "twice", order: []string{name}, script: strings.Repeat(upstream[script], 2), err: "2 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := t.TempDir()
			files := map[string]vm.File{}
			for path, text := range upstream {
				if path == script && tt.script != "" {
					text = tt.script
				}
				file := filepath.Join(tree, path)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				files["/upstream/"+path] = vm.File{Source: file, Mode: 0o644}
			}
			err := shrink(files, tree, tt.order)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, not one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for path, f := range files {
				if f.Data != nil {
					got[strings.TrimPrefix(path, "/upstream/")] = string(f.Data)
				}
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("changed: %q, not %q", got, tt.want)
			}
		})
	}
}
