// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// options are what the subcommands have in common.
type options struct {
	patches string // folder of all series
	src     string // the user's ScoutFS repository
	kbuild  string // kernel build directory; "" builds nothing
	work    string // folder for clones that outlive the command
	out     io.Writer
}

// throwaway makes a clone of a repository that cleanup removes.
func throwaway(ctx context.Context, src string) (c *clone, cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "series-")
	if err != nil {
		return nil, nil, err
	}
	cleanup = func() { os.RemoveAll(dir) }
	if c, err = newClone(ctx, src, filepath.Join(dir, "scoutfs")); err != nil {
		cleanup()
		return nil, nil, err
	}
	return c, cleanup, nil
}

// reference reads the series for a version and applies it in a clone of its own.
func (o *options) reference(ctx context.Context, version string) (*reference, func(), error) {
	if err := checkSource(ctx, o.src); err != nil {
		return nil, nil, err
	}
	s, err := readSeries(o.patches, version)
	if err != nil {
		return nil, nil, err
	}
	c, cleanup, err := throwaway(ctx, o.src)
	if err != nil {
		return nil, nil, err
	}
	r, err := newReference(ctx, c, s)
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	return r, cleanup, nil
}

// errPerson says that a person has to go on; the report says with what.
var errPerson = errors.New("a person has to look at this")

// open returns the clone that a rebase to a release works in: a new one with the
// branch checked out, or the one that a person went on in. A clone of another
// series is refused: what stands in it would be exported as this one.
func (o *options) open(ctx context.Context, r *reference, to, dir, branch string) (*clone, error) {
	c := &clone{dir}
	mark := r.version + " " + r.sum()
	if _, err := os.Stat(dir); err == nil {
		// The configuration says nothing where making the clone was cut short.
		made, err := c.git(ctx, "config", "--local", "--default", "", "--get", markKey)
		switch version, _, _ := strings.Cut(made, " "); {
		case err != nil:
			return nil, fmt.Errorf("read the clone %s: %w\nstart over with RESTART=1, which throws the clone away", dir, err)
		case made == mark:
			return c, nil
		case made == "":
			return nil, fmt.Errorf("go on in the clone %s: it does not say which series it was made from; start over with RESTART=1, which throws the clone away", dir)
		case version == r.version:
			return nil, fmt.Errorf("go on in the clone %s: the series for %s has changed since; start over with RESTART=1, which throws the clone away", dir, version)
		default:
			return nil, fmt.Errorf("go on in the clone %s: it was made from the series for %s, not %s; start over with RESTART=1, which throws the clone away", dir, version, r.version)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(o.work, 0o755); err != nil {
		return nil, err
	}
	c, err := newClone(ctx, o.src, dir)
	if err != nil {
		return nil, err
	}
	if _, err = c.git(ctx, "checkout", "-q", "-b", branch, "refs/tags/"+to); err != nil {
		err = fmt.Errorf("check out %s: %w\nIs the tag there? git -C %s fetch --tags", to, err, o.src)
	} else {
		_, err = c.git(ctx, "config", "--local", markKey, mark)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// markKey names the series that a clone was made from in the clone's
// configuration: its version and sum.
const markKey = "scoutfs-notify.from"

// rebase carries the reference to the tag to, in a clone in the work folder, and
// writes the series when nothing is left for a person. Otherwise the clone stays,
// and run again it goes on from what a person left in it, unless restart is set.
func (o *options) rebase(ctx context.Context, r *reference, to string, restart bool) error {
	if !release.MatchString(to) {
		return fmt.Errorf("rebase to %q: releases are tags like v1.30", to)
	}
	dir, err := filepath.Abs(filepath.Join(o.work, to))
	if err != nil {
		return err
	}
	branch := "notify/" + to
	if restart {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	c, err := o.open(ctx, r, to, dir, branch)
	if err != nil {
		return err
	}
	base, err := c.commit(ctx, "refs/tags/"+to)
	if err != nil {
		return err
	}
	report := func(format string, args ...any) { fmt.Fprintf(o.out, to+": "+format+"\n", args...) }
	again := func() {
		report("the clone is %s (branch %s)", dir, branch)
		report("make rebase FROM=%s TO=%s goes on from there, with RESTART=1 it starts over", r.version, to)
	}

	if op := c.inProgress(); op != "" {
		report("git %s still waits: resolve the conflict, git add, then git %s --continue", op, op)
		again()
		return errPerson
	}
	head, err := c.git(ctx, "rev-parse", "--symbolic-full-name", "HEAD")
	if err != nil {
		return err
	}
	if head != "refs/heads/"+branch {
		report("the clone is not on its branch: git checkout %s", branch)
		again()
		return errPerson
	}
	if out, err := c.git(ctx, "status", "--porcelain", "--untracked-files=no"); err != nil {
		return err
	} else if out != "" {
		report("there are changes without a commit: amend the patch they belong to")
		again()
		return errPerson
	}
	done, err := c.commitSubjects(ctx, base)
	if err != nil {
		return err
	}
	for i, subject := range done {
		if i >= len(r.patches) || r.patches[i].subject() != subject {
			report("commit %d is %q, which is not patch %d of %s", i+1, subject, i+1, r.version)
			again()
			return errPerson
		}
	}
	for i := len(done); i < len(r.patches); i++ {
		s, err := r.carry(ctx, c, i)
		if s != nil {
			for _, n := range s.notes() {
				report("%s", n)
			}
		}
		if errors.Is(err, errConflict) {
			report("%v", err)
			report("resolve it, git add, then git am --continue")
			again()
			return errPerson
		}
		if err != nil {
			return err
		}
	}

	result, err := r.examine(ctx, c, base, to)
	if err != nil {
		return err
	}
	for _, n := range result.notes {
		report("%s", n)
	}
	for _, p := range result.problems {
		report("PROBLEM: %s", p)
	}
	if len(result.problems) > 0 {
		report("amend the patch that this belongs to (git rebase -i %s)", to)
		again()
		return errPerson
	}
	built := "not built: no -kbuild"
	if o.kbuild != "" {
		if err := c.build(ctx, o.kbuild); errors.Is(err, errBuild) {
			report("%v", err)
			again()
			return errPerson
		} else if err != nil {
			return err
		}
		built = "built without a warning"
	}
	if err := result.write(o.patches); err != nil {
		return err
	}
	report("%d patches written to %s, %s", len(result.patches), filepath.Join(o.patches, to), built)
	// The series is in patches/ now. A clone that stayed would be taken for it
	// by the next rebase.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the clone that is no longer needed: %w", err)
	}
	return nil
}

// regenerate makes every other series anew from the one for a version. It goes
// on after a series that needs a person, whose work it does not throw away unless
// restart is set.
func (o *options) regenerate(ctx context.Context, from string, restart bool) error {
	all, err := versions(o.patches)
	if err != nil {
		return err
	}
	if !slices.Contains(all, from) {
		return fmt.Errorf("regenerate from %s: no such series; there are %v", from, all)
	}
	r, cleanup, err := o.reference(ctx, from)
	if err != nil {
		return err
	}
	defer cleanup()
	var errs []error
	for _, v := range all {
		if v == from {
			continue
		}
		if err := o.rebase(ctx, r, v, restart); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v, err))
		}
	}
	return errors.Join(errs...)
}

// export writes what stands on a release's tag in a clone of the user's as the
// series for that release. The clone is only read, with the user's
// configuration; what is exported comes out of a clone of it, without.
func (o *options) export(ctx context.Context, dir, version string) error {
	if !release.MatchString(version) {
		return fmt.Errorf("export %q: releases are tags like v1.30", version)
	}
	base, err := findCommit(ctx, dir, userEnv(), "refs/tags/"+version)
	if errors.Is(err, errNoCommit) {
		return fmt.Errorf("export: %w; fetch it: git -C %s fetch --tags", err, dir)
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	head, err := findCommit(ctx, dir, userEnv(), "HEAD")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	c, cleanup, err := throwaway(ctx, dir)
	if err != nil {
		return fmt.Errorf("export from %s: %w", dir, err)
	}
	defer cleanup()
	if err := c.checkout(ctx, head); err != nil {
		return fmt.Errorf("export from %s: %w", dir, err)
	}
	stands, err := c.git(ctx, "merge-base", base, "HEAD")
	if err != nil && exitStatus(err) != 1 {
		return fmt.Errorf("export from %s: %w", dir, err)
	}
	if stands != base {
		return fmt.Errorf("export from %s: HEAD does not stand on %s; check out what you made on that tag", dir, version)
	}
	s := &series{version: version}
	if s.patches, err = c.export(ctx, base); err != nil {
		return fmt.Errorf("export from %s: %w", dir, err)
	}
	if len(s.patches) == 0 {
		return fmt.Errorf("export from %s: no commit stands on %s", dir, version)
	}
	source, err := c.source(ctx)
	if err != nil {
		return fmt.Errorf("export from %s: %w", dir, err)
	}
	problems := append(s.form(), checkHooks(source)...)
	for _, p := range problems {
		fmt.Fprintf(o.out, "%s: PROBLEM: %s\n", version, p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("nothing was written: %w", errPerson)
	}
	if err := s.write(o.patches); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s: %d patches written to %s\n", version, len(s.patches), filepath.Join(o.patches, version))
	return nil
}
