// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/kbuild"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// kernels are the sanitizer kernels, each with a file of its own in config.
var kernels = []string{"kasan", "kcsan"}

// baseKernel is the kernel of vm.Kernel whose source they are built from.
const baseKernel = "debian11"

//go:embed config
var configs embed.FS

// configuration returns that of a kernel, as lines for its .config.
func configuration(name string) (string, error) {
	var all strings.Builder
	for _, file := range []string{"machine", name} {
		text, err := configs.ReadFile("config/" + file + ".config")
		if err != nil {
			return "", fmt.Errorf("find kernel %q: no such one; there are %s", name, strings.Join(kernels, " and "))
		}
		all.Write(text)
	}
	return all.String(), nil
}

// buildKernel returns the folder, for vm.OpenKernel and KERNEL_DIR, with a sanitizer
// kernel. It is built once for each source, configuration and compiler.
func buildKernel(ctx context.Context, name string) (string, error) {
	config, err := configuration(name)
	if err != nil {
		return "", err
	}
	archive, err := vm.KernelSource(ctx, baseKernel)
	if err != nil {
		return "", err
	}
	gcc, err := run.Output(ctx, "gcc", "--version")
	if err != nil {
		return "", err
	}
	st, err := os.Stat(archive)
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s %d\n%s\n%s", filepath.Base(archive), st.Size(), gcc, config))
	dir, err := repo.Continued("kernels", name+"-"+hex.EncodeToString(key[:6]), func(tmp string) error {
		start := time.Now()
		b := &kbuild.Builder{Dir: tmp, Tree: filepath.Join(tmp, "build"), Say: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, "sanitize: %s after %v: %s\n", name, time.Since(start).Round(time.Second), fmt.Sprintf(format, args...))
		}}
		return b.Build(ctx, 1300, func(ctx context.Context) error { return prepare(ctx, b, archive, config) })
	})
	if err != nil {
		return "", fmt.Errorf("build kernel %s: %w", name, err)
	}
	return dir, nil
}

func prepare(ctx context.Context, b *kbuild.Builder, archive, config string) error {
	b.Say("unpacking %s", filepath.Base(archive))
	if err := vm.UnpackSource(ctx, archive, b.Tree); err != nil {
		return err
	}
	if err := excuse(b.Tree); err != nil {
		return err
	}
	return configure(ctx, b, config)
}

// plain are folders of code that this project's does not reach with anything of its own.
// Instrumented they would take twice as long to compile.
var plain = []string{
	"arch/x86/events", "arch/x86/pci", "crypto", "drivers/acpi", "drivers/base", "drivers/char", "drivers/clocksource",
	"drivers/pci", "drivers/tty", "net/core", "net/ethtool", "net/ipv4", "net/netlink", "net/sched",
}

// excuse has the compiler leave those as they are.
func excuse(tree string) error {
	for _, dir := range plain {
		err := filepath.WalkDir(filepath.Join(tree, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.Name() != "Makefile" {
				return err
			}
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("\nKASAN_SANITIZE := n\nKCSAN_SANITIZE := n\nUBSAN_SANITIZE := n\n")
			return errors.Join(err, f.Close())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// configure writes the tree's .config. Kconfig silently drops what depends on something
// that is missing, so each option is looked for afterwards.
func configure(ctx context.Context, b *kbuild.Builder, config string) error {
	if _, err := b.Make(ctx, "tinyconfig"); err != nil {
		return err
	}
	file := filepath.Join(b.Tree, ".config")
	tiny, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// Of two lines for an option, Kconfig takes the later one.
	if err := os.WriteFile(file, append(tiny, config...), 0o644); err != nil {
		return err
	}
	if _, err := b.Make(ctx, "olddefconfig"); err != nil {
		return err
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return checkConfig(string(got), config)
}

// checkConfig returns an error that names the options of want that a .config has not.
func checkConfig(got, want string) error {
	set := map[string]string{}
	for line := range strings.Lines(got) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			set[name] = value
		}
	}
	var missing []string
	for line := range strings.Lines(want) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if has := set[name]; has != value && (value != "n" || has != "") {
			missing = append(missing, fmt.Sprintf("%s=%s is %q", name, value, has))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("configure the kernel: Kconfig does not take %s", strings.Join(missing, ", "))
	}
	return nil
}
