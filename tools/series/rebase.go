// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// options are what the subcommands have in common.
type options struct {
	patches string // folder of all series
	src     string // the user's ScoutFS repository
	kbuild  string // kernel build directory; "" builds nothing
	work    string // folder for clones that outlive the command
	out     io.Writer
}

// throwaway makes a clone that cleanup removes.
func (o *options) throwaway(ctx context.Context) (c *clone, cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "series-")
	if err != nil {
		return nil, nil, err
	}
	cleanup = func() { os.RemoveAll(dir) }
	if c, err = newClone(ctx, o.src, filepath.Join(dir, "scoutfs")); err != nil {
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
	c, cleanup, err := o.throwaway(ctx)
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

// rebase carries the reference to the tag to, in a clone that stays in the work
// folder, and writes the series when nothing is left for a person. Run again it
// goes on from what a person left in the clone, unless restart is set.
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
	c := &clone{dir}
	if _, err := os.Stat(dir); err != nil {
		if err := os.MkdirAll(o.work, 0o755); err != nil {
			return err
		}
		if c, err = newClone(ctx, o.src, dir); err != nil {
			return err
		}
		if _, err := c.git(ctx, "checkout", "-q", "-b", branch, "refs/tags/"+to); err != nil {
			os.RemoveAll(dir)
			return fmt.Errorf("check out %s: %w\nIs the tag there? git -C %s fetch --tags", to, err, o.src)
		}
	}
	base, err := c.commit(ctx, "refs/tags/"+to)
	if err != nil {
		return err
	}
	report := func(format string, args ...any) { fmt.Fprintf(o.out, to+": "+format+"\n", args...) }
	again := func() {
		report("the clone is %s (branch %s)", dir, branch)
		report("run the same command again to go on, with RESTART=1 to start over")
	}

	if c.amInProgress() {
		report("git am still waits: resolve the conflict, git add, then git am --continue")
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
	built := "not built: no KBUILD"
	if o.kbuild != "" {
		if err := c.build(ctx, o.kbuild); err != nil {
			report("%v", err)
			again()
			return errPerson
		}
		built = "built without a warning"
	}
	if err := result.write(o.patches); err != nil {
		return err
	}
	report("%d patches written to %s, %s", len(result.patches), filepath.Join(o.patches, to), built)
	return nil
}

// regenerate makes every other series anew from the one for a version. It goes
// on after a series that needs a person.
func (o *options) regenerate(ctx context.Context, from string) error {
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
		if err := o.rebase(ctx, r, v, true); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v, err))
		}
	}
	return errors.Join(errs...)
}

// export writes what stands on a release's tag in a clone of the user's as the
// series for that release. The clone is only read.
func (o *options) export(ctx context.Context, dir, version string) error {
	if !release.MatchString(version) {
		return fmt.Errorf("export %q: releases are tags like v1.30", version)
	}
	c := &clone{dir}
	base, err := c.commit(ctx, "refs/tags/"+version)
	if err != nil {
		return err
	}
	if _, err := c.git(ctx, "merge-base", "--is-ancestor", base, "HEAD"); err != nil {
		return fmt.Errorf("export from %s: HEAD does not stand on %s", dir, version)
	}
	s := &series{version: version}
	if s.patches, err = c.export(ctx, base); err != nil {
		return err
	}
	source, err := c.source(ctx)
	if err != nil {
		return err
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
