// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A reference is a series on the commit it was made for: what a carried series
// is held against.
type reference struct {
	*series
	c       *clone   // that has the commits
	commits []string // the base, then one for each patch
}

// newReference applies a series to its own tag in a clone, strictly.
func newReference(ctx context.Context, c *clone, s *series) (*reference, error) {
	base, err := c.commit(ctx, "refs/tags/"+s.version)
	if err != nil {
		return nil, err
	}
	if err := c.checkout(ctx, base); err != nil {
		return nil, err
	}
	r := &reference{series: s, c: c, commits: []string{base}}
	for _, p := range s.patches {
		if err := c.am(ctx, p, false); err != nil {
			return nil, fmt.Errorf("apply %s to its own tag %s: %w", p.name, s.version, err)
		}
		id, err := c.commit(ctx, "HEAD")
		if err != nil {
			return nil, err
		}
		r.commits = append(r.commits, id)
	}
	return r, nil
}

// checkout makes the files of the clone those of a commit, on no branch.
func (c *clone) checkout(ctx context.Context, rev string) error {
	_, err := c.git(ctx, "checkout", "-q", "--force", "--detach", rev)
	return err
}

// A step is how one patch got onto another base.
type step struct {
	patch   *patch // what was applied, without the hunks that were left out
	leftOut []string
	merged  bool // context differed, git merged
}

// notes returns what a person should know of the step.
func (s *step) notes() []string {
	var all []string
	for _, l := range s.leftOut {
		all = append(all, fmt.Sprintf("%s: left out the change of %s, which is not there", s.patch.name, l))
	}
	if s.merged {
		all = append(all, fmt.Sprintf("%s: did not apply as it is, git merged it; read the result", s.patch.name))
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
	s := &step{patch: r.patches[i]}
	if c.am(ctx, s.patch, false) == nil {
		return s, nil
	}
	reduced, leftOut, err := r.reduce(ctx, c, i)
	if err != nil {
		return nil, err
	}
	s.patch, s.leftOut = reduced, leftOut
	if len(s.patch.files) == 0 {
		return s, fmt.Errorf("%s: nothing is left of it: %w", r.patches[i].name, errConflict)
	}
	if len(leftOut) > 0 && c.am(ctx, s.patch, false) == nil {
		return s, nil
	}
	s.merged = true
	if err := c.am(ctx, s.patch, true); err != nil {
		// git am waits after a conflict, and only then.
		if ctx.Err() != nil || c.inProgress() != "am" {
			return s, fmt.Errorf("apply %s: %w", s.patch.name, err)
		}
		return s, fmt.Errorf("%s: %w\n%w", s.patch.name, errConflict, err)
	}
	return s, nil
}

// reduce returns patch number i without the hunks that change a function which
// HEAD of the clone does not have, and those functions.
func (r *reference) reduce(ctx context.Context, c *clone, i int) (*patch, []string, error) {
	p := &patch{name: r.patches[i].name, head: r.patches[i].head}
	var leftOut []string
	for _, f := range r.patches[i].files {
		if f.added || !isC(f.path) {
			p.files = append(p.files, f)
			continue
		}
		before, _, err := r.c.show(ctx, r.commits[i], f.path)
		if err != nil {
			return nil, nil, err
		}
		here, ok, err := c.show(ctx, "HEAD", f.path)
		if err != nil {
			return nil, nil, err
		}
		was, is := sections(strings.Split(before, "\n")), sections(strings.Split(here, "\n"))
		kept := f
		kept.hunks = nil
		for _, h := range f.hunks {
			s := sectionAt(was, h.firstChange()-1)
			if ok && s != nil && s.function && !hasFunction(is, s.name) {
				leftOut = append(leftOut, s.name+" in "+f.path)
				continue
			}
			kept.hunks = append(kept.hunks, h)
		}
		if len(kept.hunks) > 0 {
			p.files = append(p.files, kept)
		}
	}
	return p, leftOut, nil
}

// firstChange returns the number of the old file's line that is removed first,
// or that the first new line comes after.
func (h *hunk) firstChange() int {
	n := h.oldStart
	for _, l := range h.lines {
		if strings.HasPrefix(l, "-") {
			return n
		}
		if strings.HasPrefix(l, "+") {
			return n - 1
		}
		n++
	}
	return n
}

// landings tells, for each group of lines that a patch adds, in which section of
// which file it stands in the commit of the patch. Lines outside of functions and
// initializers, and in files that are not C, have the section "".
func landings(ctx context.Context, c *clone, commit string, p *patch) ([]string, error) {
	var all []string
	for _, f := range p.files {
		if f.added || !isC(f.path) {
			continue
		}
		text, _, err := c.show(ctx, commit, f.path)
		if err != nil {
			return nil, err
		}
		found := sections(strings.Split(text, "\n"))
		for _, h := range f.hunks {
			n := h.newStart
			for k, l := range h.lines {
				if strings.HasPrefix(l, "+") && (k == 0 || !strings.HasPrefix(h.lines[k-1], "+")) {
					name := "no function"
					if s := sectionAt(found, n-1); s != nil {
						name = s.name
					}
					// An empty line says nothing of a change.
					for j := k; strings.TrimSpace(l[1:]) == "" && j+1 < len(h.lines) && strings.HasPrefix(h.lines[j+1], "+"); j++ {
						l = h.lines[j+1]
					}
					all = append(all, fmt.Sprintf("%q in %s of %s", strings.TrimSpace(l[1:]), name, f.path))
				}
				if !strings.HasPrefix(l, "-") && !strings.HasPrefix(l, `\`) {
					n++
				}
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// A carried series is a reference on another base.
type carried struct {
	series
	notes    []string // what a person should read
	problems []string // what a person must settle before the series is good
}

// examine exports what stands on base in the clone as the series for version and
// holds it against the reference.
func (r *reference) examine(ctx context.Context, c *clone, base, version string) (*carried, error) {
	out := &carried{series: series{version: version}}
	subjects, err := c.commitSubjects(ctx, base)
	if err != nil {
		return nil, err
	}
	if len(subjects) != len(r.patches) {
		return nil, fmt.Errorf("%d commits stand on %s in %s instead of %d, one for each patch", len(subjects), version, c.dir, len(r.patches))
	}
	if out.patches, err = c.export(ctx, base); err != nil {
		return nil, err
	}
	for i, p := range out.patches {
		if p.name != r.patches[i].name {
			out.notes = append(out.notes, fmt.Sprintf("%s of %s is %s here", r.patches[i].name, r.version, p.name))
		}
		at := fmt.Sprintf("HEAD~%d", len(out.patches)-1-i)
		want, err := landings(ctx, r.c, r.commits[i+1], r.patches[i])
		if err != nil {
			return nil, err
		}
		have, err := landings(ctx, c, at, p)
		if err != nil {
			return nil, err
		}
		for _, l := range missing(want, have) {
			out.notes = append(out.notes, fmt.Sprintf("%s: no longer %s", p.name, l))
		}
		for _, l := range missing(have, want) {
			out.notes = append(out.notes, fmt.Sprintf("%s: new %s", p.name, l))
		}
	}
	differ, err := r.newFiles(ctx, c, &out.series)
	if err != nil {
		return nil, err
	}
	out.notes = append(out.notes, differ...)
	source, err := c.source(ctx)
	if err != nil {
		return nil, err
	}
	out.problems = append(out.problems, checkHooks(source)...)
	if have, want := source[headerPath], r.header(); have != want {
		out.problems = append(out.problems, fmt.Sprintf("%s differs from that of %s; the interface is the same for all releases", headerPath, r.version))
	}
	return out, nil
}

// newFiles tells which of the files that the reference adds are different at HEAD
// of the clone, or gone, and which another series adds beside them. The
// interface's header is left to examine, which does not let it differ.
func (r *reference) newFiles(ctx context.Context, c *clone, s *series) ([]string, error) {
	paths := func(s *series) []string {
		var all []string
		for _, p := range s.patches {
			for _, f := range p.files {
				if f.added && f.path != headerPath {
					all = append(all, f.path)
				}
			}
		}
		return all
	}
	want := paths(r.series)
	was, err := r.c.entries(ctx, r.commits[len(r.commits)-1], want)
	if err != nil {
		return nil, err
	}
	is, err := c.entries(ctx, "HEAD", want)
	if err != nil {
		return nil, err
	}
	var notes []string
	for _, path := range want {
		if is[path] == "" {
			notes = append(notes, fmt.Sprintf("%s, which %s adds, is not here", path, r.version))
		} else if is[path] != was[path] {
			notes = append(notes, fmt.Sprintf("%s is not the same as in %s; compare them", path, r.version))
		}
	}
	for _, path := range missing(paths(s), want) {
		notes = append(notes, fmt.Sprintf("%s is added here and not in %s", path, r.version))
	}
	return notes, nil
}

// headerPath is the file that holds the whole interface.
const headerPath = "kmod/src/notify_ioctl.h"

// header returns the interface's header as the series makes it.
func (s *series) header() string {
	for _, p := range s.patches {
		if text := p.added(headerPath); text != "" {
			return text
		}
	}
	return ""
}

// missing returns what is in a and not in b, as often as it is.
func missing(a, b []string) []string {
	var out []string
	b = slices.Clone(b)
	for _, x := range a {
		if i := slices.Index(b, x); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			out = append(out, x)
		}
	}
	return out
}
