// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const headerPatch = `Subject: [PATCH] x

diff --git a/kmod/src/notify_ioctl.h b/kmod/src/notify_ioctl.h
new file mode 100644
--- /dev/null
+++ b/kmod/src/notify_ioctl.h
@@ -0,0 +1 @@
+/* %s */
`

// scratch is a repository with a first commit.
type scratch struct {
	t   *testing.T
	dir string
}

func newScratch(t *testing.T) *scratch {
	t.Helper()
	patch := fmt.Sprintf(headerPatch, "one ABI")
	s := &scratch{t: t, dir: writeFiles(t, map[string]string{
		"packaging/scoutfs-notify.spec": "", "dkms/kernels.txt": "",
		"packaging/changelog":   "* Mon Nov 23 2026 Somebody <some@body.invalid> - 1\n- First.\n",
		"patches/RELEASE":       "1\n",
		"patches/v1.9/base.txt": "v1.9\n", "patches/v1.9/0001-a.patch": patch,
		"patches/v1.30/base.txt": "v1.30\n", "patches/v1.30/0001-a.patch": patch,
	})}
	s.git("init", "-q", "-b", "main")
	s.commit()
	return s
}

func (s *scratch) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scratch) git(args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "git", args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *scratch) commit() {
	s.t.Helper()
	s.git("add", "-A")
	s.git("commit", "-q", "-m", "change")
}

func (s *scratch) release(dry bool) (string, error) {
	s.t.Helper()
	var out bytes.Buffer
	p, err := openProject(s.dir, func(string) string { return "" }, &out)
	if err != nil {
		return "", err
	}
	err = p.releaseTags(s.t.Context(), dry)
	return out.String(), err
}

// writeHook makes a repository log the refs of each push.
func writeHook(t *testing.T, dir string) {
	t.Helper()
	const hook = "#!/bin/sh\n{ cut -d' ' -f3; echo --; } >> pushes\n"
	if err := os.WriteFile(filepath.Join(dir, "hooks", "post-receive"), []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (s *scratch) tags() string { return strings.ReplaceAll(s.git("tag"), "\n", " ") }

func TestRelease(t *testing.T) {
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.invalid",
		"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.invalid",
	} {
		t.Setenv(name, value)
	}
	refused := func(t *testing.T, s *scratch, want string) {
		t.Helper()
		before := s.tags()
		if _, err := s.release(false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
		if got := s.tags(); got != before {
			t.Errorf("tags %q, before %q", got, before)
		}
	}

	t.Run("tags", func(t *testing.T) {
		s := newScratch(t)
		out, err := s.release(true)
		if err != nil || !strings.Contains(out, "v1.9-notify-1 v1.30-notify-1") || s.tags() != "" {
			t.Fatalf("-n: %v, tags %q\n%s", err, s.tags(), out)
		}
		if out, err = s.release(false); err != nil {
			t.Fatal(err)
		}
		if got := s.tags(); got != "v1.30-notify-1 v1.9-notify-1" {
			t.Errorf("tags %q", got)
		}
		if got := s.git("cat-file", "-t", "v1.9-notify-1"); got != "tag" {
			t.Errorf("the tag is a %s", got)
		}
		// The printed command pushes one tag at a time, the newest series' last.
		remote := t.TempDir()
		s.git("init", "-q", "--bare", remote)
		s.git("remote", "add", "origin", remote)
		writeHook(t, remote)
		_, publish, ok := strings.Cut(out, "publish with: ")
		if !ok {
			t.Fatalf("the output does not say how to publish:\n%s", out)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", publish)
		cmd.Dir = s.dir
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", publish, err, text)
		}
		pushes, err := os.ReadFile(filepath.Join(remote, "pushes"))
		if want := "refs/tags/v1.9-notify-1\n--\nrefs/tags/v1.30-notify-1\n--\n"; err != nil || string(pushes) != want {
			t.Errorf("pushed\n%s%v, want\n%s", pushes, err, want)
		}
		// A second time, at the same commit, there is nothing to do.
		if out, err := s.release(false); err != nil || !strings.Contains(out, "already") {
			t.Errorf("a second time: %v\n%s", err, out)
		}
		// A published release does not change.
		s.write("patches/v1.9/notes", "")
		s.commit()
		refused(t, s, "needs a higher number")
		s.write("patches/RELEASE", "2\n")
		s.commit()
		refused(t, s, "patches/RELEASE says 2, packaging/changelog begins with 1")
	})
	t.Run("not clean", func(t *testing.T) {
		s := newScratch(t)
		s.write("left", "")
		refused(t, s, "left")
	})
	t.Run("headers differ", func(t *testing.T) {
		s := newScratch(t)
		s.write("patches/v1.30/0001-a.patch", fmt.Sprintf(headerPatch, "another ABI"))
		s.commit()
		refused(t, s, "differs between the series for v1.9 and v1.30")
	})
	t.Run("a tag cannot be created", func(t *testing.T) {
		s := newScratch(t)
		// This name keeps git from creating the second tag.
		s.git("tag", "v1.30-notify-1/x")
		refused(t, s, "v1.30-notify-1")
	})
}

// The job in docs/ci.md starts for one tag of a release, the last.
func TestReleaseStartsJob(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	newest := p.releases[len(p.releases)-1].Version
	if want := fmt.Sprintf("tags: [%q]\n", newest+"-notify-*"); strings.Count(string(text), "tags:") != 1 || !strings.Contains(string(text), want) {
		t.Errorf("the job in docs/ci.md is not started by the newest series' tags: it lacks %q", want)
	}
	// It compiles for the newest kernel of EL9 those that are for the newest kernels.
	var compiled []string
	for _, s := range p.releases {
		if _, err := os.Stat(filepath.Join(s.Dir, "kernels.txt")); errors.Is(err, fs.ErrNotExist) {
			compiled = append(compiled, s.Version)
		}
	}
	if want := fmt.Sprintf("{chroot: el9, compile: %q}\n", strings.Join(compiled, " ")); !strings.Contains(string(text), want) {
		t.Errorf("the job in docs/ci.md compiles others: it lacks %q", want)
	}
}

// Errors say what to do without mock and for an unknown chroot.
func TestMock(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := p.mock(t.Context(), []string{"el7"}); err == nil || !strings.Contains(err.Error(), `no chroot "el7", only el10, el8, el9`) {
		t.Errorf("error %v", err)
	}
	if err := p.mock(t.Context(), []string{"../mock/el9"}); err == nil {
		t.Error("a path was accepted as a chroot")
	}
	if err := p.mock(t.Context(), []string{"el9"}); err == nil || !strings.Contains(err.Error(), "dnf install mock") {
		t.Errorf("error %v", err)
	}
}
