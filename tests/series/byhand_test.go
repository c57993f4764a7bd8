// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// TestByHand takes a series to a new release with git, a text editor and apply.sh alone,
// up to the tag: a person can do without this tool, and what they make is as good.
func TestByHand(t *testing.T) {
	u := newUpstream(t)
	changed := strings.Replace(readIter, "\tstand_in_unlock(iocb);\n\n\treturn ret;", "\treturn stand_in_unlock(iocb, ret);", 1)
	u.commit("v1.3", map[string]string{"kmod/src/file.c": fileH + changed + tailC})
	u.git("tag", "v1.3")

	// The project, as it is cloned.
	project := filepath.Dir(u.patches)
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apply.sh", "packaging/scoutfs-notify.spec", "dkms/kernels.txt", "tests/go.mod"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(project, name), string(text))
	}
	if err := os.Chmod(filepath.Join(project, "apply.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(project, "patches/RELEASE"), "4\n")
	put(t, filepath.Join(project, "packaging/changelog"), "* Mon Nov 23 2026 Somebody <some@body.invalid> - 4\n- ScoutFS v1.3.\n")
	do := func(dir string, argv ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_EDITOR=true",
			"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(dir string, argv ...string) string {
		t.Helper()
		out, err := do(dir, argv...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
		return strings.TrimSpace(out)
	}

	// Apply the old one, and carry it over.
	work := filepath.Join(project, "work")
	must(project, "git", "clone", "-q", "--branch", "v1.1", u.dir, work)
	must(project, "./apply.sh", "v1.1", work)
	if out, err := do(work, "git", "rebase", "--onto", "v1.3", "v1.1"); err == nil {
		t.Fatalf("no conflict, so there is nothing to do by hand:\n%s", out)
	}
	put(t, filepath.Join(work, "kmod/src/file.c"), strings.Replace(fileH, "\"per_task.h\"\n", "\"per_task.h\"\n#include \"notify.h\"\n", 1)+
		strings.Replace(changed, "\treturn stand", "\tscoutfs_notify_read(iocb, ret);\n\treturn stand", 1)+tailC)
	must(work, "git", "add", "-A")
	must(work, "git", "rebase", "--continue")

	// Write it.
	folder := filepath.Join(project, "patches/v1.3")
	must(work, "git", "format-patch", "-o", folder, "--zero-commit", "--no-signature", "--no-numbered", "--full-index", "v1.3")
	put(t, filepath.Join(folder, "base.txt"), "v1.3\n")
	contains(t, u.must("check", "v1.3"), "v1.3: 3 patches are good")

	// Who takes it gets what was made.
	user := filepath.Join(project, "user")
	must(project, "git", "clone", "-q", "--branch", "v1.3", u.dir, user)
	must(project, "./apply.sh", user)
	if made, got := must(work, "git", "rev-parse", "HEAD^{tree}"), must(user, "git", "rev-parse", "HEAD^{tree}"); made != got {
		t.Errorf("apply.sh makes the tree %s, not %s", got, made)
	}

	// Tag it. The tool for packages is a program of its own.
	packages := filepath.Join(t.TempDir(), "packages")
	must(root, "go", "build", "-C", "tests", "-o", packages, "./packages")
	must(project, "rm", "-r", work, user)
	must(project, "git", "init", "-q", "-b", "main")
	must(project, "git", "add", "-A")
	must(project, "git", "commit", "-q", "-m", "Support ScoutFS v1.3")
	contains(t, must(project, packages, "release", "-n"), "would tag", "v1.1-notify-4 v1.3-notify-4")
	must(project, packages, "release")
	if tags := must(project, "git", "tag", "--points-at", "HEAD"); tags != "v1.1-notify-4\nv1.3-notify-4" {
		t.Errorf("the tags are %q", tags)
	}
}

// put writes a file and the folders that it is in.
func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
