// SPDX-License-Identifier: GPL-2.0-only

package kbuild

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is what Build asks of a kernel's Makefile. It compiles one file, and a second one if
// the folder has its source.
const tree = `
bzImage: first.o second.o
	@mkdir -p arch/x86/boot && cat first.o second.o > arch/x86/boot/bzImage
first.o:
	@echo "  CC      first.o"; echo x >> ../compiled; echo first > $@
second.o: second.c
	@echo "  CC      second.o"; cp $< $@
modules modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/9.9.9
kernelrelease:
	@echo 9.9.9
`

// What was compiled before a stop is not compiled again, and what was not configured is
// made anew.
func TestContinued(t *testing.T) {
	var said strings.Builder
	dir := t.TempDir()
	b := &Builder{Dir: dir, Tree: filepath.Join(dir, "build"), Say: func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }}
	configured := 0
	configure := func(makefile string) func(context.Context) error {
		return func(context.Context) error {
			configured++
			if err := os.Mkdir(b.Tree, 0o755); err != nil {
				return err
			}
			if makefile == "" {
				return os.ErrDeadlineExceeded
			}
			return os.WriteFile(filepath.Join(b.Tree, "Makefile"), []byte(makefile), 0o644)
		}
	}
	if err := b.Build(t.Context(), 2, configure("")); err == nil {
		t.Fatal("built a tree whose configuration failed")
	}
	if err := b.Build(t.Context(), 2, configure(tree)); err == nil || !strings.Contains(err.Error(), "second.c") {
		t.Fatalf("without second.c: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.Tree, "second.c"), []byte("second\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said.Reset()
	if err := b.Build(t.Context(), 2, configure(tree)); err != nil {
		t.Fatal(err)
	}
	if configured != 2 {
		t.Errorf("configured %d times, not twice", configured)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "compiled")); err != nil || string(got) != "x\n" {
		t.Errorf("first.o was compiled for each line of %q, %v", got, err)
	}
	if want := "going on with what was compiled before\n2 files compiled\nready\n"; said.String() != want {
		t.Errorf("said %q, not %q", said.String(), want)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "vmlinuz")); err != nil || string(got) != "first\nsecond\n" {
		t.Errorf("the image is %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "configured")); err == nil {
		t.Error("a finished build is marked as one to go on with")
	}
}
