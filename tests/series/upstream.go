// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// The exit statuses of upstream-check.
const (
	upstreamFine    = 0
	upstreamRelease = 1 // a release that the project should support, or that broke
	upstreamFailed  = 2 // the check itself failed
	upstreamMain    = 3 // upstream's main will need work at its next release
)

// verdicts are the beginnings of the line, by exit status: make has one exit status
// for all failures, and a mail has none.
var verdicts = map[int]string{
	upstreamFine:    "ok: ",
	upstreamRelease: "needs work: ",
	upstreamFailed:  "check failed: ",
	upstreamMain:    "main needs work: ",
}

// upstreamCheck prints one line that says, beginning with a verdict, whether the
// newest series still fits upstream's newest release and main branch. An error means
// that the check failed; there is a line then, too.
func upstreamCheck(ctx context.Context, o *options) (status int, err error) {
	line, status, err := o.upstreamState(ctx)
	if err != nil {
		line, _, _ = strings.Cut(err.Error(), "\n")
		status = upstreamFailed
	}
	fmt.Fprintln(o.out, verdicts[status]+line)
	return status, err
}

// detail prints what does not fit in the line.
func (o *options) detail(text string) {
	if o.details {
		fmt.Fprintln(o.errs, text)
	}
}

func (o *options) upstreamState(ctx context.Context) (line string, status int, err error) {
	all, err := series.Versions(o.patches)
	if err != nil {
		return "", 0, err
	}
	supported := all[len(all)-1]
	r, err := o.reference(ctx, supported)
	if err != nil {
		return "", 0, err
	}
	tags, err := r.c.git(ctx, "tag", "--list", "v*")
	if err != nil {
		return "", 0, err
	}
	releases := slices.DeleteFunc(strings.Split(tags, "\n"), func(t string) bool { return !series.IsRelease(t) })
	newest := slices.MaxFunc(releases, series.Compare)

	problem, err := o.tryOn(ctx, r, "refs/tags/"+newest)
	if err != nil {
		return "", 0, err
	}
	line = fmt.Sprintf("ScoutFS newest %s, supported %s: ", newest, supported)
	fits := "series applies and builds"
	if o.kbuild == "" {
		fits = "series applies (not built)"
	}
	switch {
	case problem != "":
		line, status = line+problem, upstreamRelease
	case newest != supported:
		line, status = line+fits+", make rebase FROM="+supported+" TO="+newest, upstreamRelease
	default:
		line += fits
	}

	tip, name, err := o.findBranch(ctx)
	if err != nil {
		return "", 0, err
	}
	if tip == "" {
		return line + "; no main branch in SCOUTFS_SRC to look at", status, nil
	}
	if problem, err = o.tryOn(ctx, r, tip); err != nil {
		return "", 0, err
	}
	if problem == "" {
		problem = fits
	} else if status == upstreamFine {
		status = upstreamMain
	}
	return fmt.Sprintf("%s; %s %.8s: %s", line, name, tip, problem), status, nil
}

// findBranch returns the tip and the name of upstream's main in the user's
// repository, fetched or mirrored, or "". It does not look in a clone, which shares
// the commits but does not have the user's remote branches.
func (o *options) findBranch(ctx context.Context) (tip, name string, err error) {
	names := []string{"origin/main", "upstream/main", "main"}
	if o.branch != "" {
		names = []string{o.branch}
	}
	for _, name := range names {
		tip, err := findCommit(ctx, o.src, nil, name)
		if err == nil {
			return tip, name, nil
		}
		if !errors.Is(err, errNoCommit) {
			return "", "", err
		}
	}
	if o.branch != "" {
		return "", "", fmt.Errorf("find the branch %s: SCOUTFS_SRC %s does not have it", o.branch, o.src)
	}
	return "", "", nil
}

// tryOn carries the reference to a commit and returns what is wrong in a few words, or
// "".
func (o *options) tryOn(ctx context.Context, r *reference, rev string) (string, error) {
	c, base, err := o.throwaway(ctx, o.src, rev)
	if err != nil {
		return "", err
	}
	var last *step
	err = r.carryAll(ctx, c, 0, func(s *step) {
		last = s
		for _, n := range s.notes() {
			o.detail(n)
		}
	})
	if errors.Is(err, errConflict) {
		o.detail(err.Error())
		return last.patch.Name[:4] + " no longer applies", nil
	}
	if err != nil {
		return "", err
	}
	result, err := r.examine(ctx, c, base, r.Version)
	if err != nil {
		return "", err
	}
	for _, n := range slices.Concat(result.notes, result.problems) {
		o.detail(n)
	}
	switch n := len(result.problems); {
	case n == 1:
		return "series applies, but " + result.problems[0], nil
	case n > 1:
		return fmt.Sprintf("series applies, but %s (and %d more)", result.problems[0], n-1), nil
	case o.kbuild == "":
		return "", nil
	}
	if err := c.build(ctx, o.kbuild); errors.Is(err, errBuild) {
		o.detail(err.Error())
		return "series applies, but does not build", nil
	} else if err != nil {
		return "", err
	}
	return "", nil
}
