// SPDX-License-Identifier: GPL-2.0-only

// Package kbuild builds Linux from source into the layout of vm.OpenKernel.
package kbuild

import (
	"bufio"
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
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// A Builder is one build of a kernel.
type Builder struct {
	Dir  string   // to be filled
	Tree string   // the source, Dir/build: modules will be built against it
	Vars []string // for every make, such as LOCALVERSION=
	Say  func(format string, args ...any)
}

// Make runs make in the tree and returns what it prints.
func (b *Builder) Make(ctx context.Context, args ...string) (string, error) {
	return run.Output(ctx, slices.Concat([]string{"nice", "make", "-s", "-C", b.Tree}, b.Vars, args)...)
}

// Build has the tree made and configured, compiles it, of about so many files, and makes the
// layout of vm.OpenKernel. What an earlier Build in the same folder compiled before it was
// stopped stays: configure is called only if the tree is not ready to be compiled.
func (b *Builder) Build(ctx context.Context, about int, configure func(context.Context) error) error {
	mark := filepath.Join(b.Dir, "configured")
	if _, err := os.Stat(mark); err == nil {
		b.Say("going on with what was compiled before")
	} else {
		if err := b.empty(); err != nil {
			return err
		}
		if err := configure(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return err
		}
	}
	if err := b.compile(ctx, about); err != nil {
		return err
	}
	// From here on the tree is taken apart.
	if err := os.Remove(mark); err != nil {
		return err
	}
	if err := b.install(ctx); err != nil {
		return err
	}
	b.Say("ready")
	return nil
}

// empty removes what is left of a tree that was not configured, or was taken apart.
func (b *Builder) empty() error {
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(b.Dir, e.Name())); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
	}
	return nil
}

// compile builds the image and the modules, and counts the files while it does.
func (b *Builder) compile(ctx context.Context, about int) error {
	before, err := objects(b.Tree)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "nice", append([]string{"make", "-j" + strconv.Itoa(Jobs()), "-C", b.Tree, "bzImage", "modules"}, b.Vars...)...)
	cmd.Env = run.Environ()
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var msg bytes.Buffer
	cmd.Stderr = &msg
	if err := cmd.Start(); err != nil {
		return err
	}
	files, said := 0, time.Now()
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if !strings.HasPrefix(sc.Text(), "  CC ") && !strings.HasPrefix(sc.Text(), "  AS ") {
			continue
		}
		if files++; time.Since(said) > 15*time.Second {
			said = time.Now()
			b.Say("%d files compiled, of about %d", before+files, about)
		}
	}
	_, copyErr := io.Copy(io.Discard, out) // if a line was too long
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("make: %w; it may need the Debian packages bc bison flex libelf-dev libssl-dev\n%s", err, msg.String())
	}
	b.Say("%d files compiled", before+files)
	return copyErr
}

// objects counts the files of a tree that were compiled; make compiles a few of them again.
func objects(tree string) (n int, err error) {
	err = filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(path, ".o") {
			n++
		}
		return err
	})
	return n, err
}

// Jobs returns how many compilers run at once: JOBS of the environment, or 2.
func Jobs() int {
	if n, err := strconv.Atoi(os.Getenv("JOBS")); err == nil && n > 0 {
		return n
	}
	return 2
}

// keep are the parts of the tree that building a module needs, beside files that the
// Makefile includes, such as EL's Makefile.rhelver.
var keep = []string{".config", "Kconfig", "Makefile", "Module.symvers", "arch", "include", "scripts", "tools"}

// object matches what the build left that building a module does not need.
var object = regexp.MustCompile(`\.(o|a|ko|mod|cmd)$`)

// install makes the layout, and removes most of the 3 GB of the build.
func (b *Builder) install(ctx context.Context) error {
	version, err := b.Make(ctx, "kernelrelease")
	if err != nil {
		return err
	}
	version = strings.TrimSpace(version)
	if _, err := b.Make(ctx, "modules_install", "INSTALL_MOD_PATH="+b.Dir, "DEPMOD=true"); err != nil {
		return err
	}
	modules := filepath.Join(b.Dir, "lib/modules", version)
	for _, link := range []string{"build", "source"} {
		if err := os.Remove(filepath.Join(modules, link)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	depmod, err := run.Tool("depmod", "kmod")
	if err != nil {
		return err
	}
	if _, err := run.Output(ctx, depmod, "-b", b.Dir, version); err != nil {
		return err
	}
	// Not vmlinux.pvh: that entry point runs before KASAN's shadow memory exists.
	if err := os.Rename(filepath.Join(b.Tree, "arch/x86/boot/bzImage"), filepath.Join(b.Dir, "vmlinuz")); err != nil {
		return err
	}
	return b.prune()
}

func (b *Builder) prune() error {
	entries, err := os.ReadDir(b.Tree)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.Contains(keep, e.Name()) || strings.HasPrefix(e.Name(), "Makefile.") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(b.Tree, e.Name())); err != nil {
			return err
		}
	}
	return filepath.WalkDir(filepath.Join(b.Tree, "arch"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !object.MatchString(path) {
			return err
		}
		return os.Remove(path)
	})
}
