// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// progress prints a line for somebody who waits at a terminal. cron would mail it.
func (o *options) progress(format string, args ...any) {
	if f, ok := o.errs.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintf(f, "series: "+format+"\n", args...)
		}
	}
}

func (o *options) upstreamState(ctx context.Context) (line string, status int, err error) {
	line, status, r, err := o.releaseState(ctx)
	if err != nil {
		return "", 0, err
	}
	tip, name, err := o.findBranch(ctx)
	if err != nil {
		return "", 0, err
	}
	if tip == "" {
		return line + "; no main branch in SCOUTFS_SRC to look at", status, nil
	}
	say, fine, err := o.mainState(ctx, r, tip)
	if err != nil {
		return "", 0, err
	}
	if !fine && status == upstreamFine {
		status = upstreamMain
	}
	return fmt.Sprintf("%s; %s %.8s: %s", line, name, tip, say), status, nil
}

// fits is what the line says of a series without a problem.
func (o *options) fits() string {
	if o.kbuild == "" {
		return "series applies (not built)"
	}
	return "series applies and builds"
}

// releaseState says whether there is a series for upstream's newest release, or could be,
// and returns the newest there is.
func (o *options) releaseState(ctx context.Context) (line string, status int, r *reference, err error) {
	all, err := series.Versions(o.patches)
	if err != nil {
		return "", 0, nil, err
	}
	supported := all[len(all)-1]
	if r, err = o.reference(ctx, supported); err != nil {
		return "", 0, nil, err
	}
	tags, err := r.c.git(ctx, "tag", "--list", "v*")
	if err != nil {
		return "", 0, nil, err
	}
	releases := slices.DeleteFunc(strings.Split(tags, "\n"), func(t string) bool { return !series.IsRelease(t) })
	newest := slices.MaxFunc(releases, series.Compare)

	from := r // what make rebase would take
	if newest != supported {
		near, _, err := o.nearest(ctx, "refs/tags/"+newest)
		if err != nil {
			return "", 0, nil, err
		}
		if near != "" && near != supported {
			if from, err = o.reference(ctx, near); err != nil {
				return "", 0, nil, err
			}
		}
	}
	problem, _, err := o.tryOn(ctx, from, newest, "refs/tags/"+newest)
	if err != nil {
		return "", 0, nil, err
	}
	line = fmt.Sprintf("ScoutFS newest %s, supported %s: ", newest, supported)
	switch {
	case problem != "":
		line, status = line+problem, upstreamRelease
	case newest != supported:
		line, status = line+o.fits()+", make rebase TO="+newest, upstreamRelease
	default:
		line += o.fits()
	}
	return line, status, r, nil
}

// mainState says whether the series for upstream's main, or without one that of the
// newest release, r, fits the tip of that branch. With -write it replaces the series by
// one for the tip, if that needs no person.
func (o *options) mainState(ctx context.Context, r *reference, tip string) (say string, fine bool, err error) {
	own, err := o.reference(ctx, series.Main)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", false, err
	default:
		r = own
	}
	problem, result, err := o.tryOn(ctx, r, series.Main, tip)
	if err != nil || problem != "" {
		return problem, false, err
	}
	if r != own || own.Base == tip {
		return o.fits(), true, nil
	}
	say = fmt.Sprintf("%s, carried from %.8s", o.fits(), own.Base)
	if !o.update {
		return say + ", make rebase TO=main", true, nil
	}
	if err := o.write(result.Series); err != nil {
		return "", false, err
	}
	return say + ", written: read and commit patches/main", true, nil
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

// tryOn carries the reference to a commit, as the series for a version. It returns what is
// wrong in a few words, or "" and the series.
func (o *options) tryOn(ctx context.Context, r *reference, version, rev string) (string, *carried, error) {
	c, base, err := o.throwaway(ctx, o.src, rev)
	if err != nil {
		return "", nil, err
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
		return last.patch.Name[:4] + " no longer applies" + c.conflicts(ctx), nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	result, err := r.examine(ctx, c, base, version)
	if err != nil {
		return "", nil, err
	}
	for _, n := range slices.Concat(result.notes, result.problems) {
		o.detail(n)
	}
	switch n := len(result.problems); {
	case n == 1:
		return "series applies, but " + result.problems[0], nil, nil
	case n > 1:
		return fmt.Sprintf("series applies, but %s (and %d more)", result.problems[0], n-1), nil, nil
	case o.kbuild == "":
		return "", result, nil
	}
	o.progress("building the series for %s on %.8s, which takes minutes", r.Version, base)
	if err := c.build(ctx, o.kbuild); errors.Is(err, errBuild) {
		o.detail(err.Error())
		return "series applies, but does not build", nil, nil
	} else if err != nil {
		return "", nil, err
	}
	return "", result, nil
}
