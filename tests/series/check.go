// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

var (
	signedOff = regexp.MustCompile(`^Signed-off-by: .+ <.+@.+>$`)
	indexLine = regexp.MustCompile(`^index ([0-9a-f]{40})\.\.([0-9a-f]{40})( \d+)?$`)
)

const zeroCommit = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"

// form returns what is wrong with the form of a series. It needs no source.
func form(s *series.Series) []string {
	var problems []string
	touched := map[string]string{}
	for _, p := range s.Patches {
		bad := func(format string, args ...any) {
			problems = append(problems, p.Name+": "+fmt.Sprintf(format, args...))
		}
		if p.Head[0] != zeroCommit {
			bad("the first line names a commit; export with --zero-commit")
		}
		if n := len(p.Subject()); n == 0 || n > 72 {
			bad("the subject has %d characters; it should have 1 to 72", n)
		}
		if !slices.ContainsFunc(p.Message(), signedOff.MatchString) {
			bad("no Signed-off-by")
		}
		for _, f := range p.Files {
			// git am --3way finds the old file by its full id, and only if
			// it is upstream's.
			if !slices.ContainsFunc(f.Head, indexLine.MatchString) {
				bad("%s: no full index line; export with --full-index", f.Path)
			}
			if other, ok := touched[f.Path]; ok {
				bad("%s is also changed by %s, so git am --3way would not find the file it was made for", f.Path, other)
			}
			touched[f.Path] = p.Name
			for _, l := range trailingSpace(f) {
				bad("%s: white space at the end of %q", f.Path, l)
			}
		}
	}
	if s.Header() == "" {
		problems = append(problems, fmt.Sprintf("no patch adds %s", series.HeaderPath))
	}
	return problems
}

// trailingSpace returns the added lines that end in white space.
func trailingSpace(f series.FileDiff) (lines []string) {
	for _, h := range f.Hunks {
		for _, l := range h.Lines {
			if strings.HasPrefix(l, "+") && strings.TrimRight(l, " \t") != l {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// A checker looks at one series after the other, oldest release first.
type checker struct {
	*options
	first *series.Series // the others must have its interface
	older *reference     // the previous one, if it applied
}

// toCheck returns the series for the versions in the arguments, or all, main last.
func (o *options) toCheck() ([]*series.Series, error) {
	names := slices.Clone(o.args)
	wanted := len(names) == 0
	if i := slices.Index(names, series.Main); i >= 0 {
		names, wanted = slices.Delete(names, i, i+1), true
	}
	var all []*series.Series
	if len(names) > 0 || len(o.args) == 0 {
		var err error
		if all, err = series.Select(o.patches, names...); err != nil {
			return nil, err
		}
	}
	if !wanted {
		return all, nil
	}
	s, err := series.OpenMain(o.patches)
	if errors.Is(err, fs.ErrNotExist) && len(o.args) == 0 {
		return all, nil
	}
	return append(all, s), err
}

// check checks the series for the versions in the arguments, or all. Without a
// source it checks form and interface. With one it also applies each series with and
// without --3way, looks for the hooks, exports it again and compares neighbours.
func (o *options) check(ctx context.Context) error {
	all, err := o.toCheck()
	if err != nil {
		return err
	}
	if o.src != "" {
		if err := checkSource(ctx, o.src); err != nil {
			return err
		}
	}
	k := &checker{options: o, first: all[0]}
	problems := 0
	for _, s := range all {
		bad, checked, err := k.checkOne(ctx, s)
		if err != nil {
			return err
		}
		for _, b := range bad {
			o.report(s.Version, "PROBLEM: %s", b)
		}
		problems += len(bad)
		if len(bad) == 0 {
			o.report(s.Version, "%d patches are good: %s", len(s.Patches), checked)
		}
	}
	if o.src == "" {
		fmt.Fprintln(o.out, "skipped what needs the source: SCOUTFS_SRC is not set")
	}
	if problems > 0 {
		return fmt.Errorf("%d problems in the series: %w", problems, errPerson)
	}
	return nil
}

// checkOne returns what is wrong with a series, and what it checked.
func (k *checker) checkOne(ctx context.Context, s *series.Series) (bad []string, checked string, err error) {
	bad, checked = form(s), "form and interface"
	if s.Header() != k.first.Header() {
		bad = append(bad, fmt.Sprintf("%s differs from that of %s", series.HeaderPath, k.first.Version))
	}
	if s.Version == series.Main {
		more, err := k.checkAdded(s)
		if err != nil {
			return nil, "", err
		}
		bad = append(bad, more...)
	}
	if k.src == "" {
		return bad, checked, nil
	}
	c, base, err := k.throwaway(ctx, k.src, s.Rev())
	if err != nil {
		return nil, "", err
	}
	r, more, err := checkApplied(ctx, c, base, s)
	if err != nil {
		return nil, "", err
	}
	bad = append(bad, more...)
	checked += ", git am with and without --3way, export, hooks"
	if s.Version == series.Main {
		checked += ", the files it adds"
	} else if r != nil && k.older != nil {
		more, err := k.older.checkSame(ctx, k.options, r)
		if err != nil {
			return nil, "", err
		}
		bad = append(bad, more...)
		checked += ", same text as " + k.older.Version
	}
	k.older = r
	if k.kbuild != "" && r != nil {
		if err := c.build(ctx, k.kbuild); errors.Is(err, errBuild) {
			bad = append(bad, err.Error())
		} else if err != nil {
			return nil, "", err
		}
		checked += ", build"
	}
	return bad, checked, nil
}

// checkAdded compares the files that the series for main adds with those of the newest
// release's: a change must be made in both. Only the #error for what has hooks on main
// is missing there.
func (k *checker) checkAdded(s *series.Series) (bad []string, err error) {
	newest, err := series.Newest(k.patches)
	if err != nil {
		return nil, err
	}
	theirs, ours := newest.Added(), s.Added()
	for _, path := range slices.Sorted(maps.Keys(theirs)) {
		if want := guardOf(iomapOption).ReplaceAllString(theirs[path], ""); guardOf(iomapOption).ReplaceAllString(ours[path], "") != want {
			bad = append(bad, fmt.Sprintf("%s differs from that of %s by more than the #error for %s: carry the change over, make rebase FROM=%s TO=main RESTART=1",
				path, newest.Version, iomapOption, newest.Version))
		}
	}
	return bad, nil
}

// checkApplied applies a series to its tag with and without --3way and checks the
// result, which it leaves in the clone. The reference is nil if the series does not
// apply.
func checkApplied(ctx context.Context, c *clone, base string, s *series.Series) (*reference, []string, error) {
	for _, p := range s.Patches {
		if err := c.am(ctx, p, true); err != nil {
			return nil, []string{fmt.Sprintf("git am --3way: %v", err)}, nil
		}
	}
	merged, err := c.commit(ctx, "HEAD")
	if err != nil {
		return nil, nil, err
	}
	r, err := newReference(ctx, c, base, s)
	if err != nil {
		return nil, []string{err.Error()}, nil
	}
	var bad []string
	if merged != r.commits[len(r.commits)-1] {
		bad = append(bad, "git am and git am --3way give different trees")
	}
	exported, err := c.export(ctx, base, s.Version)
	if err != nil {
		return nil, nil, err
	}
	for i, p := range exported.Patches {
		if p.Name != s.Patches[i].Name {
			bad = append(bad, fmt.Sprintf("%s: an export names it %s", s.Patches[i].Name, p.Name))
		} else if string(p.Bytes()) != string(s.Patches[i].Bytes()) {
			bad = append(bad, fmt.Sprintf("%s: an export of it differs; recreate it with make rebase", p.Name))
		}
	}
	source, err := c.source(ctx)
	if err != nil {
		return nil, nil, err
	}
	return r, append(bad, checkHooks(source)...), nil
}

// checkSame carries this series to the tag of a newer one. If a patch applies
// unchanged and no hook is missing, the newer series must have the same text.
func (r *reference) checkSame(ctx context.Context, o *options, newer *reference) ([]string, error) {
	c, _, err := o.throwaway(ctx, o.src, newer.commits[0])
	if err != nil {
		return nil, err
	}
	var exact []bool
	err = r.carryAll(ctx, c, 0, func(s *step) { exact = append(exact, s.exact()) })
	if errors.Is(err, errConflict) {
		return nil, nil // a person adapted the newer one
	}
	if err != nil {
		return nil, err
	}
	result, err := r.examine(ctx, c, newer.commits[0], newer.Version)
	if err != nil || len(result.problems) > 0 {
		return nil, err
	}
	var bad []string
	for i, p := range result.Patches {
		if exact[i] && (i >= len(newer.Patches) || string(p.Bytes()) != string(newer.Patches[i].Bytes())) {
			bad = append(bad, fmt.Sprintf("%s: %s's text applies here unchanged, but this one differs", p.Name, r.Version))
		}
	}
	return bad, nil
}
