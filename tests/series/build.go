// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// errBuild means that the source does not build. Missing tools are other errors.
var errBuild = errors.New("the module does not build")

var warning = regexp.MustCompile(`(?i)\b(warning|error)\b`)

// build runs upstream's own build of the module: sparse on every file, warnings
// as errors. Warnings that upstream lets pass are errors here, too.
func (c *clone) build(ctx context.Context, kbuild string) error {
	kbuild, err := filepath.Abs(kbuild)
	if err != nil {
		return err
	}
	for _, tool := range []string{"sparse", "make", "gcc"} {
		if _, err := run.Tool(tool, tool); err != nil {
			return fmt.Errorf("build the module: %w", err)
		}
	}
	if _, err := os.Stat(filepath.Join(kbuild, "Makefile")); err != nil {
		return fmt.Errorf("build the module: %w; name a kernel's build directory", err)
	}
	cmd := run.Command{Dir: c.dir, Env: run.GitAlone,
		Argv: []string{"nice", "make", "-s", "-C", "kmod", "-j", fmt.Sprint(runtime.NumCPU()), "SK_KSRC=" + kbuild}}
	text, err := cmd.Combined(ctx)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		if perr := probe(ctx, kbuild); perr != nil {
			return perr
		}
		return fmt.Errorf("%w: in %s: %w", errBuild, c.dir, err)
	}
	for line := range strings.Lines(text) {
		// modpost's warnings do not fail the build. A compiler that is not the
		// kernel's is not the series' fault.
		if warning.MatchString(line) && !strings.Contains(line, "the compiler differs") {
			return fmt.Errorf("%w: %s in %s warns:\n%s", errBuild, strings.Join(cmd.Argv, " "), c.dir, strings.TrimSpace(text))
		}
	}
	return nil
}

// probe builds an empty module. If that fails, too, the fault is in the compiler, the
// kernel's build directory or the disk.
func probe(ctx context.Context, kbuild string) error {
	dir, err := os.MkdirTemp("", "series-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"Makefile": "obj-m := probe.o\n",
		"probe.c":  "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := run.Output(ctx, "make", "-s", "-C", kbuild, "M="+dir, "modules"); err != nil {
		return fmt.Errorf("build an empty module against %s: %w\nname a complete build directory, such as kernel-devel's or linux-headers'", kbuild, err)
	}
	return nil
}
