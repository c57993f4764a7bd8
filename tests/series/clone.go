// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// A clone is a scratch clone of the user's ScoutFS repository, which is only read.
type clone struct{ dir string }

// newClone makes a scratch clone of src, without a checkout, in dir, which must not
// exist. It uses the user's configuration, which may set safe.directory.
func newClone(ctx context.Context, src, dir string) (*clone, error) {
	src, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if _, err := run.Output(ctx, "git", "clone", "-q", "--shared", "--no-checkout", "--origin", "upstream", src, dir); err != nil {
		return nil, fmt.Errorf("clone %s: %w", src, err)
	}
	return &clone{dir}, nil
}

// throwaway makes a clone of a repository with a revision checked out, whose commit
// it returns. The clone is gone when the command ends.
func (o *options) throwaway(ctx context.Context, src, rev string) (c *clone, commit string, err error) {
	dir, err := os.MkdirTemp(o.tmp, "")
	if err != nil {
		return nil, "", err
	}
	if c, err = newClone(ctx, src, filepath.Join(dir, "scoutfs")); err != nil {
		return nil, "", err
	}
	if commit, err = c.commit(ctx, rev); err != nil {
		return nil, "", err
	}
	return c, commit, c.checkout(ctx, commit)
}

// checkSource returns an error unless src is a ScoutFS repository with tags.
func checkSource(ctx context.Context, src string) error {
	if src == "" {
		return errors.New("SCOUTFS_SRC is not set; set it to a ScoutFS checkout or bare repository with its tags")
	}
	out, err := run.Command{Dir: src, Argv: []string{"git", "tag", "--list", "v1.*"}}.Output(ctx)
	if err != nil {
		return fmt.Errorf("read SCOUTFS_SRC %s: %w", src, err)
	}
	if strings.TrimSpace(out) == "" {
		return fmt.Errorf("read SCOUTFS_SRC %s: it has no tag v1.*; fetch them: git -C %s fetch --tags", src, src)
	}
	return nil
}

// raw runs git in the clone without the user's configuration, which must not affect
// the exported series. It returns standard output unchanged.
func (c *clone) raw(ctx context.Context, args ...string) (string, error) {
	return run.Command{Dir: c.dir, Env: run.GitAlone, Argv: append([]string{"git", "-c", "advice.detachedHead=false"}, args...)}.Output(ctx)
}

// git is raw without the last line feed.
func (c *clone) git(ctx context.Context, args ...string) (string, error) {
	out, err := c.raw(ctx, args...)
	return strings.TrimSuffix(out, "\n"), err
}

// commit returns the commit id of a revision.
func (c *clone) commit(ctx context.Context, rev string) (string, error) {
	id, err := findCommit(ctx, c.dir, run.GitAlone, rev)
	if errors.Is(err, errNoCommit) {
		err = fmt.Errorf("%w; fetch it into SCOUTFS_SRC: git fetch --tags", err)
	}
	return id, err
}

var errNoCommit = errors.New("no such tag or commit")

// findCommit returns the commit id of a revision in a repository. The error is
// errNoCommit if there is no such revision; any other means that git cannot read the
// repository. With env nil, git uses the user's configuration.
func findCommit(ctx context.Context, dir string, env []string, rev string) (string, error) {
	argv := []string{"git", "rev-parse", "--verify", "--quiet", "--end-of-options", rev + "^{commit}"}
	out, err := run.Command{Dir: dir, Env: env, Argv: argv}.Output(ctx)
	if run.ExitStatus(err) == 1 {
		err = errNoCommit
	}
	if err != nil {
		return "", fmt.Errorf("find %s in %s: %w", rev, dir, err)
	}
	return strings.TrimSpace(out), nil
}

// distance returns how many commits a revision of a repository has that base has not,
// or -1 if it does not contain base, or the repository does not have that.
func distance(ctx context.Context, dir, base, rev string) (int, error) {
	git := func(args ...string) (string, error) {
		return run.Command{Dir: dir, Argv: append([]string{"git"}, args...)}.Output(ctx)
	}
	if _, err := findCommit(ctx, dir, nil, base); errors.Is(err, errNoCommit) {
		return -1, nil
	} else if err != nil {
		return 0, err
	}
	if _, err := git("merge-base", "--is-ancestor", base, rev); run.ExitStatus(err) == 1 {
		return -1, nil
	} else if err != nil {
		return 0, err
	}
	out, err := git("rev-list", "--count", base+".."+rev)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// checkout checks out a commit, detached.
func (c *clone) checkout(ctx context.Context, rev string) error {
	_, err := c.git(ctx, "checkout", "-q", "--force", "--detach", rev)
	return err
}

// commitSubjects returns the subjects of the commits after base, oldest first.
func (c *clone) commitSubjects(ctx context.Context, base string) ([]string, error) {
	out, err := c.git(ctx, "log", "--reverse", "--format=%s", base+"..HEAD")
	if err != nil || out == "" {
		return nil, err
	}
	return strings.Split(out, "\n"), nil
}

// operations lists the git commands that can wait for a person, by the file that they
// keep in .git meanwhile.
var operations = []struct{ file, name string }{
	{"rebase-apply/applying", "am"},
	{"rebase-apply", "rebase"},
	{"rebase-merge", "rebase"},
	{"MERGE_HEAD", "merge"},
	{"CHERRY_PICK_HEAD", "cherry-pick"},
	{"REVERT_HEAD", "revert"},
}

// inProgress returns the git command that waits for a person, or "".
func (c *clone) inProgress() string {
	for _, o := range operations {
		if _, err := os.Stat(filepath.Join(c.dir, ".git", o.file)); err == nil {
			return o.name
		}
	}
	return ""
}

// am applies a patch and commits it. With threeWay it may merge, and leaves a
// conflict in the clone. Without, an error leaves the clone unchanged.
func (c *clone) am(ctx context.Context, p *series.Patch, threeWay bool) error {
	argv := []string{"git", "am", "-q", "--committer-date-is-author-date", "--no-gpg-sign"}
	if threeWay {
		argv = append(argv, "--3way")
	}
	_, err := run.Command{Dir: c.dir, Env: run.GitAlone, Stdin: bytes.NewReader(p.Bytes()), Argv: argv}.Output(ctx)
	if err != nil && !threeWay && c.inProgress() == "am" {
		if _, aerr := c.git(context.WithoutCancel(ctx), "am", "--abort"); aerr != nil {
			err = errors.Join(err, aerr)
		}
	}
	return err
}

// conflicts names the files with conflicts, " in a.c and b.c", or returns "".
func (c *clone) conflicts(ctx context.Context) string {
	if files := c.conflicting(ctx); len(files) > 0 {
		return " in " + strings.Join(files, " and ")
	}
	return ""
}

// resolved reports whether git has resolved all conflicts of an am that waits, as
// rerere.autoupdate has it do. An am that waits for another reason has nothing staged.
func (c *clone) resolved(ctx context.Context) bool {
	staged, err := c.git(ctx, "diff", "--cached", "--name-only")
	return err == nil && staged != "" && len(c.conflicting(ctx)) == 0
}

// conflicting returns the files with conflicts.
func (c *clone) conflicting(ctx context.Context) []string {
	out, err := c.git(ctx, "diff", "--name-only", "--diff-filter=U")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

// export returns the commits after base, a commit's id, as the series for a release or
// for series.Main. The same commits give the same bytes on every machine.
func (c *clone) export(ctx context.Context, base, version string) (*series.Series, error) {
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
	s := &series.Series{Version: version, Base: version}
	if version == series.Main {
		s.Base = base
	}
	for name := range strings.Lines(out) {
		name = strings.TrimSpace(name)
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		p, err := series.ParsePatch(filepath.Base(name), text)
		if err != nil {
			return nil, err
		}
		s.Patches = append(s.Patches, p)
	}
	return s, nil
}

// show returns a file's text at a commit, and whether it exists there.
func (c *clone) show(ctx context.Context, rev, path string) (string, bool, error) {
	out, err := c.git(ctx, "ls-tree", "--name-only", rev, "--", path)
	if err != nil || out == "" {
		return "", false, err
	}
	text, err := c.raw(ctx, "cat-file", "blob", rev+":"+path)
	return text, err == nil, err
}

// source returns the text of the module's C files at HEAD, by path.
func (c *clone) source(ctx context.Context) (map[string]string, error) {
	out, err := c.git(ctx, "ls-tree", "--name-only", "HEAD", "kmod/src/")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, path := range slices.DeleteFunc(strings.Split(out, "\n"), func(p string) bool { return !isC(p) }) {
		if all[path], err = c.raw(ctx, "cat-file", "blob", "HEAD:"+path); err != nil {
			return nil, err
		}
	}
	return all, nil
}
