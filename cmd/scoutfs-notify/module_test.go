// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// moduleWorld makes what a node has of modules: the loaded one (nil: none, "": it does
// not say) and, for each kernel, the one that it would load ("none": none).
func moduleWorld(t *testing.T, env *environment, loaded *string, running string, kernels map[string]string) {
	t.Helper()
	root := t.TempDir()
	env.modules, env.kernels, env.proc = filepath.Join(root, "module"), filepath.Join(root, "lib"), filepath.Join(root, "proc")
	write(t, filepath.Join(env.proc, "sys/kernel/osrelease"), running+"\n")
	if loaded != nil {
		mkdir(t, filepath.Join(env.modules, "scoutfs"))
		if *loaded != "" {
			write(t, filepath.Join(env.modules, "scoutfs/notes/.note.git_describe"), *loaded+"\n")
		}
	}
	for k := range kernels {
		mkdir(t, filepath.Join(env.kernels, k, "kernel"))
	}
	mkdir(t, filepath.Join(env.kernels, "left-behind", "extra"))
	env.modinfo = func(_ context.Context, kernel string) (file, describe string, err error) {
		switch m, ok := kernels[kernel]; {
		case !ok:
			return "", "", fmt.Errorf("asked for kernel %s", kernel)
		case m == "none":
			return "", "", nil
		default:
			return "/lib/modules/" + kernel + "/extra/scoutfs.ko", m, nil
		}
	}
}

func TestModules(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, tt := range []struct {
		name    string
		loaded  *string
		kernels map[string]string
		want    string
	}{
		{"as it should be", text("v1.30-notify-1"), map[string]string{"5.2": "v1.30-notify-1"},
			"v1.30-notify-1\nv1.30-notify-1 (kernel 5.2, which runs)"},
		{"before a restart", text("v1.30"), map[string]string{"5.1": "none", "5.2": "v1.30-notify-1", "5.3": "v1.30"},
			"v1.30; v1.30-notify-1 takes its place after all ScoutFS are unmounted and modprobe -r scoutfs\n" +
				"v1.30-notify-1 (kernel 5.2, which runs), none (kernel 5.1), v1.30 (kernel 5.3)"},
		{"removed", text("v1.30"), map[string]string{"5.2": "none"}, "v1.30\nnone (kernel 5.2, which runs)"},
		{"not loaded", nil, map[string]string{"5.2": "v1.30"}, "none\nv1.30 (kernel 5.2, which runs)"},
		{"do not say", text(""), map[string]string{"5.2": ""},
			"one that does not say which it is\none that does not say which it is (kernel 5.2, which runs)"},
		{"strange", text("v1\x1b[2J"), map[string]string{"5.1": "v1\x1b[2J"}, `v1\x1b[2J` + "\n" + `v1\x1b[2J (kernel 5.1)`},
		{"no kernels", nil, nil, "none\nnot known: there is no kernel here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := &environment{}
			moduleWorld(t, env, tt.loaded, "5.2", tt.kernels)
			m, err := readModules(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.loaded() + "\n" + m.nextBoot(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestModulesWithout(t *testing.T) {
	env := &environment{}
	moduleWorld(t, env, nil, "5.2", map[string]string{"5.2": "v1"})
	env.modinfo = func(context.Context, string) (string, string, error) {
		return "", "", fmt.Errorf("find modinfo: %w", exec.ErrNotFound)
	}
	m, err := readModules(t.Context(), env)
	if err != nil || m.nextBoot() != "not known: there is no modinfo" {
		t.Errorf("without modinfo: %v, %v", m, err)
	}
	env.modinfo = func(context.Context, string) (string, string, error) { return "", "", os.ErrPermission }
	if _, err := readModules(t.Context(), env); !errors.Is(err, os.ErrPermission) {
		t.Errorf("modinfo that cannot be run: %v", err)
	}
}

// TestModinfo asks a program that answers as kmod's does.
func TestModinfo(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
[ "$1 $3 $5" = "-k -F scoutfs" ] || exit 2
case $2,$4 in
5.1,filename) echo /lib/modules/5.1/extra/scoutfs.ko ;;
5.1,git_describe) echo v1.30-notify-1 ;;
5.2,filename) echo /lib/modules/5.2/extra/scoutfs.ko ;;
5.2,git_describe) ;;
*) echo "modinfo: ERROR: Module scoutfs not found." >&2; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "modinfo"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for kernel, want := range map[string][2]string{
		"5.1": {"/lib/modules/5.1/extra/scoutfs.ko", "v1.30-notify-1"},
		"5.2": {"/lib/modules/5.2/extra/scoutfs.ko", ""},
		"5.3": {"", ""},
	} {
		file, describe, err := modinfo(t.Context(), kernel)
		if err != nil || file != want[0] || describe != want[1] {
			t.Errorf("kernel %s: %q, %q, %v", kernel, file, describe, err)
		}
	}
}

// TestStatModules: stat shows them, in both forms.
func TestStatModules(t *testing.T) {
	w := newStatWorld(t)
	stock := "v1.30"
	moduleWorld(t, w.env, &stock, "5.2", map[string]string{"5.1": "none", "5.2": "v1.30-notify-1"})
	run(t.Context(), w.env, []string{"stat", w.mount})
	for _, want := range []string{
		"\nmodule       v1.30; v1.30-notify-1 takes its place",
		"\nnext boot    v1.30-notify-1 (kernel 5.2, which runs), none (kernel 5.1)\n",
	} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in\n%s", want, &w.out)
		}
	}
	w.out.Reset()
	run(t.Context(), w.env, []string{"stat", "-json", w.mount})
	var got struct{ Module modules }
	if err := json.Unmarshal(w.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := modules{Loaded: "v1.30", Kernels: []kernelModule{
		{Kernel: "5.2", Running: true, File: "/lib/modules/5.2/extra/scoutfs.ko", Module: "v1.30-notify-1"}, {Kernel: "5.1"}}}
	if !reflect.DeepEqual(got.Module, want) {
		t.Errorf("got %+v from\n%s", got.Module, &w.out)
	}
}
