// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// open reads the series for a release or for series.Main.
func (o *options) open(version string) (*series.Series, error) {
	if version == series.Main {
		return series.OpenMain(o.patches)
	}
	return series.Open(o.patches, version)
}

// reference reads the series for a version and applies it in a clone of its own.
func (o *options) reference(ctx context.Context, version string) (*reference, error) {
	if err := checkSource(ctx, o.src); err != nil {
		return nil, err
	}
	s, err := o.open(version)
	if err != nil {
		return nil, err
	}
	c, base, err := o.throwaway(ctx, o.src, s.Rev())
	if err != nil {
		return nil, err
	}
	return newReference(ctx, c, base, s)
}

// errPerson means that a person must continue; the report says how.
var errPerson = errors.New("a person has to look at this")

// A rebase carries a reference to a release, in a clone in the work folder. If it
// needs a person, the clone stays, and the next run goes on from what the person
// left in it.
type rebase struct {
	*options
	r      *reference
	to     string // release, or series.Main
	dir    string // of the clone
	branch string // in the clone
	c      *clone
	base   string // commit of the release, or of upstream's main
}

// rebaseOne implements the command rebase.
func (o *options) rebaseOne(ctx context.Context) error {
	if err := o.chooseFrom(ctx); err != nil {
		return err
	}
	r, err := o.reference(ctx, o.from)
	if err != nil {
		return err
	}
	return o.rebase(ctx, r, o.to)
}

// chooseFrom sets from, unless it is set, and says so.
func (o *options) chooseFrom(ctx context.Context) error {
	if o.from != "" {
		return nil
	}
	if err := checkSource(ctx, o.src); err != nil {
		return err
	}
	rev, err := o.target(ctx, o.to)
	if err != nil {
		return err
	}
	version, commits, err := o.nearest(ctx, rev)
	if err != nil {
		return err
	}
	if version == "" {
		return fmt.Errorf("rebase to %s: it contains nothing that has a series; name one with -from", o.to)
	}
	o.from = version
	o.report(o.to, "from the series for %s, %s before it", version, count(commits, "commit"))
	return nil
}

// nearest returns the series whose base has the fewest commits between it and a revision,
// of those that the revision contains: that of a release, or of main. There may be none,
// which is "".
func (o *options) nearest(ctx context.Context, rev string) (version string, commits int, err error) {
	all, err := series.Versions(o.patches)
	if err != nil {
		return "", 0, err
	}
	for _, v := range append(all, series.Main) {
		s, err := o.open(v)
		if errors.Is(err, fs.ErrNotExist) && v == series.Main {
			continue
		}
		if err != nil {
			return "", 0, err
		}
		n, err := distance(ctx, o.src, s.Rev(), rev)
		if err != nil {
			return "", 0, err
		}
		if n >= 0 && (version == "" || n < commits) {
			version, commits = v, n
		}
	}
	return version, commits, nil
}

// target returns what to carry a series to: a release's tag, or the tip of upstream's
// main.
func (o *options) target(ctx context.Context, to string) (string, error) {
	if to != series.Main {
		_, err := findCommit(ctx, o.src, nil, "refs/tags/"+to)
		if errors.Is(err, errNoCommit) {
			err = fmt.Errorf("%w; upstream may not have released it yet, or: git -C %s fetch --tags", err, o.src)
		}
		return "refs/tags/" + to, err
	}
	tip, _, err := o.findBranch(ctx)
	if err == nil && tip == "" {
		err = errors.New("find upstream's main: SCOUTFS_SRC has none of origin/main, upstream/main and main; name it with -branch")
	}
	return tip, err
}

// regenerate recreates the series of every other release from the one for a version. It
// goes on after a series that needs a person, and keeps that person's work unless
// restart is set. It leaves main alone, which differs where upstream does: check compares
// what both add.
func (o *options) regenerate(ctx context.Context) error {
	all, err := series.Versions(o.patches)
	if err != nil {
		return err
	}
	if !slices.Contains(all, o.from) {
		return fmt.Errorf("regenerate from %s: no such series; there are %v", o.from, all)
	}
	r, err := o.reference(ctx, o.from)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range all {
		if v == o.from {
			continue
		}
		if err := o.rebase(ctx, r, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v, err))
		}
	}
	return errors.Join(errs...)
}

// rebase carries the reference to a release and writes its series, unless that needs
// a person.
func (o *options) rebase(ctx context.Context, r *reference, to string) error {
	if to != series.Main && !series.IsRelease(to) {
		return fmt.Errorf("rebase to %q: releases are tags like v1.30, and there is main", to)
	}
	b := &rebase{options: o, r: r, to: to, branch: "notify/" + to}
	var err error
	if o.work == "" {
		if o.work, err = repo.CacheDir("rebase"); err != nil {
			return err
		}
	}
	if b.dir, err = filepath.Abs(filepath.Join(o.work, to)); err != nil {
		return err
	}
	if o.restart {
		if err := os.RemoveAll(b.dir); err != nil {
			return err
		}
	}
	if b.c, err = b.open(ctx); err != nil {
		return err
	}
	done, err := b.check(ctx)
	if err != nil {
		return err
	}
	at := done // the patch that is carried
	err = r.carryAll(ctx, b.c, done, func(s *step) {
		for _, n := range s.notes() {
			o.report(to, "%s", n)
		}
		at++
	})
	if errors.Is(err, errConflict) {
		return b.person("%v\n\n%s\n%s: resolve it in the clone, git add, then git am --continue", err, b.conflict(ctx, at-1), to)
	}
	if err != nil {
		return err
	}
	return b.finish(ctx)
}

// remember has git keep how a person resolves a conflict, beside the clones, and do the
// same when it comes again: after RESTART=1, or at the next release.
func (b *rebase) remember(ctx context.Context, c *clone) error {
	kept, err := filepath.Abs(filepath.Join(b.work, "rr-cache"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(kept, filepath.Join(c.dir, ".git", "rr-cache")); err != nil {
		return err
	}
	for _, setting := range [][]string{
		{"rerere.enabled", "true"}, {"rerere.autoUpdate", "true"},
		{"merge.conflictStyle", "diff3"}, // a conflict has what was there before, too
	} {
		if _, err := c.git(ctx, append([]string{"config", "--local"}, setting...)...); err != nil {
			return err
		}
	}
	return nil
}

// person reports what a person has to do, where, and how to go on.
func (b *rebase) person(format string, args ...any) error {
	b.report(b.to, format, args...)
	b.report(b.to, "the clone is %s (branch %s)", b.dir, b.branch)
	b.report(b.to, "make rebase FROM=%s TO=%s goes on from there, with RESTART=1 it starts over", b.r.Version, b.to)
	return errPerson
}

// Settings in a clone.
const (
	markKey = "scoutfs-notify.from" // the series it was made from, as mark names it
	baseKey = "scoutfs-notify.base" // the commit that it is carried to: a branch moves on
)

// mark names a series by its release and its last commit, whose id is the same
// wherever the same patches are applied.
func (r *reference) mark() string { return r.Version + " " + r.commits[len(r.commits)-1] }

// open returns the clone: a new one with the branch checked out, or the one in which
// a person works. It refuses a clone made from another series, whose commits would be
// exported as this one.
func (b *rebase) open(ctx context.Context) (*clone, error) {
	_, err := os.Stat(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return b.create(ctx)
	}
	if err != nil {
		return nil, err
	}
	const startOver = "start over with RESTART=1, which throws the clone away"
	c := &clone{b.dir}
	// The setting is missing if making the clone was interrupted.
	made, err := c.git(ctx, "config", "--local", "--default", "", "--get", markKey)
	if err != nil {
		return nil, fmt.Errorf("read the clone %s: %w\n%s", b.dir, err, startOver)
	}
	why := ""
	switch version, _, _ := strings.Cut(made, " "); {
	case made == b.r.mark():
		b.base, err = c.git(ctx, "config", "--local", "--get", baseKey)
		return c, err
	case made == "":
		why = "it does not say which series it was made from"
	case version == b.r.Version:
		why = "the series for " + version + " has changed since"
	default:
		why = "it was made from the series for " + version + ", not " + b.r.Version
	}
	return nil, fmt.Errorf("go on in the clone %s: %s; %s", b.dir, why, startOver)
}

// create makes the clone.
func (b *rebase) create(ctx context.Context) (*clone, error) {
	rev, err := b.target(ctx, b.to)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return nil, err
	}
	c, err := newClone(ctx, b.src, b.dir)
	if err != nil {
		return nil, err
	}
	if _, err = c.git(ctx, "checkout", "-q", "-b", b.branch, rev); err != nil {
		err = fmt.Errorf("check out %s: %w", b.to, err)
	} else if b.base, err = c.commit(ctx, "HEAD"); err == nil {
		_, err = c.git(ctx, "config", "--local", baseKey, b.base)
	}
	if err == nil {
		err = b.remember(ctx, c)
	}
	if err == nil { // last: without it the clone is not whole
		_, err = c.git(ctx, "config", "--local", markKey, b.r.mark())
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return c, nil
}

// check checks what a person left in the clone and returns how many patches are done.
func (b *rebase) check(ctx context.Context) (done int, err error) {
	if op := b.c.inProgress(); op != "" {
		return 0, b.person("git %s still waits: resolve the conflict, git add, then git %s --continue", op, op)
	}
	head, err := b.c.git(ctx, "rev-parse", "--symbolic-full-name", "HEAD")
	if err != nil {
		return 0, err
	}
	if head != "refs/heads/"+b.branch {
		return 0, b.person("the clone is not on its branch: git checkout %s", b.branch)
	}
	dirty, err := b.c.git(ctx, "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return 0, err
	}
	if dirty != "" {
		return 0, b.person("there are uncommitted changes: amend the patch they belong to")
	}
	subjects, err := b.c.commitSubjects(ctx, b.base)
	if err != nil {
		return 0, err
	}
	for i, subject := range subjects {
		if i >= len(b.r.Patches) || b.r.Patches[i].Subject() != subject {
			return 0, b.person("commit %d is %q, which is not patch %d of %s", i+1, subject, i+1, b.r.Version)
		}
	}
	return len(subjects), nil
}

// finish examines, builds and writes the carried series.
func (b *rebase) finish(ctx context.Context) error {
	result, err := b.r.examine(ctx, b.c, b.base, b.to)
	if err != nil {
		return err
	}
	for _, n := range result.notes {
		b.report(b.to, "%s", n)
	}
	for _, p := range result.problems {
		b.report(b.to, "PROBLEM: %s", p)
	}
	if len(result.problems) > 0 {
		return b.person("amend the patch that this belongs to (git rebase -i %.12s)", b.base)
	}
	built := "not built: no -kbuild"
	if b.kbuild != "" {
		b.progress("building %s, which takes minutes", b.to)
		if err := b.c.build(ctx, b.kbuild); errors.Is(err, errBuild) {
			return b.person("%v", err)
		} else if err != nil {
			return err
		}
		built = "built without a warning"
	}
	if err := b.write(result.Series); err != nil {
		return err
	}
	b.report(b.to, "%d patches written to %s, %s", len(result.Patches), filepath.Join(b.patches, b.to), built)
	// The series is in patches/ now. The next rebase would continue in a clone that
	// stays.
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove the finished clone: %w", err)
	}
	return nil
}
