// SPDX-License-Identifier: GPL-2.0-only

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// From v1.31 on, upstream has a command with number 25, too. Its direction and size
// must tell it apart from ours.
func TestCommandDiffersFromUpstreams(t *testing.T) {
	src := os.Getenv("SCOUTFS_SRC")
	if src == "" {
		t.Skip("SCOUTFS_SRC is not set: upstream's ioctl.h is needed")
	}
	all, err := repo.Series()
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
	for _, s := range all {
		v, dir := s.Version, t.TempDir()
		show := exec.CommandContext(t.Context(), "git", "show", v+":kmod/src/ioctl.h")
		show.Dir = src
		text, err := show.Output()
		if err != nil {
			t.Fatalf("git show %s:kmod/src/ioctl.h in SCOUTFS_SRC: %v", v, err)
		}
		for name, text := range map[string][]byte{"ioctl.h": text, "x.c": []byte(program),
			"notify_ioctl.h": []byte(s.Header())} {
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
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		v := s.Version
		t.Run(v, func(t *testing.T) {
			r := &checkout{t, filepath.Join(t.TempDir(), "scoutfs")}
			clone := exec.CommandContext(t.Context(), "git", "clone", "-q", "--shared", "--no-checkout", src, r.dir)
			if out, err := clone.CombinedOutput(); err != nil {
				t.Fatalf("git clone: %v\n%s", err, out)
			}
			r.git("checkout", "-q", "--detach", v)
			want := s.Paths()
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
