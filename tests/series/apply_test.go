// SPDX-License-Identifier: GPL-2.0-only

// Package main_test tests apply.sh and what the series of all releases share, with
// a user's tools: git, sh and a C compiler.
package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// env returns an environment without the user's git configuration, and without
// the variables of a hook that runs this test, followed by more.
func env(more ...string) []string {
	e := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "GIT_") || strings.HasPrefix(e, "EMAIL=")
	})
	e = append(e, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
	return append(e, more...)
}

var gitIdentity = []string{"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org"}

// checkout is a test's repository.
type checkout struct {
	t   *testing.T
	dir string
}

func (r *checkout) git(args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", args...)
	cmd.Dir, cmd.Env = r.dir, env(gitIdentity...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *checkout) write(path, text string) {
	r.t.Helper()
	file := filepath.Join(r.dir, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *checkout) commit(message string) {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", message)
}

// state describes everything in a checkout that a failed apply.sh must not change.
func (r *checkout) state() string {
	r.t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, r.git("rev-parse", "HEAD"), r.git("rev-parse", "--abbrev-ref", "HEAD"))
	fmt.Fprintln(&b, r.git("ls-files", "--stage"))
	fmt.Fprintln(&b, r.git("for-each-ref"))
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		fmt.Fprint(&b, path)
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(text))
		}
		fmt.Fprintln(&b)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range []string{"rebase-apply", "rebase-merge", "MERGE_HEAD", "index.lock"} {
		if _, err := os.Stat(filepath.Join(r.git("rev-parse", "--absolute-git-dir"), f)); err == nil {
			fmt.Fprintln(&b, f)
		}
	}
	return b.String()
}

// apply runs a copy of apply.sh and returns its output and exit status.
func apply(t *testing.T, script string, environ []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), script, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// body, other and third have little in common, because git takes similar files for
// renamed ones.
const (
	body  = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n"
	other = "eins\nzwei\ndrei\nvier\nfünf\nsechs\nsieben\nacht\n"
	third = "un\ndeux\ntrois\nquatre\ncinq\nsix\nsept\nhuit\n"
)

// standIn makes a repository with the releases v1.1 and v1.2, their series, and a
// copy of apply.sh beside those. The checkout is at v1.1.
func standIn(t *testing.T) (r *checkout, script string) {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	// Users have spaces in paths.
	top := filepath.Join(t.TempDir(), "a folder")
	r = &checkout{t, filepath.Join(top, "scout fs")}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	r.write("kmod/src/super.c", body)
	r.write("kmod/src/file.c", other)
	r.write("kmod/src/data.c", third)
	r.commit("v1.1")
	r.git("tag", "-a", "-m", "v1.1", "v1.1")
	r.write("README", "more\n")
	r.commit("v1.2")
	r.git("tag", "v1.2")
	r.write("README", "still more\n")
	r.commit("after v1.2")

	text, err := os.ReadFile(filepath.Join(root, "apply.sh"))
	if err != nil {
		t.Fatal(err)
	}
	script = filepath.Join(top, "apply.sh")
	if err := os.WriteFile(script, text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v1.1", "v1.2"} {
		r.git("checkout", "-q", "--detach", v)
		r.write("kmod/src/notify_ioctl.h", "#define NR 25\n")
		r.write("kmod/src/super.c", strings.Replace(body, "four\n", "four\nstop\n", 1))
		r.write("kmod/src/data.c", strings.Replace(third, "quatre\n", "quatre\nopen\n", 1))
		r.commit("first")
		r.write("kmod/src/file.c", strings.Replace(other, "fünf\n", "fünf\nhook\n", 1))
		r.commit("second")
		folder := filepath.Join(top, "patches", v)
		r.git("format-patch", "-q", "-o", folder, "--full-index", "--zero-commit", "--no-signature", v)
		if err := os.WriteFile(filepath.Join(folder, "base.txt"), []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.git("checkout", "-q", "-b", "work", "v1.1")
	return r, script
}

func TestApply(t *testing.T) {
	for _, tt := range []struct {
		name, at string
		version  []string
		sub      string
		env      []string
	}{
		{"finds the series", "v1.1", nil, "", gitIdentity},
		{"finds another", "v1.2", nil, "", gitIdentity},
		{"accepts a version", "v1.2", []string{"v1.2"}, "", gitIdentity},
		{"from a folder inside", "v1.1", nil, "kmod/src", gitIdentity},
		{"no committer known", "v1.1", nil, "", []string{"HOME=/nonexistent", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=user.useConfigOnly", "GIT_CONFIG_VALUE_0=true"}},
		{"user's settings", "v1.1", nil, "", slices.Concat(gitIdentity, []string{"GIT_CONFIG_COUNT=3",
			"GIT_CONFIG_KEY_0=commit.gpgSign", "GIT_CONFIG_VALUE_0=true",
			"GIT_CONFIG_KEY_1=am.threeWay", "GIT_CONFIG_VALUE_1=false",
			"GIT_CONFIG_KEY_2=apply.whitespace", "GIT_CONFIG_VALUE_2=error"})},
		{"called by a hook of another repository", "v1.1", nil, "", slices.Concat(gitIdentity, []string{
			"GIT_DIR=/nonexistent", "GIT_WORK_TREE=/nonexistent", "GIT_INDEX_FILE=/nonexistent", "GIT_PREFIX=x/",
			"GIT_COMMON_DIR=/nonexistent", "GIT_NAMESPACE=x", "GIT_OBJECT_DIRECTORY=/nonexistent",
			"GIT_ALTERNATE_OBJECT_DIRECTORIES=/nonexistent", "GIT_QUARANTINE_PATH=/nonexistent",
			"GIT_SHALLOW_FILE=/nonexistent", "GIT_GRAFT_FILE=/nonexistent", "GIT_REPLACE_REF_BASE=refs/x/",
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, script := standIn(t)
			r.git("checkout", "-q", "-B", "work", tt.at)
			r.write("untracked", "kept\n")
			out, errs, status := apply(t, script, env(tt.env...), append(slices.Clone(tt.version), filepath.Join(r.dir, tt.sub))...)
			if status != 0 {
				t.Fatalf("exit status %d: %s%s", status, out, errs)
			}
			if want := tt.at + " with 2 patches of scoutfs-notify"; !strings.Contains(out, want) || errs != "" {
				t.Errorf("it printed %q and %q, want %q", out, errs, want)
			}
			if got := r.git("log", "--format=%s", tt.at+"..work"); got != "second\nfirst" {
				t.Errorf("commits on the branch: %q", got)
			}
			if got := r.git("status", "--porcelain"); got != "?? untracked" {
				t.Errorf("git status afterwards: %q", got)
			}
		})
	}
}

// A release whose files changed a little since the series was made.
func TestApplyMerges(t *testing.T) {
	r, script := standIn(t)
	r.write("kmod/src/super.c", strings.Replace(body, "two\n", "two changed\n", 1))
	r.commit("moved")
	r.git("tag", "-f", "-a", "-m", "moved", "v1.1")
	if out, errs, status := apply(t, script, env(gitIdentity...), r.dir); status != 0 {
		t.Fatalf("exit status %d: %s%s", status, out, errs)
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, r *checkout)
		args  func(r *checkout) []string
		want  string
	}{
		{"a changed file", func(t *testing.T, r *checkout) { r.write("kmod/src/file.c", "x\n") }, nil, "is dirty"},
		{"a staged file", func(t *testing.T, r *checkout) { r.write("new", "x\n"); r.git("add", "new") }, nil, "is dirty"},
		{"a removed file", func(t *testing.T, r *checkout) { r.git("rm", "-q", "kmod/src/file.c") }, nil, "is dirty"},
		{"a commit after the release", func(t *testing.T, r *checkout) { r.git("checkout", "-q", "main") }, nil, "is at no supported release"},
		{"another release", nil, func(r *checkout) []string { return []string{"v1.2", r.dir} }, "has the wrong base"},
		{"no series", nil, func(r *checkout) []string { return []string{"v1.9", r.dir} }, "there is no series for v1.9. The supported releases are v1.1 v1.2."},
		{"a path as version", nil, func(r *checkout) []string { return []string{"../patches/v1.1", r.dir} }, "there is no series"},
		{"no tag", func(t *testing.T, r *checkout) { r.git("tag", "-d", "v1.1") }, func(r *checkout) []string { return []string{"v1.1", r.dir} }, "fetch --tags"},
		{"no tags at all", func(t *testing.T, r *checkout) { r.git("tag", "-d", "v1.1", "v1.2") }, nil, "is at no supported release"},
		{"an am in progress", func(t *testing.T, r *checkout) {
			if err := os.Mkdir(filepath.Join(r.dir, ".git/rebase-apply"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, nil, "is in the middle of"},
		{"a merge in progress", func(t *testing.T, r *checkout) { r.git("merge", "-q", "--no-ff", "--no-commit", "main") }, nil, "is in the middle of"},
		{"already patched", func(t *testing.T, r *checkout) {
			r.write("kmod/src/notify_ioctl.h", "\n")
			r.commit("patched by hand")
		}, nil, "is already patched"},
		{"an empty repository", func(t *testing.T, r *checkout) {
			r.git("checkout", "-q", "--orphan", "empty")
			r.git("rm", "-rfq", ".")
		}, nil, "has no commit"},
		{"no folder", nil, func(r *checkout) []string { return []string{r.dir + "/none"} }, "is not a directory"},
		{"no repository", nil, func(r *checkout) []string { return []string{r.t.TempDir()} }, "is not a git work tree"},
		{"a bare repository", nil, func(r *checkout) []string { return []string{filepath.Join(r.dir, ".git")} }, "is not a git work tree"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, script := standIn(t)
			if tt.setup != nil {
				tt.setup(t, r)
			}
			args := []string{r.dir}
			if tt.args != nil {
				args = tt.args(r)
			}
			state := func() string { return "" }
			if tt.name != "an empty repository" { // git cannot describe it
				state = r.state
			}
			before := state()
			out, errs, status := apply(t, script, env(gitIdentity...), args...)
			if status != 1 || out != "" {
				t.Errorf("exit status %d, standard output %q", status, out)
			}
			if !strings.HasPrefix(errs, "apply.sh: ") || !strings.Contains(errs, tt.want) {
				t.Errorf("no %q in %q", tt.want, errs)
			}
			if strings.Contains(errs, "fatal:") {
				t.Errorf("git's own message in %q", errs)
			}
			if after := state(); after != before {
				t.Errorf("the checkout changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// A hook that receives a push has a quarantine folder for new objects, which may be
// deleted. No commit may end up there.
func TestApplyKeepsItsObjects(t *testing.T) {
	r, script := standIn(t)
	quarantine := t.TempDir()
	_, errs, status := apply(t, script, env(slices.Concat(gitIdentity, []string{
		"GIT_OBJECT_DIRECTORY=" + quarantine, "GIT_QUARANTINE_PATH=" + quarantine,
		"GIT_ALTERNATE_OBJECT_DIRECTORIES=" + filepath.Join(r.dir, ".git/objects"),
	})...), r.dir)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, errs)
	}
	if found, err := os.ReadDir(quarantine); err != nil || len(found) > 0 {
		t.Errorf("objects in the hook's folder: %v %v", found, err)
	}
	r.git("fsck", "--strict")
}

func TestApplyThroughLink(t *testing.T) {
	r, script := standIn(t)
	link := filepath.Join(t.TempDir(), "apply")
	if err := os.Symlink(script, link); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := apply(t, link, env(gitIdentity...), r.dir); status != 0 || !strings.Contains(out, "2 patches") {
		t.Errorf("exit status %d: %s%s", status, out, errs)
	}
	// A copy has no series.
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	lone := filepath.Join(t.TempDir(), "apply.sh")
	if err := os.WriteFile(lone, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := apply(t, lone, env(gitIdentity...), r.dir); status != 1 || !strings.HasPrefix(errs, "apply.sh: there is no folder patches beside ") {
		t.Errorf("exit status %d: %s", status, errs)
	}
}

// The error passes on git's advice and leaves out the rest of its output.
func TestApplyForeignCheckout(t *testing.T) {
	r, script := standIn(t)
	_, errs, status := apply(t, script, env(append(slices.Clone(gitIdentity), "GIT_TEST_ASSUME_DIFFERENT_OWNER=1")...), r.dir)
	if want := "another user owns it. If you trust it: git config --global --add safe.directory "; status != 1 || !strings.Contains(errs, want) {
		t.Errorf("exit status %d, no %q in %q", status, want, errs)
	}
}

func TestApplyTwice(t *testing.T) {
	r, script := standIn(t)
	if _, errs, status := apply(t, script, env(gitIdentity...), r.dir); status != 0 {
		t.Fatal(errs)
	}
	before := r.state()
	_, errs, status := apply(t, script, env(gitIdentity...), r.dir)
	if status != 1 || !strings.Contains(errs, "is already patched") {
		t.Errorf("exit status %d: %s", status, errs)
	}
	if after := r.state(); after != before {
		t.Errorf("the checkout changed from\n%s\nto\n%s", before, after)
	}
}

func TestApplyUsage(t *testing.T) {
	_, script := standIn(t)
	for _, args := range [][]string{nil, {"v1.1", "a", "b"}} {
		if _, errs, status := apply(t, script, env(gitIdentity...), args...); status != 2 || !strings.Contains(errs, "usage: apply.sh [VERSION] CHECKOUT") {
			t.Errorf("apply.sh %v: exit status %d: %s", args, status, errs)
		}
	}
	for _, flag := range []string{"-h", "--help"} {
		if out, errs, status := apply(t, script, env(gitIdentity...), flag); status != 0 || errs != "" || !strings.HasPrefix(out, "usage: apply.sh [VERSION] CHECKOUT\n") {
			t.Errorf("apply.sh %s: exit status %d, it printed %q and %q", flag, status, out, errs)
		}
	}
}

// move makes a change to standIn's files that git merges, conflict one that it cannot.
func (r *checkout) move() { r.write("kmod/src/data.c", strings.Replace(third, "deux\n", "2\n", 1)) }
func (r *checkout) conflict() {
	r.write("kmod/src/super.c", strings.Replace(body, "four\nfive\n", "4\n5\n", 1))
}

// A failure in any patch leaves the checkout unchanged. The error names patch and
// place.
func TestApplyFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, r *checkout)
		tag   bool // setup's files are committed and become the release
		want  []string
		not   string
	}{
		{"the first patch", func(t *testing.T, r *checkout) { r.conflict() },
			true, []string{"0001-first.patch does not apply to", "conflicts at kmod/src/super.c:4.", "docs/rebasing.md"}, "data.c"},
		{"beside a file that git merged", func(t *testing.T, r *checkout) { r.conflict(); r.move() },
			true, []string{"0001-first.patch does not apply to", ", conflicts at kmod/src/super.c:4. Is its"}, "kmod/src/data.c:"},
		{"two files", func(t *testing.T, r *checkout) {
			r.conflict()
			r.write("kmod/src/data.c", strings.Replace(third, "quatre\ncinq\n", "4\n5\n", 1))
		}, true, []string{", conflicts at kmod/src/data.c:4 kmod/src/super.c:4. Is its"}, ""},
		{"the second patch", func(t *testing.T, r *checkout) {
			r.write("kmod/src/file.c", strings.Replace(other, "fünf\nsechs\n", "5\n6\n", 1))
		}, true, []string{"0002-second.patch does not apply to", "conflicts at kmod/src/file.c:5."}, "super.c"},
		{"a file that is gone", func(t *testing.T, r *checkout) {
			if err := os.Remove(filepath.Join(r.dir, "kmod/src/file.c")); err != nil {
				t.Fatal(err)
			}
		}, true, []string{"0002-second.patch does not apply to", "CONFLICT (modify/delete): kmod/src/file.c deleted in HEAD"}, ""},
		{"a file of the user's in the way", func(t *testing.T, r *checkout) {
			r.write("kmod/src/notify_ioctl.h", "the user's\n")
		}, false, []string{"untracked working tree files would be overwritten", "\tkmod/src/notify_ioctl.h\n", "cannot be checked out in"}, ""},
		{"a lock on the index", func(t *testing.T, r *checkout) {
			r.write(".git/index.lock", "")
		}, false, []string{"index.lock': File exists", "cannot be checked out in"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, script := standIn(t)
			tt.setup(t, r)
			if tt.tag {
				r.commit("changed")
				r.git("tag", "-f", "v1.1")
			}
			before := r.state()
			_, errs, status := apply(t, script, env(gitIdentity...), r.dir)
			if status != 1 {
				t.Errorf("exit status %d", status)
			}
			for _, want := range append(tt.want, "The checkout is as it was.") {
				if !strings.Contains(errs, want) {
					t.Errorf("no %q in %s", want, errs)
				}
			}
			for _, no := range []string{"am --continue", "am --skip", tt.not} {
				if no != "" && strings.Contains(errs, no) {
					t.Errorf("%q, which cannot help here, in %s", no, errs)
				}
			}
			if after := r.state(); after != before {
				t.Errorf("the checkout changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// The user's hooks are for the user's commits: one that refuses commits must not
// stop the series.
func TestApplyRunsNoHooks(t *testing.T) {
	r, script := standIn(t)
	for _, hook := range []string{"applypatch-msg", "pre-applypatch", "post-applypatch", "post-checkout", "post-merge", "reference-transaction"} {
		r.write(".git/hooks/"+hook, "#!/bin/sh\necho not today >&2\nexit 1\n")
		if err := os.Chmod(filepath.Join(r.dir, ".git/hooks", hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, status := apply(t, script, env(gitIdentity...), r.dir)
	if status != 0 || errs != "" || !strings.Contains(out, "2 patches") {
		t.Errorf("exit status %d: %s%s", status, out, errs)
	}
}

// A shallow clone has no base for a merge; git says where the patch fails.
func TestApplyWithoutHistory(t *testing.T) {
	r, script := standIn(t)
	r.move()
	r.commit("changed")
	r.git("tag", "-f", "v1.1")
	shallow := &checkout{t, filepath.Join(t.TempDir(), "shallow")}
	r.git("clone", "-q", "--depth=1", "--branch=v1.1", "file://"+r.dir, shallow.dir)
	before := shallow.state()
	_, errs, status := apply(t, script, env(gitIdentity...), shallow.dir)
	if status != 1 || !strings.Contains(errs, "patch failed: kmod/src/data.c:2\n") {
		t.Errorf("exit status %d: %s", status, errs)
	}
	if after := shallow.state(); after != before {
		t.Errorf("the checkout changed from\n%s\nto\n%s", before, after)
	}
}

// An interrupted apply.sh leaves the checkout unchanged.
func TestApplyInterrupted(t *testing.T) {
	r, script := standIn(t)
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	// This git reports when it has applied the patches, and waits.
	bin := t.TempDir()
	fifo := filepath.Join(bin, "fifo")
	if out, err := exec.CommandContext(t.Context(), "mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	wrapper := "#!/bin/sh\n'" + git + "' \"$@\" || exit\ncase \" $* \" in *' am '*) echo here >'" + fifo + "'; cat '" + fifo + "' ;; esac\n"
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	before := r.state()
	cmd := exec.CommandContext(t.Context(), script, r.dir)
	var errs bytes.Buffer
	cmd.Env, cmd.Stderr = env(append(slices.Clone(gitIdentity), "PATH="+bin+":"+os.Getenv("PATH"))...), &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(fifo); err != nil || string(text) != "here\n" {
		t.Fatalf("git said %q, %v", text, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	// Let git end: the shell acts on the signal only then.
	if err := os.WriteFile(fifo, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("exit status 0 though it was interrupted")
	}
	if want := "apply.sh: stopped. The checkout is as it was.\n"; errs.String() != want {
		t.Errorf("it printed %q, not %q", errs.String(), want)
	}
	if after := r.state(); after != before {
		t.Errorf("the checkout changed from\n%s\nto\n%s", before, after)
	}
}
