// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

var indexLineIn = regexp.MustCompile(`index ([0-9a-f]{7})[0-9a-f]{33}\.\.([0-9a-f]{7})[0-9a-f]{33} 100644`)

func contains(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
}

func TestRebaseLeavesOutRemovedFunctions(t *testing.T) {
	u := newUpstream(t)
	out := u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	contains(t, out, "left out the change to scoutfs_file_aio_read in kmod/src/file.c", "3 patches written")
	if got := u.read("v1.2", "base.txt"); got != "v1.2\n" {
		t.Errorf("base.txt holds %q", got)
	}
	hooks := u.read("v1.2", "0002")
	if n := strings.Count(hooks, "\n+\tscoutfs_notify_read("); n != 1 {
		t.Errorf("%d read hooks instead of one in\n%s", n, hooks)
	}
	for _, p := range []string{"0001", "0003"} {
		// Line numbers and file ids may differ.
		body := func(version string) string {
			var keep []string
			for l := range strings.Lines(u.read(version, p)) {
				if !strings.HasPrefix(l, "index ") && !strings.HasPrefix(l, "@@ ") {
					keep = append(keep, l)
				}
			}
			return strings.Join(keep, "")
		}
		if body("v1.1") != body("v1.2") {
			t.Errorf("%s differs:\n%s", p, u.read("v1.2", p))
		}
	}
	contains(t, u.must("check"), "v1.1: 3 patches are good", "v1.2: 3 patches are good", "same text as v1.1")

	if _, err := os.Stat(u.work("v1.2").dir); err == nil {
		t.Error("the clone is still there, and the next rebase would continue in it")
	}

	// A second rebase, and one from the exported series, give the same bytes.
	before := u.read("v1.2", "0001") + u.read("v1.2", "0002") + u.read("v1.2", "0003")
	for _, args := range [][]string{
		{"rebase", "-from", "v1.1", "-to", "v1.2"},
		{"rebase", "-from", "v1.1", "-to", "v1.2", "-restart"},
		{"rebase", "-from", "v1.2", "-to", "v1.2", "-restart"},
		{"regenerate", "-from", "v1.1"},
	} {
		u.must(args...)
		if after := u.read("v1.2", "0001") + u.read("v1.2", "0002") + u.read("v1.2", "0003"); after != before {
			t.Errorf("series %v changed the series", args)
		}
	}
}

func TestRebaseNeedsEveryHook(t *testing.T) {
	u := newUpstream(t)
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	// Back to a release with a function for which v1.2's series has no hook.
	out, status := u.run("rebase", "-from", "v1.2", "-to", "v1.1")
	if status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	contains(t, out, "scoutfs_file_aio_read calls the read hook 0 times")
}

// The trap on upstream's main: the hunk also applies to a second copy of the read path.
const iomapCopy = "#ifdef KC_USE_IOMAP_FOR_IO\n" + readIter + "#else\n" + readIter + "#endif\n"

func TestRebaseSeesTheSecondReadPath(t *testing.T) {
	u := newUpstream(t)
	u.commit("v1.3", map[string]string{"kmod/src/file.c": fileH + iomapCopy + tailC})
	u.git("tag", "v1.3")
	out, status := u.run("rebase", "-from", "v1.1", "-to", "v1.3")
	if status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	contains(t, out, "scoutfs_file_read_iter calls the read hook 0 times", "KC_USE_IOMAP_FOR_IO", "notify/v1.3", "RESTART=1")
	if _, err := os.Stat(filepath.Join(u.patches, "v1.3")); err == nil {
		t.Error("the series was written without one of its hooks")
	}
}

func TestRebaseConflict(t *testing.T) {
	u := newUpstream(t)
	changed := strings.Replace(readIter, "\tstand_in_unlock(iocb);\n\n\treturn ret;", "\treturn stand_in_unlock(iocb, ret);", 1)
	u.commit("elsewhere", map[string]string{"kmod/src/file.c": strings.Replace(fileH, "\n", "\n/* more */\n", 1) + readIter + tailC})
	u.commit("v1.3\n\nThe end of the lock has the last word.\n\nSigned-off-by: S <s@example.org>", map[string]string{"kmod/src/file.c": fileH + changed + tailC})
	u.git("tag", "v1.3")
	args := []string{"rebase", "-from", "v1.1", "-to", "v1.3"}
	out, status := u.run(args...)
	if status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	contains(t, out, "0002-scoutfs-tell-the-reader.patch: the patch does not apply in kmod/src/file.c\n", "git am --continue",
		"Why the series changes it (0002-scoutfs-tell-the-reader.patch):\n\n    scoutfs: tell the reader\n",
		"Why upstream changed kmod/src/file.c there:\n\n", " v1.3\n\n    The end of the lock has the last word.\n",
		"\n    <<<<<<< HEAD\n", "\n    |||||||", "\n    >>>>>>> scoutfs: tell the reader\n")
	for _, no := range []string{"elsewhere", "Signed-off-by", "--skip", "git merged it"} {
		if strings.Contains(out, no) {
			t.Errorf("the report has %q:\n%s", no, out)
		}
	}

	if out, status = u.run(args...); status != 1 {
		t.Errorf("exit status %d while git am waits, not 1", status)
	}
	contains(t, out, "git am still waits")

	// What a person does.
	c := u.work("v1.3")
	file := filepath.Join(c.dir, "kmod/src/file.c")
	if err := os.WriteFile(file, []byte(strings.Replace(fileH, "\"per_task.h\"\n", "\"per_task.h\"\n#include \"notify.h\"\n", 1)+
		strings.Replace(changed, "\treturn stand", "\tscoutfs_notify_read(iocb, ret);\n\treturn stand", 1)+tailC), 0o644); err != nil {
		t.Fatal(err)
	}
	c.must(t, "add", "-A")
	c.must(t, "am", "--continue")

	// An uncommitted change must not be lost silently.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, status = u.run(args...); status != 1 {
		t.Errorf("exit status %d with an uncommitted change", status)
	}
	contains(t, out, "uncommitted changes")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	contains(t, u.must(args...), "3 patches written")
	contains(t, u.must("check"), "v1.3: 3 patches are good")

	// The same conflict is the person's no more: neither in a new clone, nor at the next
	// release.
	before := u.read("v1.3", "0002")
	contains(t, u.must(append(args, "-restart")...), "the conflict was resolved as it was before; read the result", "3 patches written")
	if u.read("v1.3", "0002") != before {
		t.Error("it was resolved in another way")
	}
	u.commit("v1.4", map[string]string{"README": "x\n"})
	u.git("tag", "v1.4")
	contains(t, u.must("rebase", "-from", "v1.1", "-to", "v1.4"), "resolved as it was before", "3 patches written")
	contains(t, u.must("check"), "v1.4: 3 patches are good")
}

// stuck starts a rebase from v1.1 to v1.2 that needs a person, and returns its clone.
func (u *upstream) stuck() *clone {
	u.t.Helper()
	u.git("tag", "-f", "v1.2", "v1.2^{commit}")
	changed := strings.Replace(readIter, "\tstand_in_unlock(iocb);\n\n\treturn ret;", "\treturn stand_in_unlock(iocb, ret);", 1)
	u.commit("v1.2 again", map[string]string{"kmod/src/file.c": fileH + changed + tailC})
	u.git("tag", "-f", "v1.2")
	if out, status := u.run("rebase", "-from", "v1.1", "-to", "v1.2"); status != 1 {
		u.t.Fatalf("exit status %d instead of a conflict\n%s", status, out)
	}
	return u.work("v1.2")
}

// A clone is only for the FROM it was made from. Commit subjects cannot tell: they are
// the same in all releases.
func TestRebaseRefusesCloneOfAnotherSeries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, u *upstream, c *clone)
		from  string
		want  string
	}{
		{"changed", func(t *testing.T, u *upstream, c *clone) {
			edit(t, u, "v1.1", "0001", "#error\n", "#error changed\n")
		}, "v1.1", "the series for v1.1 has changed since"},
		{"another release", func(t *testing.T, u *upstream, c *clone) {
			s, err := series.Open(u.patches, "v1.1")
			if err != nil {
				t.Fatal(err)
			}
			s.Version = "v1.0"
			if err := (&options{patches: u.patches}).write(s); err != nil {
				t.Fatal(err)
			}
			u.git("tag", "v1.0", "v1.1")
		}, "v1.0", "it was made from the series for v1.1, not v1.0"},
		{"incomplete", func(t *testing.T, u *upstream, c *clone) {
			c.must(t, "config", "--unset", markKey)
		}, "v1.1", "does not say which series"},
		{"no repository", func(t *testing.T, u *upstream, c *clone) {
			if err := os.Rename(filepath.Join(c.dir, ".git"), filepath.Join(c.dir, "git")); err != nil {
				t.Fatal(err)
			}
		}, "v1.1", "read the clone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t)
			c := u.stuck()
			tt.setup(t, u, c)
			out, status := u.run("rebase", "-from", tt.from, "-to", "v1.2")
			if status != 1 {
				t.Errorf("exit status %d, not 1", status)
			}
			contains(t, out, tt.want, "start over with RESTART=1", c.dir)
			out, _ = u.run("rebase", "-from", tt.from, "-to", "v1.2", "-restart")
			contains(t, out, "git am --continue")
		})
	}
}

// edit replaces old by new in a patch.
func edit(t *testing.T, u *upstream, version, prefix, old, new string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(u.patches, version, prefix+"*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("files %s* for %s: %v %v", prefix, version, names, err)
	}
	text := u.read(version, prefix)
	changed := strings.Replace(text, old, new, 1)
	if changed == text {
		t.Fatalf("no %q in\n%s", old, text)
	}
	if err := os.WriteFile(names[0], []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRebaseWaitsForGit(t *testing.T) {
	for _, tt := range []struct {
		file string // in .git
		want string
	}{
		{"rebase-apply", "git rebase still waits"},
		{"rebase-merge", "git rebase still waits"},
		{"MERGE_HEAD", "git merge still waits"},
		{"CHERRY_PICK_HEAD", "git cherry-pick still waits"},
		{"REVERT_HEAD", "git revert still waits"},
		{"", "is not on its branch: git checkout notify/v1.2"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			u := newUpstream(t)
			c := u.stuck()
			c.must(t, "am", "--abort")
			if tt.file == "" {
				c.must(t, "checkout", "-q", "--detach")
			} else if err := os.WriteFile(filepath.Join(c.dir, ".git", tt.file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			out, status := u.run("rebase", "-from", "v1.1", "-to", "v1.2")
			if status != 1 {
				t.Errorf("exit status %d, not 1", status)
			}
			contains(t, out, tt.want, "make rebase FROM=v1.1 TO=v1.2", "RESTART=1")
			if tt.file != "" && strings.Contains(out, "git am") {
				t.Errorf("it did not wait:\n%s", out)
			}
		})
	}
}

// regenerate, too, goes on from what a person left.
func TestRegenerateKeepsWork(t *testing.T) {
	u := newUpstream(t)
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	c := u.stuck()
	c.must(t, "am", "--abort")
	c.must(t, "commit", "-q", "--allow-empty", "-m", "a person's")
	out, status := u.run("regenerate", "-from", "v1.1")
	if status != 1 {
		t.Errorf("exit status %d, not 1", status)
	}
	contains(t, out, "a person's", "make rebase FROM=v1.1 TO=v1.2 goes on")
	out, _ = u.run("regenerate", "-from", "v1.1", "-restart")
	contains(t, out, "git am --continue")
}

// No conflict shows a difference in a file that the series adds: the report must.
func TestRebaseReportsChangedNewFiles(t *testing.T) {
	u := newUpstream(t)
	c := u.stuck()
	notify := filepath.Join(c.dir, "kmod/src/notify.c")
	c.must(t, "am", "--abort")
	for path, text := range map[string]string{notify: "#ifdef KC_USE_IOMAP_FOR_IO\n#error other\n#endif\n", filepath.Join(c.dir, "more"): "x\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.must(t, "add", "-A")
	c.must(t, "commit", "-q", "--amend", "--no-edit")
	out, _ := u.run("rebase", "-from", "v1.1", "-to", "v1.2")
	contains(t, out, "git am --continue")
	c.must(t, "checkout", "-q", "--theirs", "kmod/src/file.c")
	c.must(t, "add", "-A")
	c.must(t, "am", "--continue")
	out, _ = u.run("rebase", "-from", "v1.1", "-to", "v1.2")
	contains(t, out, "git range-diff, with v1.1 on the left", "-+#error\n", "++#error other\n", "++x\n")
}

func TestRebaseErrors(t *testing.T) {
	u := newUpstream(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"rebase", "-from", "v1.1"}, "the flag -to is missing"},
		{[]string{"rebase", "-from", "v1.1", "-to", "v1.9"}, "no such tag or commit; upstream may not have released it yet"},
		{[]string{"rebase", "-from", "v1.9", "-to", "v1.2"}, "open the series for v1.9"},
		{[]string{"rebase", "-from", "v1.1", "-to", "../x"}, "releases are tags like"},
		{[]string{"regenerate", "-from", "v1.9"}, "no such series"},
		{[]string{"rebase", "-from", "v1.1", "-to", "v1.2", "more"}, `"more" is not a flag`},
		{[]string{"check", "-src", ""}, ""},
		{[]string{"rebase", "-src", "", "-from", "v1.1", "-to", "v1.2"}, "SCOUTFS_SRC is not set"},
		{[]string{"upstream-check", "-branch", "nowhere"}, "does not have it"},
		{[]string{"check", "-src", t.TempDir()}, "not a git repository"},
	} {
		out, status := u.run(tt.args...)
		if (status == 0) != (tt.want == "") {
			t.Errorf("series %v: exit status %d\n%s", tt.args, status, out)
		}
		contains(t, out, tt.want)
	}
}

func TestCheckFindsFaults(t *testing.T) {
	for _, tt := range []struct {
		name, file, old, new, want string
	}{
		{"commit id", "0001", zeroCommit, strings.Replace(zeroCommit, "00", "1f", 1), "--zero-commit"},
		{"signature", "0001", "+int drain;\n", "+int drain;\n-- \n2.39.5\n", "--no-signature"},
		{"short index", "0002", "", "", "--full-index"},
		{"no sign-off", "0001", "Signed-off-by", "Seen-by", "no Signed-off-by"},
		{"long subject", "0001", "add a ring", strings.Repeat("ring ", 20), "1 to 72"},
		{"white space", "0001", "+#error\n", "+#error \n", "white space at the end"},
		{"edited by hand", "0003", "+notify.sh", "+other.sh", "an export of it differs"},
		{"other tag", "base.txt", "v1.1", "v1.0", "base.txt holds"},
		{"line removed by hand", "0002", "+\tscoutfs_notify_read(iocb, ret);\n", "", "is not a line of a hunk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t)
			text := u.read("v1.1", tt.file)
			changed := strings.Replace(text, tt.old, tt.new, 1)
			if tt.old == "" {
				changed = indexLineIn.ReplaceAllString(text, "index $1..$2 100644")
			}
			if changed == text {
				t.Fatalf("no %q in\n%s", tt.old, text)
			}
			names, err := filepath.Glob(filepath.Join(u.patches, "v1.1", tt.file+"*"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(names[0], []byte(changed), 0o644); err != nil {
				t.Fatal(err)
			}
			out, status := u.run("check")
			if status != 1 {
				t.Errorf("exit status %d, not 1", status)
			}
			contains(t, out, tt.want)
		})
	}
}

func TestExport(t *testing.T) {
	u := newUpstream(t)
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	before := u.read("v1.2", "0002")
	c := u.patched("v1.2")
	args := []string{"export", "-clone", c.dir, "-to", "v1.2"}
	u.must(args...)
	if u.read("v1.2", "0002") != before {
		t.Error("exporting the exported series changed it")
	}

	// A new subject, and one more commit.
	c.must(t, "commit", "-q", "--amend", "-m", "scoutfs: test it well\n\nSigned-off-by: A <a@example.org>")
	c.must(t, "commit", "-q", "--allow-empty", "-m", "nothing")
	out, status := u.run(args...)
	if status != 1 {
		t.Errorf("exit status %d for an empty commit\n%s", status, out)
	}
	c.must(t, "reset", "-q", "--hard", "HEAD~")
	u.must(args...)
	names, err := filepath.Glob(filepath.Join(u.patches, "v1.2", "0003-*"))
	if err != nil || len(names) != 1 || filepath.Base(names[0]) != "0003-scoutfs-test-it-well.patch" {
		t.Errorf("patches 0003: %v %v", names, err)
	}
	c.must(t, "checkout", "-q", "--orphan", "other")
	c.must(t, "commit", "-q", "-m", "other")
	for dir, tags := range map[string]map[string]string{
		u.dir: {"v1.9": "no such tag or commit; upstream may not have released it yet, or: git -C " + u.dir + " fetch --tags", "v1.2": "there are no commits on top of v1.2"},
		c.dir: {"v1.2": "HEAD is not based on v1.2"},
	} {
		for tag, want := range tags {
			if out, status = u.run("export", "-clone", dir, "-to", tag); status != 1 {
				t.Errorf("exit status %d for %s of %s", status, tag, dir)
			}
			contains(t, out, want)
		}
	}
}

// The user's clone is read with the user's configuration, which decides whose
// repositories git trusts, but must not affect the exported series.
func TestExportFromForeignClone(t *testing.T) {
	u := newUpstream(t)
	before := u.read("v1.1", "0001") + u.read("v1.1", "0002") + u.read("v1.1", "0003")
	c := u.patched("v1.1")
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	// git believes that the clone belongs to another user.
	bin := t.TempDir()
	wrapper := "#!/bin/sh\n[ \"$(pwd -P)\" != \"$(cd '" + c.dir + "' && pwd -P)\" ] || export GIT_TEST_ASSUME_DIFFERENT_OWNER=1\nexec '" + git + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	config := filepath.Join(t.TempDir(), "config")
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	for _, tt := range []struct {
		config string
		status int
		want   []string
	}{
		{"", 1, []string{"dubious ownership", "--add safe.directory"}},
		{"[safe]\n\tdirectory = *\n[diff]\n\tnoprefix = true\n\tcontext = 1\n[format]\n\tsubjectPrefix = X\n", 0, []string{"3 patches written"}},
	} {
		if err := os.WriteFile(config, []byte(tt.config), 0o644); err != nil {
			t.Fatal(err)
		}
		out, status := u.run("export", "-clone", c.dir, "-to", "v1.1")
		if status != tt.status {
			t.Errorf("exit status %d with the configuration %q", status, tt.config)
		}
		contains(t, out, tt.want...)
		if after := u.read("v1.1", "0001") + u.read("v1.1", "0002") + u.read("v1.1", "0003"); after != before {
			t.Errorf("the configuration %q changed the series", tt.config)
		}
	}
}

func TestCheckNeedsOneInterface(t *testing.T) {
	u := newUpstream(t)
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	name := filepath.Join(u.patches, "v1.2", "0001-scoutfs-add-a-ring.patch")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), "0xc020e819", "0xc028e819", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{u.dir, ""} {
		out, status := u.run("check", "-src", src)
		if status != 1 {
			t.Errorf("exit status %d, not 1", status)
		}
		contains(t, out, "notify_ioctl.h differs from that of v1.1")
	}
}

func TestUpstreamCheck(t *testing.T) {
	u := newUpstream(t)
	oneLine := func(want int, words ...string) {
		t.Helper()
		out, status := u.run("upstream-check")
		if status != want {
			t.Errorf("exit status %d, not %d\n%s", status, want, out)
		}
		if strings.Count(out, "\n") != 1 {
			t.Errorf("not one line:\n%s", out)
		}
		contains(t, out, words...)
		if !strings.HasPrefix(out, verdicts[want]) {
			t.Errorf("no verdict %q in %q", verdicts[want], out)
		}
	}
	oneLine(upstreamRelease, "newest v1.2, supported v1.1", "series applies", "make rebase TO=v1.2")
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	oneLine(upstreamFine, "newest v1.2, supported v1.2", "main")

	u.commit("iomap", map[string]string{"kmod/src/file.c": fileH + iomapCopy + tailC})
	oneLine(upstreamMain, "newest v1.2, supported v1.2: series applies (not built); main", "scoutfs_file_read_iter calls the read hook 0 times")

	u.git("tag", "v1.10") // newer than v1.2
	u.git("tag", "v1.2-7-g1234567")
	oneLine(upstreamRelease, "newest v1.10, supported v1.2", "calls the read hook 0 times")

	u.git("checkout", "-q", "--detach")
	u.git("branch", "-D", "main")
	oneLine(upstreamRelease, "no main branch")
}

// tools sets PATH to a new folder with some real programs, and stand-ins that do
// nothing.
func tools(t *testing.T, real, standIns []string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, tool := range real {
		file, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range standIns {
		if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return dir
}

// "does not build" blames the source. Any other cause makes the check fail.
func TestUpstreamCheckBuilds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		gcc    bool
		kernel string // Makefile in the kernel's build directory
		module string // Makefile of ScoutFS's module
		status int
		want   string
	}{
		{"fine", true, "modules:\n", "all:\n", upstreamFine, "series applies and builds"},
		{"fails", true, "modules:\n", "all:\n\texit 1\n", upstreamRelease, "does not build"},
		{"warns", true, "modules:\n", "all:\n\t@echo x.c:1: warning: y\n", upstreamRelease, "does not build"},
		{"no compiler", false, "modules:\n", "all:\n", upstreamFailed, "install the Debian package gcc"},
		{"no kernel", true, "", "all:\n", upstreamFailed, "name a kernel's build directory"},
		{"broken kernel", true, "modules:\n\texit 1\n", "all:\n\texit 1\n", upstreamFailed, "build an empty module against"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t)
			u.commit("v1.2", map[string]string{"kmod/Makefile": tt.module})
			u.git("tag", "-f", "v1.2")
			u.must("rebase", "-from", "v1.1", "-to", "v1.2")
			standIns := []string{"sparse"}
			if tt.gcc {
				standIns = append(standIns, "gcc")
			}
			tools(t, []string{"git", "sh", "make", "nice"}, standIns)
			kbuild := t.TempDir()
			if tt.kernel != "" {
				if err := os.WriteFile(filepath.Join(kbuild, "Makefile"), []byte(tt.kernel), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, status := u.run("upstream-check", "-kbuild", kbuild)
			if status != tt.status {
				t.Errorf("exit status %d, not %d", status, tt.status)
			}
			contains(t, out, tt.want)
			if !strings.HasPrefix(out, verdicts[tt.status]) {
				t.Errorf("no verdict %q in %q", verdicts[tt.status], out)
			}
			// These are nothing for a person to look at.
			if tt.status == upstreamFailed {
				for _, args := range [][]string{{"rebase", "-from", "v1.1", "-to", "v1.2"}, {"check"}} {
					out, status := u.run(append(args, "-kbuild", kbuild)...)
					contains(t, out, tt.want)
					if status != 1 || strings.Contains(out, errPerson.Error()) {
						t.Errorf("exit status %d, want 1 and no call for a person:\n%s", status, out)
					}
				}
			}
		})
	}
}

// An interrupted check fails. It must not say that a patch does not apply, that the
// series does not build, or that there is no branch.
func TestUpstreamCheckInterrupted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		program string
		args    string // found among its arguments
		n       int    // interrupt this call of it, from 1
	}{
		{"the reference", "git", "am", 1},
		{"a patch", "git", "am", 4},
		{"a merge on main", "git", "--3way", 2},
		{"an export", "git", "format-patch", 1},
		{"the branch", "git", "origin/main^{commit}", 1},
		{"a build", "make", "kmod", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t)
			u.commit("v1.2", map[string]string{"kmod/Makefile": "all:\n"})
			u.git("tag", "-f", "v1.2")
			if tt.args == "--3way" {
				u.commit("main", map[string]string{"kmod/src/data.c": strings.Replace(dataC, ".llseek", ".seek", 1)})
			}
			real, err := exec.LookPath(tt.program)
			if err != nil {
				t.Fatal(err)
			}
			fifo := filepath.Join(t.TempDir(), "fifo")
			if out, err := exec.CommandContext(t.Context(), "mkfifo", fifo).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			kbuild := t.TempDir()
			if err := os.WriteFile(filepath.Join(kbuild, "Makefile"), []byte("modules:\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			bin := tools(t, slices.DeleteFunc([]string{"git", "make", "sh", "nice", "wc", "cat"}, func(s string) bool { return s == tt.program }),
				[]string{"sparse", "gcc"})
			// It reports that call, and waits to be killed.
			if err := os.WriteFile(filepath.Join(bin, tt.program), []byte(fmt.Sprintf(`#!/bin/sh
case " $* " in *" %s "*)
	echo called >>'%s.calls'
	if [ $(wc -l <'%[2]s.calls') = %[3]d ]; then
		echo here >'%[2]s'
		exec cat '%[2]s'
	fi
esac
exec '%[4]s' "$@"
`, tt.args, fifo, tt.n, real)), 0o755); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs bytes.Buffer
			done := make(chan int)
			go func() {
				done <- execute(ctx, []string{"upstream-check", "-patches", u.patches, "-src", u.dir, "-kbuild", kbuild}, &out, &errs)
			}()
			called := make(chan error, 1)
			go func() {
				_, err := os.ReadFile(fifo)
				called <- err
			}()
			select {
			case err := <-called:
				if err != nil {
					t.Fatal(err)
				}
			case status := <-done:
				t.Fatalf("it ended before that call, with exit status %d\n%s%s", status, &out, &errs)
			}
			cancel()
			if status := <-done; status != upstreamFailed {
				t.Errorf("exit status %d, not %d", status, upstreamFailed)
			}
			if text := out.String(); !strings.HasPrefix(text, "check failed: ") || strings.Count(text, "\n") != 1 {
				t.Errorf("it printed %q", text)
			}
			contains(t, errs.String(), context.Canceled.Error())
		})
	}
}

// Readers of a verdict in a mail look it up in docs/rebasing.md.
func TestVerdictsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/rebasing.md")
	if err != nil {
		t.Fatal(err)
	}
	for status, verdict := range verdicts {
		contains(t, string(text), fmt.Sprintf("| `%s` | %d |", strings.TrimSpace(verdict), status))
	}
}
