// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A clone is a scratch clone of the user's ScoutFS repository. The user's own is
// only ever read.
type clone struct{ dir string }

// cloneEnv is the environment of git inside a clone. The configuration of the
// user must not change what is exported, and a clone of ours needs nothing of it.
func cloneEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GIT_") })
	return append(env, "LC_ALL=C", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost",
		"GIT_AUTHOR_NAME=scoutfs-notify", "GIT_AUTHOR_EMAIL=scoutfs-notify@localhost")
}

// userEnv is the environment of git on the user's repository: with the user's
// configuration, which may say safe.directory, but without what points git at
// another repository, as in a hook.
func userEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "GIT_") && !strings.HasPrefix(e, "GIT_CONFIG")
	})
	return append(env, "LC_ALL=C")
}

// command runs a program to its end and returns what it wrote to standard
// output; an error carries what it wrote to both.
func command(ctx context.Context, dir string, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = env
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err,
			strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), nil
}

// exitStatus returns the status that a program exited with, by the error of
// command, 0 if that is none of a program's.
func exitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// checkSource tells whether src is a repository of ScoutFS with tags.
func checkSource(ctx context.Context, src string) error {
	if src == "" {
		return errors.New("SCOUTFS_SRC is not set; it names your ScoutFS repository, a work tree or a bare one, with its tags")
	}
	out, err := command(ctx, src, userEnv(), "git", "tag", "--list", "v1.*")
	if err != nil {
		return fmt.Errorf("read SCOUTFS_SRC %s: %w", src, err)
	}
	if strings.TrimSpace(out) == "" {
		return fmt.Errorf("read SCOUTFS_SRC %s: it has no tag v1.*; fetch them: git -C %s fetch --tags", src, src)
	}
	return nil
}

// newClone makes a scratch clone of src in dir, which must not exist, without
// files in it.
func newClone(ctx context.Context, src, dir string) (*clone, error) {
	src, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if _, err := command(ctx, "", userEnv(), "git", "clone", "-q", "--shared", "--no-checkout", "--origin", "upstream", src, dir); err != nil {
		return nil, fmt.Errorf("clone %s: %w", src, err)
	}
	return &clone{dir}, nil
}

func (c *clone) git(ctx context.Context, args ...string) (string, error) {
	out, err := command(ctx, c.dir, cloneEnv(), append([]string{"git", "-c", "advice.detachedHead=false"}, args...)...)
	return strings.TrimSuffix(out, "\n"), err
}

// commit returns the commit id of a revision.
func (c *clone) commit(ctx context.Context, rev string) (string, error) {
	id, err := findCommit(ctx, c.dir, cloneEnv(), rev)
	if errors.Is(err, errNoCommit) {
		err = fmt.Errorf("%w; fetch it into SCOUTFS_SRC: git fetch --tags", err)
	}
	return id, err
}

var errNoCommit = errors.New("no such tag or commit")

// findCommit returns the commit id of a revision in a repository, errNoCommit if
// it has none. Any other error is that git cannot read the repository.
func findCommit(ctx context.Context, dir string, env []string, rev string) (string, error) {
	out, err := command(ctx, dir, env, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if exitStatus(err) == 1 {
		err = errNoCommit
	}
	if err != nil {
		return "", fmt.Errorf("find %s in %s: %w", rev, dir, err)
	}
	return strings.TrimSpace(out), nil
}

// commitSubjects returns the subjects of the commits after base, oldest first.
func (c *clone) commitSubjects(ctx context.Context, base string) ([]string, error) {
	out, err := c.git(ctx, "log", "--reverse", "--format=%s", base+"..HEAD")
	if err != nil || out == "" {
		return nil, err
	}
	return strings.Split(out, "\n"), nil
}

// operations are what git is in the middle of when it waits for a person, by the
// file that it keeps in .git meanwhile.
var operations = []struct{ file, name string }{
	{"rebase-apply/applying", "am"},
	{"rebase-apply", "rebase"},
	{"rebase-merge", "rebase"},
	{"MERGE_HEAD", "merge"},
	{"CHERRY_PICK_HEAD", "cherry-pick"},
	{"REVERT_HEAD", "revert"},
}

// inProgress returns the git command that waits for a person, "" if none does.
func (c *clone) inProgress() string {
	for _, o := range operations {
		if _, err := os.Stat(filepath.Join(c.dir, ".git", o.file)); err == nil {
			return o.name
		}
	}
	return ""
}

// am applies a patch and commits it. With threeWay it may merge; a conflict
// then stays in the clone. Otherwise the clone is as before after an error.
func (c *clone) am(ctx context.Context, p *patch, threeWay bool) error {
	f, err := os.CreateTemp("", "series-*.patch")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(p.bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	args := []string{"am", "-q", "--committer-date-is-author-date", "--no-gpg-sign"}
	if threeWay {
		args = append(args, "--3way")
	}
	_, err = c.git(ctx, append(args, f.Name())...)
	if err != nil && !threeWay && c.inProgress() == "am" {
		if _, aerr := c.git(context.WithoutCancel(ctx), "am", "--abort"); aerr != nil {
			err = errors.Join(err, aerr)
		}
	}
	return err
}

// export returns the commits after base as patches. The same commits give the
// same bytes on every machine.
func (c *clone) export(ctx context.Context, base string) ([]*patch, error) {
	dir, err := os.MkdirTemp("", "series-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out, err := c.git(ctx, "format-patch", "-o", dir, "--zero-commit", "--no-signature", "--no-numbered",
		"--full-index", "--no-renames", "--unified=3", "--diff-algorithm=myers", base)
	if err != nil {
		return nil, err
	}
	var all []*patch
	for name := range strings.Lines(out) {
		name = strings.TrimSpace(name)
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p, err := parsePatch(filepath.Base(name), text)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// show returns a file of a commit, and whether the commit has it.
func (c *clone) show(ctx context.Context, rev, path string) (string, bool, error) {
	out, err := c.git(ctx, "ls-tree", "--name-only", rev, "--", path)
	if err != nil || out == "" {
		return "", false, err
	}
	text, err := command(ctx, c.dir, cloneEnv(), "git", "cat-file", "blob", rev+":"+path)
	return text, err == nil, err
}

// entries returns mode and id of some paths in a commit, of those that it has.
func (c *clone) entries(ctx context.Context, rev string, paths []string) (map[string]string, error) {
	all := map[string]string{}
	if len(paths) == 0 {
		return all, nil
	}
	out, err := c.git(ctx, append([]string{"ls-tree", rev, "--"}, paths...)...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		if entry, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			all[path] = entry
		}
	}
	return all, nil
}

// source returns the C files of the module at HEAD by path.
func (c *clone) source(ctx context.Context) (map[string]string, error) {
	out, err := c.git(ctx, "ls-tree", "--name-only", "HEAD", "kmod/src/")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, path := range strings.Split(out, "\n") {
		if !isC(path) {
			continue
		}
		text, _, err := c.show(ctx, "HEAD", path)
		if err != nil {
			return nil, err
		}
		all[path] = text
	}
	return all, nil
}

// errBuild is what build returns when the source is at fault, and not what the
// build needs.
var errBuild = errors.New("the module does not build")

// build runs upstream's own build of the module: sparse on every file, warnings
// as errors. Any warning is an error here.
func (c *clone) build(ctx context.Context, kbuild string) error {
	kbuild, err := filepath.Abs(kbuild)
	if err != nil {
		return err
	}
	for _, tool := range []string{"sparse", "make", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("build the module: %w; install the Debian package %s", err, tool)
		}
	}
	if _, err := os.Stat(filepath.Join(kbuild, "Makefile")); err != nil {
		return fmt.Errorf("build the module: %w; name a kernel's build directory", err)
	}
	argv := []string{"nice", "make", "-s", "-C", "kmod", "-j", fmt.Sprint(jobs()), "SK_KSRC=" + kbuild}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = c.dir, cloneEnv(), 5*time.Second
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if ctx.Err() != nil {
		return fmt.Errorf("run %s in %s: %w", strings.Join(argv, " "), c.dir, context.Cause(ctx))
	}
	if err != nil {
		if perr := probe(ctx, kbuild); perr != nil {
			return perr
		}
		return fmt.Errorf("%w: run %s in %s: %w\n%s", errBuild, strings.Join(argv, " "), c.dir, err, text)
	}
	for line := range strings.Lines(text) {
		// modpost only talks. Another compiler than the kernel's is no fault
		// of the series.
		if warning.MatchString(line) && !strings.Contains(line, "the compiler differs") {
			return fmt.Errorf("%w: run %s in %s: it warns\n%s", errBuild, strings.Join(argv, " "), c.dir, text)
		}
	}
	return nil
}

// probe builds a module of one line. Where that fails too, what is at fault is the
// compiler, the kernel's build directory or the disk.
func probe(ctx context.Context, kbuild string) error {
	dir, err := os.MkdirTemp("", "series-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"Makefile": "obj-m := probe.o\n",
		"probe.c":  "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := command(ctx, dir, cloneEnv(), "make", "-s", "-C", kbuild, "M="+dir, "modules"); err != nil {
		return fmt.Errorf("build an empty module against %s: %w\nname a kernel's build directory that is whole, as of kernel-devel or linux-headers", kbuild, err)
	}
	return nil
}

var warning = regexp.MustCompile(`(?i)\b(warning|error)\b`)
