// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
)

// The stand-in upstream: a git repository with the layout of ScoutFS's, the stand-in
// file system as its module, its own tags and, for each tag, a series written by git
// format-patch. The series add the real notify files, from this repository's newest
// series.

const standinMakefile = `obj-$(CONFIG_SCOUTFS_FS) := scoutfs.o

CFLAGS_describe.o = -DSCOUTFS_GIT_DESCRIBE=\"$(SCOUTFS_GIT_DESCRIBE)\"

-include $(src)/Makefile.kernelcompat
include $(src)/Makefile.compat

scoutfs-y +=			\
	describe.o		\
	sysfs.o			\
	testfs.o
`

// ScoutFS, too, looks for interfaces in the kernel's headers by paths that are relative to
// the folder in which make runs.
const standinKernelcompat = `
ifneq (,$(shell grep 'struct file_operations {' include/linux/fs.h))
ccflags-y += -DKC_FILE_OPERATIONS
endif
`

// ScoutFS's module, too, says which source it was built from.
const standinDescribe = `// SPDX-License-Identifier: GPL-2.0-only
#include <linux/module.h>
MODULE_INFO(git_describe, SCOUTFS_GIT_DESCRIBE);
#ifndef KC_FILE_OPERATIONS
#error "the kernel's headers were not found"
#endif
`

// upstream is a repository in dir/upstream, with its series in folders of dir that
// writeSeries writes.
type upstream struct {
	t   *testing.T
	dir string
}

func newUpstream(t *testing.T, dir string, versions ...string) *upstream {
	t.Helper()
	s := &upstream{t: t, dir: dir}
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	s.git("init", "-q", "-b", "main", ".")
	for _, f := range []string{"testfs.c", "sysfs.c", "super.h", "ioctl.h", "counters.h", "Makefile.compat"} {
		text, err := os.ReadFile(filepath.Join(repo, "tests", "testfs", f))
		if err != nil {
			t.Fatal(err)
		}
		s.write("kmod/src/"+f, string(text))
	}
	s.write("kmod/src/Makefile", standinMakefile)
	s.write("kmod/src/Makefile.kernelcompat", standinKernelcompat)
	s.write("kmod/src/describe.c", standinDescribe)
	// Upstream, too, has a script there, and documents beside kmod.
	s.write("kmod/src/filter.sh", "#!/bin/bash\nexit 0\n")
	if err := os.Chmod(s.path("kmod/src/filter.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("ReleaseNotes.md", "Nothing yet.\n")
	s.commit("stand-in for ScoutFS")
	for _, v := range versions {
		s.git("checkout", "-q", "-b", "release-"+v, "main")
		s.write("ReleaseNotes.md", v+"\n")
		s.commit(v + " Release")
		s.git("tag", v)
	}
	return s
}

func (s *upstream) path(name string) string { return filepath.Join(s.dir, "upstream", name) }

func (s *upstream) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// git runs git in the upstream repository, without the user's configuration.
func (s *upstream) git(args ...string) string {
	s.t.Helper()
	if err := os.MkdirAll(s.path(""), 0o755); err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), "git", args...)
	cmd.Dir = s.path("")
	const who, mail, when = "Stand In", "standin@example.invalid", "2026-01-02T03:04:05Z"
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME="+who, "GIT_AUTHOR_EMAIL="+mail, "GIT_AUTHOR_DATE="+when,
		"GIT_COMMITTER_NAME="+who, "GIT_COMMITTER_EMAIL="+mail, "GIT_COMMITTER_DATE="+when)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("git %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func (s *upstream) commit(subject string) {
	s.t.Helper()
	s.git("add", "-A")
	s.git("commit", "-q", "-m", subject)
}

// writeSeries writes dir/name in the layout of patches/. release is N, and edit changes
// the last patch of each series.
func (s *upstream) writeSeries(name string, release int, edit func(version string)) {
	s.t.Helper()
	out := filepath.Join(s.dir, name)
	for _, v := range strings.Fields(s.git("tag")) {
		s.git("checkout", "-q", "-B", name+"-"+v, v)
		s.addNotify()
		s.commit("add the ring")
		s.write("kmod/src/Makefile", strings.Replace(standinMakefile, "\tdescribe.o		\\\n",
			"\tdescribe.o		\\\n\tnotify.o		\\\n", 1)+"\nCFLAGS_notify.o = -I$(src)\nccflags-y += -DTESTFS_NOTIFY\n")
		s.write("tests/notify", "a file outside kmod\n")
		if edit != nil {
			edit(v)
		}
		s.commit("call the hooks")
		s.git("format-patch", "-q", "--zero-commit", "--no-signature", "-o", filepath.Join(out, v), v)
		s.writeOut(filepath.Join(out, v, "base.txt"), v+"\n")
		s.writeOut(filepath.Join(out, v, "kernels.txt"), "^(5[.]10|6[.]1)[.]\n")
	}
	s.writeOut(filepath.Join(out, "RELEASE"), fmt.Sprintln(release))
}

func (s *upstream) writeOut(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// addNotify writes the notify files of this repository's newest series.
func (s *upstream) addNotify() {
	s.t.Helper()
	series, err := repo.Newest()
	if err != nil {
		s.t.Fatal(err)
	}
	for path, text := range standin.NotifyFiles(series) {
		s.write(path, text)
	}
}
