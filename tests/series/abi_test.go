// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// folders returns the versions that have a series.
func folders(t *testing.T, root string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "patches/v*/base.txt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no series: %v", err)
	}
	for i := range names {
		names[i] = filepath.Base(filepath.Dir(names[i]))
	}
	return names
}

// header returns the interface's header as git apply creates it from a series.
func header(t *testing.T, folder string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "0001-*.patch"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s must have one 0001-*.patch: %v %v", folder, names, err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "git", "apply", "--include=kmod/src/notify_ioctl.h", names[0])
	cmd.Dir, cmd.Env = dir, env("GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git apply: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "kmod/src/notify_ioctl.h"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// All releases have the same header, byte for byte, and give a C program the same
// command number and sizes.
func TestABI(t *testing.T) {
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	const program = `#include <stdio.h>
#include "notify_ioctl.h"
int main(void)
{
	printf("%#lx %zu %zu\n", (unsigned long)SCOUTFS_IOC_READ_NOTIFY,
	       sizeof(struct scoutfs_notify_record), sizeof(struct scoutfs_ioctl_read_notify));
	return 0;
}
`
	var first []byte
	for _, v := range folders(t, root) {
		text := header(t, filepath.Join(root, "patches", v))
		if first == nil {
			first = text
		} else if !slices.Equal(first, text) {
			t.Errorf("%s: notify_ioctl.h differs", v)
		}
		dir := t.TempDir()
		for name, text := range map[string][]byte{"notify_ioctl.h": text, "x.c": []byte(program)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		bin := filepath.Join(dir, "x")
		if out, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", bin, filepath.Join(dir, "x.c")).CombinedOutput(); err != nil {
			t.Fatalf("%s: compile the header by itself: %v\n%s", v, err, out)
		}
		out, err := exec.CommandContext(t.Context(), bin).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := "0xc020e819 64 32\n"; string(out) != want {
			t.Errorf("%s: command and sizes are %q, not %q", v, out, want)
		}
	}
}

// From v1.31 on, upstream has a command with number 25, too. Its direction and size
// must tell it apart from ours.
func TestCommandDiffersFromUpstreams(t *testing.T) {
	src := os.Getenv("SCOUTFS_SRC")
	if src == "" {
		t.Skip("SCOUTFS_SRC is not set: upstream's ioctl.h is needed")
	}
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	const program = `#include <stdio.h>
#include <linux/types.h>
#include "ioctl.h"
#include "notify_ioctl.h"
int main(void)
{
	printf("%#lx %#lx\n", (unsigned long)SCOUTFS_IOC_READ_NOTIFY,
#ifdef SCOUTFS_IOC_INJECT_TOTL_DELTA
	       (unsigned long)SCOUTFS_IOC_INJECT_TOTL_DELTA);
#else
	       0UL);
#endif
	return 0;
}
`
	taken := 0
	for _, v := range folders(t, root) {
		dir := t.TempDir()
		show := exec.CommandContext(t.Context(), "git", "show", v+":kmod/src/ioctl.h")
		show.Dir = src
		text, err := show.Output()
		if err != nil {
			t.Fatalf("git show %s:kmod/src/ioctl.h in SCOUTFS_SRC: %v", v, err)
		}
		for name, text := range map[string][]byte{"ioctl.h": text, "x.c": []byte(program),
			"notify_ioctl.h": header(t, filepath.Join(root, "patches", v))} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		bin := filepath.Join(dir, "x")
		if out, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-Werror", "-o", bin, filepath.Join(dir, "x.c")).CombinedOutput(); err != nil {
			t.Fatalf("%s: compile: %v\n%s", v, err, out)
		}
		out, err := exec.CommandContext(t.Context(), bin).Output()
		if err != nil {
			t.Fatal(err)
		}
		var ours, theirs uint64
		if _, err := fmt.Sscanf(string(out), "%v %v", &ours, &theirs); err != nil {
			t.Fatalf("%s: the program printed %q", v, out)
		}
		if theirs != 0 {
			taken++
			if ours&0xffff != theirs&0xffff {
				t.Logf("%s: upstream's command no longer has the same number: %s", v, strings.TrimSpace(string(out)))
			}
		}
		if ours == theirs {
			t.Errorf("%s: both commands are %#x", v, ours)
		}
	}
	if taken == 0 {
		t.Error("no release has SCOUTFS_IOC_INJECT_TOTL_DELTA, which v1.31 added")
	}
}

// apply.sh on real ScoutFS, with and without a version.
func TestApplyReal(t *testing.T) {
	src := os.Getenv("SCOUTFS_SRC")
	if src == "" {
		t.Skip("SCOUTFS_SRC is not set: a ScoutFS repository with tags is needed")
	}
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(root, "apply.sh")
	for _, v := range folders(t, root) {
		t.Run(v, func(t *testing.T) {
			r := &checkout{t, filepath.Join(t.TempDir(), "scoutfs")}
			clone := exec.CommandContext(t.Context(), "git", "clone", "-q", "--shared", "--no-checkout", src, r.dir)
			if out, err := clone.CombinedOutput(); err != nil {
				t.Fatalf("git clone: %v\n%s", err, out)
			}
			r.git("checkout", "-q", "--detach", v)
			want, err := filepath.Glob(filepath.Join(root, "patches", v, "*.patch"))
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{r.dir}, {v, r.dir}} {
				r.git("checkout", "-q", "--detach", v)
				if out, errs, status := apply(t, script, env(gitIdentity...), args...); status != 0 {
					t.Fatalf("apply.sh %v: exit status %d\n%s%s", args, status, out, errs)
				}
				if n := r.git("rev-list", "--count", v+"..HEAD"); n != fmt.Sprint(len(want)) {
					t.Errorf("apply.sh %v: %s commits on %s for %d patches", args, n, v, len(want))
				}
			}
			// git am without --3way gives the same tree.
			merged := r.git("rev-parse", "HEAD^{tree}")
			r.git("checkout", "-q", "--detach", v)
			for _, p := range want {
				r.git("am", "-q", p)
			}
			if strict := r.git("rev-parse", "HEAD^{tree}"); strict != merged {
				t.Error("git am without --3way gives another tree")
			}
		})
	}
}
