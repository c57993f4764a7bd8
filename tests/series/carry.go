// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// A reference is a series on the commit it was made for. Carried series are
// compared with it.
type reference struct {
	*series.Series
	c       *clone   // has the commits
	commits []string // the base, then one for each patch
}

// newReference applies a series to its own tag in a clone, without --3way.
func newReference(ctx context.Context, c *clone, base string, s *series.Series) (*reference, error) {
	if err := c.checkout(ctx, base); err != nil {
		return nil, err
	}
	r := &reference{Series: s, c: c, commits: []string{base}}
	for _, p := range s.Patches {
		if err := c.am(ctx, p, false); err != nil {
			return nil, fmt.Errorf("apply %s to its own tag %s: %w", p.Name, s.Version, err)
		}
		id, err := c.commit(ctx, "HEAD")
		if err != nil {
			return nil, err
		}
		r.commits = append(r.commits, id)
	}
	return r, nil
}

// A step says how a patch was carried to another base.
type step struct {
	patch   *series.Patch // what was applied, without the hunks that were left out
	leftOut []string
	merged  bool // the context differed and git merged it
	again   bool // git resolved a conflict as a person did before
}

// notes returns what a person should know about the step.
func (s *step) notes() []string {
	var all []string
	for _, l := range s.leftOut {
		all = append(all, fmt.Sprintf("%s: left out the change to %s, which is gone", s.patch.Name, l))
	}
	switch {
	case s.again:
		all = append(all, fmt.Sprintf("%s: did not apply, the conflict was resolved as it was before; read the result", s.patch.Name))
	case s.merged:
		all = append(all, fmt.Sprintf("%s: did not apply unchanged, git merged it; read the result", s.patch.Name))
	}
	return all
}

// exact reports whether the whole patch applied unchanged.
func (s *step) exact() bool { return !s.merged && !s.again && len(s.leftOut) == 0 }

// errConflict means that carry left a conflict in the clone.
var errConflict = errors.New("the patch does not apply")

// carry applies patch i of the reference to HEAD, which may be detached. It tries the
// patch unchanged, then without the changes to functions that are gone, then merges.
func (r *reference) carry(ctx context.Context, c *clone, i int) (*step, error) {
	s := &step{patch: r.Patches[i]}
	if c.am(ctx, s.patch, false) == nil {
		return s, nil
	}
	reduced, leftOut, err := r.reduce(ctx, c, i)
	if err != nil {
		return nil, err
	}
	s.patch, s.leftOut = reduced, leftOut
	if len(s.patch.Files) == 0 {
		return s, fmt.Errorf("%s: nothing is left of it: %w", s.patch.Name, errConflict)
	}
	if len(leftOut) > 0 && c.am(ctx, s.patch, false) == nil {
		return s, nil
	}
	if err := c.am(ctx, s.patch, true); err != nil {
		// git am only waits after a conflict.
		if ctx.Err() != nil || c.inProgress() != "am" {
			return s, fmt.Errorf("apply %s: %w", s.patch.Name, err)
		}
		if s.again = c.resolved(ctx); s.again { // git rerere, see rebase.remember
			_, err := c.git(ctx, "am", "--continue")
			return s, err
		}
		conflict := fmt.Errorf("%s: %w%s", s.patch.Name, errConflict, c.conflicts(ctx))
		if len(c.conflicting(ctx)) == 0 { // nothing but git's words says why
			conflict = fmt.Errorf("%w\n%w", conflict, err)
		}
		return s, conflict
	}
	s.merged = true
	return s, nil
}

// carryAll applies the patches from number first on to HEAD. It passes each step to
// report, including one that fails.
func (r *reference) carryAll(ctx context.Context, c *clone, first int, report func(*step)) error {
	for i := first; i < len(r.Patches); i++ {
		s, err := r.carry(ctx, c, i)
		if s != nil {
			report(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reduce returns patch i without the hunks that change functions missing from HEAD
// of the clone, and the names of those functions.
func (r *reference) reduce(ctx context.Context, c *clone, i int) (*series.Patch, []string, error) {
	p := &series.Patch{Name: r.Patches[i].Name, Head: r.Patches[i].Head}
	var leftOut []string
	for _, f := range r.Patches[i].Files {
		if f.Added || !isC(f.Path) {
			p.Files = append(p.Files, f)
			continue
		}
		before, _, err := r.c.show(ctx, r.commits[i], f.Path)
		if err != nil {
			return nil, nil, err
		}
		here, ok, err := c.show(ctx, "HEAD", f.Path)
		if err != nil {
			return nil, nil, err
		}
		was, is := sections(strings.Split(before, "\n")), sections(strings.Split(here, "\n"))
		kept := f
		kept.Hunks = nil
		for _, h := range f.Hunks {
			s := sectionAt(was, firstChange(h)-1)
			if ok && s != nil && s.function && !hasFunction(is, s.name) {
				leftOut = append(leftOut, s.name+" in "+f.Path)
				continue
			}
			kept.Hunks = append(kept.Hunks, h)
		}
		if len(kept.Hunks) > 0 {
			p.Files = append(p.Files, kept)
		}
	}
	return p, leftOut, nil
}

// firstChange returns the line number in the old file of the first line that a hunk
// removes, or of the line before the first one it adds.
func firstChange(h series.Hunk) int {
	i := slices.IndexFunc(h.Lines, func(l string) bool { return !strings.HasPrefix(l, " ") })
	if i >= 0 && strings.HasPrefix(h.Lines[i], "+") {
		i--
	}
	return h.OldStart + i
}

// A carried series is a reference on another base.
type carried struct {
	*series.Series
	notes    []string // for a person to read
	problems []string // for a person to fix
}

// examine exports the clone's commits after base as the series for version and
// compares it with the reference.
func (r *reference) examine(ctx context.Context, c *clone, base, version string) (*carried, error) {
	subjects, err := c.commitSubjects(ctx, base)
	if err != nil {
		return nil, err
	}
	if len(subjects) != len(r.Patches) {
		return nil, fmt.Errorf("%s has %d commits on top of %s instead of %d, one for each patch", c.dir, len(subjects), version, len(r.Patches))
	}
	s, err := c.export(ctx, base, version)
	if err != nil {
		return nil, err
	}
	out := &carried{Series: s}
	if out.notes, err = r.difference(ctx, c, base); err != nil {
		return nil, err
	}
	source, err := c.source(ctx)
	if err != nil {
		return nil, err
	}
	out.problems = checkHooks(source)
	if source[series.HeaderPath] != r.Header() {
		out.problems = append(out.problems, fmt.Sprintf("%s differs from that of %s; the interface is the same for all releases", series.HeaderPath, r.Version))
	}
	return out, nil
}

// difference returns git's comparison of the reference with the clone's commits
// after base. It also shows changed context and a change that moved to another
// function. It is empty if all patches are the same.
func (r *reference) difference(ctx context.Context, c *clone, base string) (notes []string, err error) {
	out, err := run.Command{
		Dir: c.dir,
		Env: append([]string{"GIT_ALTERNATE_OBJECT_DIRECTORIES=" + filepath.Join(r.c.dir, ".git", "objects")}, run.GitAlone...),
		Argv: []string{"git", "range-diff", "--no-color", "--creation-factor=100",
			r.commits[0] + ".." + r.commits[len(r.commits)-1], base + "..HEAD"},
	}.Output(ctx)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		if pair := strings.Fields(line); !strings.HasPrefix(line, " ") && pair[2] != "=" {
			return []string{fmt.Sprintf("git range-diff, with %s on the left:\n%s", r.Version, strings.TrimRight(out, "\n"))}, nil
		}
	}
	return nil, nil
}
