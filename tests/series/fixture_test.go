// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The stand-in for upstream: a few lines in the layout and style of ScoutFS's
// files, none of them copied from it.
const (
	dataC = `#include "file.h"

static int stand_in_fsync(struct file *file)
{
	return 0;
}

const struct file_operations scoutfs_file_fops = {
#ifdef KC_LINUX_HAVE_FOP_AIO_READ
	.aio_read	= scoutfs_file_aio_read,
#endif
	.read_iter	= scoutfs_file_read_iter,
	.splice_read	= generic_file_splice_read,
	.fsync		= stand_in_fsync,
	.llseek		= stand_in_llseek,
};

const struct file_operations stand_in_dir_fops = {
	.read		= generic_read_dir,
};
`
	aioRead = `ssize_t scoutfs_file_aio_read(struct kiocb *iocb, const struct iovec *iov,
			      unsigned long nr_segs, loff_t pos)
{
	int ret;

	ret = stand_in_aio(iocb, iov, nr_segs, pos);
	return ret;
}

`
	readIter = `ssize_t scoutfs_file_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	int ret;
retry:
	ret = stand_in_wait(iocb);
	if (ret > 0)
		goto retry;

	ret = generic_file_read_iter(iocb, to);
out:
	stand_in_unlock(iocb);

	return ret;
}
`
	tailC = `
int stand_in_permission(struct inode *inode, int mask)
{
	return 0;
}
`
	fileH = "#include <linux/fs.h>\n#include \"file.h\"\n#include \"per_task.h\"\n\n"
)

// upstream is the stand-in's repository, with the folder of its series.
type upstream struct {
	t       *testing.T
	dir     string
	patches string
}

func (u *upstream) git(args ...string) string {
	u.t.Helper()
	out, err := (&clone{u.dir}).git(u.t.Context(), args...)
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// commit writes files and commits them.
func (u *upstream) commit(message string, files map[string]string) {
	u.t.Helper()
	for path, text := range files {
		file := filepath.Join(u.dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			u.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			u.t.Fatal(err)
		}
	}
	u.git("add", "-A")
	u.git("commit", "-q", "-m", message)
}

// newUpstream makes releases v1.1 and v1.2 of the stand-in, the second without
// scoutfs_file_aio_read, and the series for v1.1.
func newUpstream(t *testing.T) *upstream {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("these tests need git")
	}
	t.Setenv("TMPDIR", t.TempDir())
	u := &upstream{t, filepath.Join(t.TempDir(), "up"), filepath.Join(t.TempDir(), "patches")}
	if err := os.Mkdir(u.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	u.git("init", "-q", "-b", "main")
	u.commit("v1.1", map[string]string{
		"kmod/src/data.c": dataC,
		"kmod/src/file.c": fileH + aioRead + readIter + tailC,
		"tests/sequence":  "a.sh\nb.sh\nfirst.sh\nsecond.sh\nthird.sh\n",
	})
	u.git("tag", "v1.1")

	u.commit("scoutfs: add a ring\n\nSigned-off-by: A <a@example.org>", map[string]string{
		"kmod/src/notify_ioctl.h": "#define SCOUTFS_IOC_READ_NOTIFY 0xc020e819\n",
		"kmod/src/notify.c":       "int ring;\n\n#ifdef KC_USE_IOMAP_FOR_IO\n#error\n#endif\n\nint drain;\n",
	})
	hook := "\tscoutfs_notify_read(iocb, ret);\n\treturn ret;\n}\n"
	plain := "\treturn ret;\n}\n"
	u.commit("scoutfs: tell the reader\n\nSigned-off-by: A <a@example.org>", map[string]string{
		"kmod/src/data.c": strings.Replace(dataC, "llseek,\n", "llseek,\n\t.open\t\t= scoutfs_notify_open,\n", 1),
		"kmod/src/file.c": strings.Replace(fileH, "\"per_task.h\"\n", "\"per_task.h\"\n#include \"notify.h\"\n", 1) +
			strings.Replace(aioRead+readIter, plain, hook, 2) + tailC,
	})
	u.commit("scoutfs: test it\n\nSigned-off-by: A <a@example.org>", map[string]string{
		"tests/sequence": "a.sh\nb.sh\nfirst.sh\nsecond.sh\nnotify.sh\nthird.sh\n",
	})
	s, err := (&clone{u.dir}).export(t.Context(), "v1.1", "v1.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&options{patches: u.patches}).write(s); err != nil {
		t.Fatal(err)
	}

	u.git("reset", "-q", "--hard", "v1.1")
	u.commit("v1.2", map[string]string{
		"kmod/src/data.c": strings.Replace(dataC, "#ifdef KC_LINUX_HAVE_FOP_AIO_READ\n\t.aio_read\t= scoutfs_file_aio_read,\n#endif\n", "", 1),
		"kmod/src/file.c": fileH + readIter + tailC,
		"tests/sequence":  "zeroth.sh\na.sh\nb.sh\nfirst.sh\nsecond.sh\nthird.sh\n",
	})
	u.git("tag", "v1.2")
	return u
}

// run runs the command on the stand-in. It returns its standard output followed by
// its standard error, and its exit status.
func (u *upstream) run(args ...string) (string, int) {
	u.t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{args[0], "-patches", u.patches, "-src", u.dir, "-work", filepath.Join(filepath.Dir(u.dir), "work")}, args[1:]...)
	status := execute(context.Background(), args, &out, &errs)
	return out.String() + errs.String(), status
}

// must is run, but fails the test unless the exit status is 0.
func (u *upstream) must(args ...string) string {
	u.t.Helper()
	out, status := u.run(args...)
	if status != 0 {
		u.t.Fatalf("series %v: exit status %d\n%s", args, status, out)
	}
	return out
}

// work returns the clone that a rebase to a version leaves for a person.
func (u *upstream) work(version string) *clone {
	return &clone{filepath.Join(filepath.Dir(u.dir), "work", version)}
}

// must is git, but fails the test on an error.
func (c *clone) must(t *testing.T, args ...string) {
	t.Helper()
	if _, err := c.git(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// patched makes a user's clone: at a release, with its series applied.
func (u *upstream) patched(version string) *clone {
	u.t.Helper()
	c := &clone{filepath.Join(u.t.TempDir(), "clone")}
	u.git("clone", "-q", "--branch", version, u.dir, c.dir)
	names, err := filepath.Glob(filepath.Join(u.patches, version, "*.patch"))
	if err != nil {
		u.t.Fatal(err)
	}
	c.must(u.t, append([]string{"am", "-q"}, names...)...)
	return c
}

func (u *upstream) read(version, prefix string) string {
	u.t.Helper()
	names, err := filepath.Glob(filepath.Join(u.patches, version, prefix+"*"))
	if err != nil || len(names) != 1 {
		u.t.Fatalf("files %s* for %s: %v %v", prefix, version, names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		u.t.Fatal(err)
	}
	return string(text)
}
