// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	signedOff = regexp.MustCompile(`^Signed-off-by: .+ <.+@.+>$`)
	indexLine = regexp.MustCompile(`^index ([0-9a-f]{40})\.\.([0-9a-f]{40})( \d+)?$`)
)

const zeroCommit = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001"

// form returns what is wrong with the form of a series, which needs no source.
func (s *series) form() []string {
	var problems []string
	touched := map[string]string{}
	for _, p := range s.patches {
		bad := func(format string, args ...any) {
			problems = append(problems, p.name+": "+fmt.Sprintf(format, args...))
		}
		if p.head[0] != zeroCommit {
			bad("the first line names a commit; export with --zero-commit")
		}
		if n := len(p.subject()); n == 0 || n > 72 {
			bad("the subject has %d characters; it should have 1 to 72", n)
		}
		if !slices.ContainsFunc(p.message(), signedOff.MatchString) {
			bad("no Signed-off-by")
		}
		for _, f := range p.files {
			// git am --3way finds the old file by its whole id, and only if
			// it is upstream's.
			if !slices.ContainsFunc(f.head, indexLine.MatchString) {
				bad("%s: no full index line; export with --full-index", f.path)
			}
			if other, ok := touched[f.path]; ok {
				bad("%s is changed by %s too, so git am --3way would not find the file it was made for", f.path, other)
			}
			touched[f.path] = p.name
			for _, h := range f.hunks {
				for _, l := range h.lines {
					if strings.HasPrefix(l, "+") && strings.TrimRight(l, " \t") != l {
						bad("%s: white space at the end of %q", f.path, l)
					}
				}
			}
		}
	}
	if s.header() == "" {
		problems = append(problems, fmt.Sprintf("no patch makes %s", headerPath))
	}
	return problems
}

// check looks at the series for some versions. Without a source it looks at
// their form and their interface; with one it applies each in both ways, looks
// for the hooks, exports again, and holds neighbours against each other.
func (o *options) check(ctx context.Context, list []string) error {
	var problems int
	report := func(version, format string, args ...any) {
		fmt.Fprintf(o.out, "%s: %s\n", version, fmt.Sprintf(format, args...))
	}
	if o.src != "" {
		if err := checkSource(ctx, o.src); err != nil {
			return err
		}
	}
	var older *reference
	var header, headerOf string
	for _, v := range list {
		s, err := readSeries(o.patches, v)
		if err != nil {
			return err
		}
		bad := s.form()
		if header == "" {
			header, headerOf = s.header(), v
		} else if s.header() != header {
			bad = append(bad, fmt.Sprintf("%s differs from that of %s", headerPath, headerOf))
		}
		did := "form and interface"
		if o.src != "" {
			c, cleanup, err := throwaway(ctx, o.src)
			if err != nil {
				return err
			}
			defer cleanup()
			r, more, err := o.checkApplied(ctx, c, s)
			if err != nil {
				return err
			}
			bad = append(bad, more...)
			did += ", git am with and without --3way, export, hooks"
			if r != nil && older != nil {
				more, err := older.checkSame(ctx, o, r)
				if err != nil {
					return err
				}
				bad = append(bad, more...)
				did += ", same text as " + older.version
			}
			older = r
			if o.kbuild != "" && r != nil {
				if err := c.build(ctx, o.kbuild); errors.Is(err, errBuild) {
					bad = append(bad, err.Error())
				} else if err != nil {
					return err
				}
				did += ", build"
			}
		}
		for _, b := range bad {
			report(v, "PROBLEM: %s", b)
		}
		problems += len(bad)
		if len(bad) == 0 {
			report(v, "%d patches are good: %s", len(s.patches), did)
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

// checkApplied applies a series to its tag in both ways and looks at what comes
// out. The clone is left with the series applied. The reference is nil when it
// does not apply.
func (o *options) checkApplied(ctx context.Context, c *clone, s *series) (*reference, []string, error) {
	base, err := c.commit(ctx, "refs/tags/"+s.version)
	if err != nil {
		return nil, nil, err
	}
	if err := c.checkout(ctx, base); err != nil {
		return nil, nil, err
	}
	for _, p := range s.patches {
		if err := c.am(ctx, p, true); err != nil {
			return nil, []string{fmt.Sprintf("git am --3way: %v", err)}, nil
		}
	}
	merged, err := c.git(ctx, "rev-parse", "HEAD^{tree}")
	if err != nil {
		return nil, nil, err
	}
	r, err := newReference(ctx, c, s)
	if err != nil {
		return nil, []string{err.Error()}, nil
	}
	var bad []string
	strict, err := c.git(ctx, "rev-parse", "HEAD^{tree}")
	if err != nil {
		return nil, nil, err
	}
	if strict != merged {
		bad = append(bad, "git am and git am --3way give different trees")
	}
	exported, err := c.export(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	for i, p := range exported {
		if p.name != s.patches[i].name {
			bad = append(bad, fmt.Sprintf("%s: an export names it %s", s.patches[i].name, p.name))
		} else if string(p.bytes()) != string(s.patches[i].bytes()) {
			bad = append(bad, fmt.Sprintf("%s: an export of it differs; make it anew with make rebase", p.name))
		}
	}
	source, err := c.source(ctx)
	if err != nil {
		return nil, nil, err
	}
	return r, append(bad, checkHooks(source)...), nil
}

// checkSame carries this series to the tag of a newer one. Where it applies as
// it is and has all its hooks, the newer series must be the same text.
func (r *reference) checkSame(ctx context.Context, o *options, newer *reference) ([]string, error) {
	c, cleanup, err := throwaway(ctx, o.src)
	if err != nil {
		return nil, err
	}
	defer cleanup()
	if err := c.checkout(ctx, newer.commits[0]); err != nil {
		return nil, err
	}
	var exact []bool
	for i := range r.patches {
		s, err := r.carry(ctx, c, i)
		if errors.Is(err, errConflict) {
			return nil, nil // a person made the newer one
		}
		if err != nil {
			return nil, err
		}
		exact = append(exact, s.exact())
	}
	result, err := r.examine(ctx, c, newer.commits[0], newer.version)
	if err != nil {
		return nil, err
	}
	if len(result.problems) > 0 {
		return nil, nil
	}
	var bad []string
	for i, p := range result.patches {
		if exact[i] && (i >= len(newer.patches) || string(p.bytes()) != string(newer.patches[i].bytes())) {
			bad = append(bad, fmt.Sprintf("%s: the text of %s applies here as it is, and this one differs", p.name, r.version))
		}
	}
	return bad, nil
}
