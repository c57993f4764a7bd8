// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/kbuild"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// vars is for every make: EL8's source makes errors of warnings, of which newer compilers
// have more.
var vars = []string{"LOCALVERSION=", "DISABLE_WERROR=1", "WERROR=0"}

// rules changes when a tag's tree that an older version of this program made is not as one
// made now, apart from its configuration.
func rules(tag string) int {
	if isEL8(tag) {
		return 4
	}
	return 3
}

// isEL8 tells the kernels that were written for compilers older than those that are around.
func isEL8(tag string) bool { return strings.HasPrefix(tag, "4.18.") }

// kernel returns the folder of a tag's kernel, in the layout of vm.OpenKernel, or with
// -prepare the tree that modules are compiled against. It is made once for each source
// and compiler.
func (o *options) kernel(ctx context.Context, tag string) (string, error) {
	if kernelTag.FindString(tag) == "" {
		return "", fmt.Errorf("build %q: kernels have tags like 5.14.0-570.32.1.el9_6", tag)
	}
	commit, err := run.Output(ctx, "git", "-C", o.src, "rev-parse", "--verify", "--quiet", "--end-of-options", "refs/tags/"+tag+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("find the tag %s in EL_KERNEL_SRC %s: %w", tag, o.src, err)
	}
	gcc, err := run.Output(ctx, "gcc", "--version")
	if err != nil {
		return "", err
	}
	kind, cached := "el", repo.Continued
	if o.prepare || o.compile {
		kind, cached = "el-prepared", repo.Cached
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n%s\n%s\n%q", rules(tag), commit, gcc, changed, neededBy(tag)))
	dir, err := cached("kernels", fmt.Sprintf("%s-%s-%s", kind, tag, hex.EncodeToString(key[:4])), func(tmp string) error {
		start := time.Now()
		b := &kbuild.Builder{
			Dir: tmp, Tree: filepath.Join(tmp, "build"), Vars: vars,
			Say: func(format string, args ...any) {
				fmt.Fprintf(os.Stderr, "el: %s after %v: %s\n", tag, time.Since(start).Round(time.Second), fmt.Sprintf(format, args...))
			},
		}
		prepare := func(ctx context.Context) error { return o.prepareTree(ctx, tag, b) }
		if kind != "el" {
			return prepare(ctx)
		}
		return b.Build(ctx, 2900, prepare)
	})
	if err != nil {
		return "", fmt.Errorf("build kernel %s: %w", tag, err)
	}
	if kind != "el" {
		dir = filepath.Join(dir, "build")
	}
	return dir, nil
}

// prepareTree makes a tag's tree, for which modules can be compiled then.
func (o *options) prepareTree(ctx context.Context, tag string, b *kbuild.Builder) error {
	files, err := list(ctx, o.src, tag)
	if err != nil {
		return err
	}
	b.Say("extracting %d files", len(files))
	err = extract(ctx, o.src, b.Tree, files, func(path string) { b.Say("the repository lacks %s", path) })
	if err != nil {
		return err
	}
	if err := adjust(b.Tree, tag); err != nil {
		return err
	}
	if err := configure(ctx, b, tag, files); err != nil {
		return err
	}
	if err := checkRelease(ctx, b, tag); err != nil {
		return err
	}
	b.Say("preparing to compile")
	if _, err := b.Make(ctx, "modules_prepare"); err != nil {
		return fmt.Errorf("%w\nit may need the Debian packages bc bison flex libelf-dev libssl-dev", err)
	}
	b.Say("prepared")
	return nil
}

// adjust gives the tree the release that the distribution's package has, and lets compilers
// build it that are newer than it.
func adjust(tree, tag string) error {
	name := filepath.Join(tree, "Makefile")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	_, extra, _ := strings.Cut(release(tag), "-")
	line := regexp.MustCompile(`(?m)^EXTRAVERSION =.*$`)
	if !line.Match(text) {
		return errors.New("set the release: the Makefile has no EXTRAVERSION")
	}
	text = line.ReplaceAll(text, []byte("EXTRAVERSION = -"+extra))
	// Since gcc 9 the alias that module_init() makes has to have the function's attributes,
	// which Linux gives it from 5.1 on.
	text = append(text, "\nKBUILD_CFLAGS += -Wno-missing-attributes\n"...)
	// EL8's objtool does not know what newer compilers and assemblers write, and ends with a
	// segmentation fault. Without it the kernel's stack traces are guesses, and the rest is as
	// it was.
	if isEL8(tag) {
		const objtool = "\nifdef CONFIG_STACK_VALIDATION\n"
		if !bytes.Contains(text, []byte(objtool)) {
			return errors.New("leave objtool out: the Makefile does not say where it is used")
		}
		text = bytes.Replace(text, []byte(objtool), []byte("\nexport SKIP_STACK_VALIDATION := 1\nifdef CONFIG_NO_STACK_VALIDATION\n"), 1)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	// Up to Linux 5.7 start_secondary() sets the stack's canary and does not return, but gcc
	// from 10 on makes a jump of its last call and checks the canary before.
	if isEL8(tag) {
		name := filepath.Join(tree, "arch/x86/kernel/Makefile")
		if text, err = os.ReadFile(name); err != nil {
			return err
		}
		text = append(text, "\nCFLAGS_smpboot.o += -fno-stack-protector\n"...)
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
	}
	// EL8's objtool has no variable for it.
	objtool := filepath.Join(tree, "tools/objtool/Makefile")
	if text, err = os.ReadFile(objtool); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return os.WriteFile(objtool, regexp.MustCompile(`-Werror\s`).ReplaceAll(text, nil), 0o644)
}

// configure makes the tree's .config of the distribution's.
func configure(ctx context.Context, b *kbuild.Builder, tag string, files []file) error {
	var names []string
	for _, f := range files {
		names = append(names, f.path)
	}
	name := configName(names)
	if name == "" {
		return errors.New("find the distribution's configuration: no folder has a kernel-x86_64.config or kernel-x86_64-rhel.config")
	}
	text, err := os.ReadFile(filepath.Join(b.Tree, name))
	if err != nil {
		return err
	}
	layout, err := layoutOptions(b.Tree)
	if err != nil {
		return err
	}
	drivers, err := driverOptions(b.Tree)
	if err != nil {
		return err
	}
	file := filepath.Join(b.Tree, ".config")
	if err := os.WriteFile(file, []byte(cut(string(text), neededBy(tag), layout, drivers)), 0o644); err != nil {
		return err
	}
	if _, err := b.Make(ctx, "olddefconfig"); err != nil {
		return err
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if lost := dropped(string(text), string(got), layout, drivers); len(lost) > 0 {
		b.Say("of options that some structure depends on, these went with what they belong to: %s", strings.Join(lost, " "))
	}
	b.Say("%d options of %s, %d of the distribution's", strings.Count(string(got), "=y\n")+strings.Count(string(got), "=m\n"), name,
		strings.Count(string(text), "=y\n")+strings.Count(string(text), "=m\n"))
	return nil
}

// checkRelease checks that modules will have the version magic of the distribution's.
func checkRelease(ctx context.Context, b *kbuild.Builder, tag string) error {
	out, err := b.Make(ctx, "kernelrelease")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != release(tag) {
		return fmt.Errorf("the kernel calls itself %s, not %s", got, release(tag))
	}
	return nil
}
