// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// withMain gives upstream's main a second read path, and the series for it, in which a
// person has added the hook.
func withMain(t *testing.T) *upstream {
	t.Helper()
	u := newUpstream(t)
	u.must("rebase", "-from", "v1.1", "-to", "v1.2")
	u.commit("iomap", map[string]string{"kmod/src/file.c": fileH + iomapCopy + tailC})
	out, status := u.run("rebase", "-to", series.Main)
	if status != 1 {
		t.Fatalf("exit status %d, not 1\n%s", status, out)
	}
	contains(t, out, "main: from the series for v1.2, 1 commit before it", "scoutfs_file_read_iter calls the read hook 0 times",
		"make rebase FROM=v1.2 TO=main goes on from there")

	c := u.work(series.Main)
	file := filepath.Join(c.dir, "kmod/src/file.c")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const hook = "\tscoutfs_notify_read(iocb, ret);\n"
	plain := strings.ReplaceAll(string(text), hook, "")
	put(t, file, strings.ReplaceAll(plain, "\treturn ret;\n", hook+"\treturn ret;\n"))
	put(t, filepath.Join(c.dir, "kmod/src/notify.c"), "int ring;\n\nint drain;\n")
	c.must(t, "commit", "-q", "--fixup=HEAD~1", "kmod/src/file.c")
	c.must(t, "commit", "-q", "--fixup=HEAD~3", "kmod/src/notify.c")
	c.must(t, "-c", "sequence.editor=true", "rebase", "-q", "-i", "--autosquash", "HEAD~5")

	// The branch moves on meanwhile; what the person did is for the commit before.
	tip := u.git("rev-parse", "HEAD")
	u.commit("meanwhile", map[string]string{"README": "x\n"})
	contains(t, u.must("rebase", "-to", series.Main), "main: 3 patches written")
	if got := strings.TrimSpace(u.read(series.Main, "base.txt")); got != tip {
		t.Errorf("base.txt holds %s, not %s", got, tip)
	}
	return u
}

func TestMainSeries(t *testing.T) {
	u := withMain(t)
	contains(t, u.must("check"), "v1.2: 3 patches are good", "main: 3 patches are good")
	contains(t, u.must("check", "main"), "main: 3 patches are good")
	all := func() string { return u.read("main", "0001") + u.read("main", "0002") + u.read("main", "0003") }

	// It is carried on, but written only if that is asked for.
	base, tip := u.read("main", "base.txt"), u.git("rev-parse", "HEAD")
	contains(t, u.must("upstream-check"), "ok: ", "main "+tip[:8]+": series applies (not built), carried from "+base[:8], "make rebase TO=main")
	if u.read("main", "base.txt") != base {
		t.Error("upstream-check wrote without -write")
	}
	before := all()
	contains(t, u.must("upstream-check", "-write"), "ok: ", "written: read and commit patches/main")
	if got := u.read("main", "base.txt"); got != tip+"\n" || all() != before {
		t.Errorf("base.txt holds %q, not %q, or patches changed", got, tip)
	}
	contains(t, u.must("upstream-check", "-write"), "ok: ", "main "+tip[:8]+": series applies (not built)\n")

	// The next release is made of it, by nobody.
	u.commit("v1.3", map[string]string{"README": "y\n"})
	u.git("tag", "v1.3")
	out, status := u.run("upstream-check")
	if status != upstreamRelease {
		t.Errorf("exit status %d, not %d", status, upstreamRelease)
	}
	contains(t, out, "newest v1.3, supported v1.2: series applies (not built), make rebase TO=v1.3")
	contains(t, u.must("rebase", "-to", "v1.3"), "v1.3: from the series for main, 1 commit before it", "v1.3: 3 patches written")
	if n := strings.Count(u.read("v1.3", "0002"), "\n+\tscoutfs_notify_read("); n != 2 {
		t.Errorf("%d read hooks instead of 2", n)
	}
	contains(t, u.must("check"), "v1.3: 3 patches are good")
	contains(t, u.must("upstream-check"), "ok: ScoutFS newest v1.3, supported v1.3")

	// A release of the older branch has none of main's.
	u.git("checkout", "-q", "-b", "fixes", "v1.2")
	u.commit("v1.4", map[string]string{"README": "z\n"})
	u.git("tag", "v1.4")
	contains(t, u.must("rebase", "-to", "v1.4"), "v1.4: from the series for v1.2, 1 commit before it")
}

// What a new tip does to the read path is named in the line, and nothing is written.
func TestMainMovesReadPath(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"another copy", map[string]string{"kmod/src/file.c": fileH + iomapCopy + tailC + "#ifdef X\n" + readIter + "#endif\n"},
			"scoutfs_file_read_iter calls the read hook 0 times"},
		{"another function", map[string]string{
			"kmod/src/data.c": strings.Replace(strings.Replace(dataC, ".aio_read", ".x", 1), ".read_iter\t= scoutfs_file_read_iter", ".read_iter\t= scoutfs_other_read", 1),
			"kmod/src/more.c": strings.ReplaceAll(readIter, "scoutfs_file_read_iter", "scoutfs_other_read"),
		}, "kmod/src/more.c:1: scoutfs_other_read calls the read hook 0 times"},
		{"splice past it", map[string]string{"kmod/src/data.c": strings.Replace(strings.Replace(dataC, ".aio_read", ".x", 1), "generic_file_splice_read", "filemap_splice_read", 1)},
			"filemap_splice_read, which may read past the hook"},
		{"its end", map[string]string{"kmod/src/file.c": fileH + strings.ReplaceAll(iomapCopy, "\treturn ret;", "\treturn stand_in(ret);") + tailC},
			"0002 no longer applies in kmod/src/file.c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := withMain(t)
			base := u.read("main", "base.txt")
			u.commit("move", tt.files)
			out, status := u.run("upstream-check", "-write")
			if status != upstreamMain || strings.Count(out, "\n") != 1 {
				t.Errorf("exit status %d, not %d, or not one line", status, upstreamMain)
			}
			contains(t, out, "main needs work: ", tt.want)
			if u.read("main", "base.txt") != base {
				t.Error("it wrote a series that needs a person")
			}
		})
	}
}

// A change made in the releases' series and forgotten in that for main.
func TestMainStaysInStep(t *testing.T) {
	u := withMain(t)
	edit(t, u, "main", "0001", "+int drain;", "+int drains;")
	for _, src := range []string{u.dir, ""} {
		out, status := u.run("check", "-src", src, "main")
		if status != 1 {
			t.Errorf("exit status %d, not 1", status)
		}
		contains(t, out, "main: PROBLEM: kmod/src/notify.c differs from that of v1.2")
	}
}

// TestProject checks the project's own series as far as that needs no source: form,
// interface, and that main's adds what the releases' do.
func TestProject(t *testing.T) {
	var out, errs bytes.Buffer
	if status := execute(t.Context(), []string{"check", "-src", ""}, &out, &errs); status != 0 {
		t.Errorf("series check: exit status %d\n%s%s", status, &out, &errs)
	}
	contains(t, out.String(), "main: 3 patches are good")
}

// TestRealTip makes a release of the tip of real upstream's main, one commit further, and
// its series of the one in patches/main.
func TestRealTip(t *testing.T) {
	src := os.Getenv("SCOUTFS_SRC")
	if src == "" {
		t.Skip("SCOUTFS_SRC is not set: a ScoutFS repository with tags is needed")
	}
	t.Setenv("TMPDIR", t.TempDir())
	patches, err := repo.Patches()
	if err != nil {
		t.Fatal(err)
	}
	main, err := series.OpenMain(patches)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t, filepath.Join(t.TempDir(), "up"), filepath.Join(t.TempDir(), "patches")}
	if err := os.CopyFS(u.patches, os.DirFS(patches)); err != nil {
		t.Fatal(err)
	}
	c, err := newClone(t.Context(), src, u.dir)
	if err != nil {
		t.Fatal(err)
	}
	tip, name, err := (&options{src: src}).findBranch(t.Context())
	if err != nil || tip == "" {
		t.Fatalf("find upstream's main: %q %v", tip, err)
	}
	if n, err := distance(t.Context(), src, main.Base, tip); err != nil || n < 0 {
		t.Fatalf("%s does not contain the base of patches/main: %v", name, err)
	}
	c.must(t, "checkout", "-q", "-b", "next", tip)
	u.commit("v1.34 Release", map[string]string{"ReleaseNotes.md": "v1.34\n"})
	u.git("tag", "v1.34")
	out := u.must("rebase", "-to", "v1.34")
	contains(t, out, "v1.34: from the series for main, ", "v1.34: 3 patches written")
	contains(t, u.must("check", "v1.34"), "v1.34: 3 patches are good")
	if n := strings.Count(u.read("v1.34", "0002"), "\n+\tscoutfs_notify_read("); n != 2 {
		t.Errorf("%d read hooks instead of 2", n)
	}
}
