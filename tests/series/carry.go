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

// A reference is a series on the commit it was made for: what a carried series
// is held against.
type reference struct {
	*series.Series
	c       *clone   // that has the commits
	commits []string // the base, then one for each patch
}

// newReference applies a series to its own tag in a clone, strictly.
func newReference(ctx context.Context, c *clone, s *series.Series) (*reference, error) {
	base, err := c.commit(ctx, "refs/tags/"+s.Version)
	if err != nil {
		return nil, err
	}
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

// A step is how one patch got onto another base.
type step struct {
	patch   *series.Patch // what was applied, without the hunks that were left out
	leftOut []string
	merged  bool // context differed, git merged
}

// notes returns what a person should know of the step.
func (s *step) notes() []string {
	var all []string
	for _, l := range s.leftOut {
		all = append(all, fmt.Sprintf("%s: left out the change of %s, which is not there", s.patch.Name, l))
	}
	if s.merged {
		all = append(all, fmt.Sprintf("%s: did not apply as it is, git merged it; read the result", s.patch.Name))
	}
	return all
}

// exact tells whether the whole patch applied with its context.
func (s *step) exact() bool { return !s.merged && len(s.leftOut) == 0 }

// errConflict is what carry returns when it leaves a conflict in the clone.
var errConflict = errors.New("the patch does not fit")

// carry applies patch number i of the reference to HEAD, on branch or not: as
// it is; or else without the changes of functions that are gone there; or else
// by merging.
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
	s.merged = true
	if err := c.am(ctx, s.patch, true); err != nil {
		// git am waits after a conflict, and only then.
		if ctx.Err() != nil || c.inProgress() != "am" {
			return s, fmt.Errorf("apply %s: %w", s.patch.Name, err)
		}
		return s, fmt.Errorf("%s: %w\n%w", s.patch.Name, errConflict, err)
	}
	return s, nil
}

// carryAll applies the patches to HEAD from number first on. It hands each step to
// report, also the one that an error ends.
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

// reduce returns patch number i without the hunks that change a function which
// HEAD of the clone does not have, and those functions.
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

// firstChange returns the number of the old file's line that a hunk removes first,
// or that its first new line comes after.
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
	notes    []string // what a person should read
	problems []string // what a person must settle before the series is good
}

// examine exports what stands on base in the clone as the series for version and
// holds it against the reference.
func (r *reference) examine(ctx context.Context, c *clone, base, version string) (*carried, error) {
	subjects, err := c.commitSubjects(ctx, base)
	if err != nil {
		return nil, err
	}
	if len(subjects) != len(r.Patches) {
		return nil, fmt.Errorf("%d commits stand on %s in %s instead of %d, one for each patch", len(subjects), version, c.dir, len(r.Patches))
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

// difference returns git's comparison of the reference with what stands on base in
// the clone, in which changed context and another function around a change show,
// too. It is empty if each patch is the same.
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
