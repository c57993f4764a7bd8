// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// modules are the ScoutFS modules of this node. A module is named by what it says of
// itself, its git_describe: v1.30-notify-1, or v1.30 for the stock one.
type modules struct {
	Loaded  string         `json:"loaded"`  // "" if none is loaded, or it does not say
	Kernels []kernelModule `json:"kernels"` // the installed kernels, the running one first; nil if there is no modinfo

	isLoaded bool
}

// kernelModule is the module that a kernel would load when it boots.
type kernelModule struct {
	Kernel  string `json:"kernel"`
	Running bool   `json:"running"`
	File    string `json:"file"`         // "" if it finds none
	Module  string `json:"git_describe"` // "" if it finds none, or it does not say
}

// readModules finds out which module is loaded, from sysfs, and which one each installed
// kernel would load, from modinfo, which reads the same index as modprobe.
func readModules(ctx context.Context, env *environment) (*modules, error) {
	m := &modules{}
	switch _, err := os.Stat(filepath.Join(env.modules, "scoutfs")); {
	case err == nil:
		m.isLoaded = true
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	// ScoutFS has it in a note for this. There is none without, or on a kernel without
	// them.
	note, err := os.ReadFile(filepath.Join(env.modules, "scoutfs/notes/.note.git_describe"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m.Loaded = strings.TrimSpace(string(note))

	release, err := os.ReadFile(filepath.Join(env.proc, "sys/kernel/osrelease"))
	if err != nil {
		return nil, err
	}
	running := strings.TrimSpace(string(release))
	kernels, err := filepath.Glob(filepath.Join(env.kernels, "*", "kernel"))
	if err != nil {
		return nil, err
	}
	found := []kernelModule{}
	for _, dir := range kernels {
		k := kernelModule{Kernel: filepath.Base(filepath.Dir(dir))}
		k.Running = k.Kernel == running
		k.File, k.Module, err = env.modinfo(ctx, k.Kernel)
		if errors.Is(err, exec.ErrNotFound) {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if k.Running {
			found = append([]kernelModule{k}, found...)
		} else {
			found = append(found, k)
		}
	}
	m.Kernels = found
	return m, nil
}

// modinfo returns the file of the module that a kernel would load and its git_describe,
// both empty if it finds none.
func modinfo(ctx context.Context, kernel string) (file, describe string, err error) {
	program, err := exec.LookPath("modinfo")
	if errors.Is(err, exec.ErrNotFound) { // not every user has it in the path
		program, err = exec.LookPath("/usr/sbin/modinfo")
	}
	if errors.Is(err, os.ErrNotExist) {
		err = exec.ErrNotFound
	}
	if err != nil {
		return "", "", fmt.Errorf("find modinfo: %w", err)
	}
	for field, value := range map[string]*string{"filename": &file, "git_describe": &describe} {
		cmd := exec.CommandContext(ctx, program, "-k", kernel, "-F", field, "scoutfs")
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && ctx.Err() == nil {
			continue // no such module, or one that cannot be read
		}
		if err != nil {
			return "", "", fmt.Errorf("run modinfo for kernel %s: %w", kernel, err)
		}
		*value = strings.TrimSpace(string(out))
	}
	return file, describe, nil
}

// named returns how people read a module's name.
func named(describe string, there bool) string {
	switch {
	case !there:
		return "none"
	case describe == "":
		return "one that does not say which it is"
	}
	return printable(describe)
}

// loaded says which module is loaded, and what to do if it is not the one that this
// kernel would load.
func (m *modules) loaded() string {
	text := named(m.Loaded, m.isLoaded)
	for _, k := range m.Kernels {
		if k.Running && m.isLoaded && k.File != "" && m.Loaded != "" && k.Module != m.Loaded {
			text += fmt.Sprintf("; %s takes its place after all ScoutFS are unmounted and modprobe -r scoutfs", named(k.Module, true))
		}
	}
	return text
}

// nextBoot says which module each kernel loads when it boots.
func (m *modules) nextBoot() string {
	switch {
	case m.Kernels == nil:
		return "not known: there is no modinfo"
	case len(m.Kernels) == 0:
		return "not known: there is no kernel here"
	}
	var parts []string
	for _, k := range m.Kernels {
		kernel := printable(k.Kernel)
		if k.Running {
			kernel += ", which runs"
		}
		parts = append(parts, fmt.Sprintf("%s (kernel %s)", named(k.Module, k.File != ""), kernel))
	}
	return strings.Join(parts, ", ")
}
