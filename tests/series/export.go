// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// export writes the commits on a release's tag, or on upstream's main, in the user's
// clone as the series for that. It only reads that clone, with the user's configuration, and exports
// from a clone of it, without.
func (o *options) export(ctx context.Context) error {
	if o.to != series.Main && !series.IsRelease(o.to) {
		return fmt.Errorf("export %q: releases are tags like v1.30, and there is main", o.to)
	}
	s, problems, err := o.exportFrom(ctx, o.clone, o.to)
	if err != nil {
		return fmt.Errorf("export from %s: %w", o.clone, err)
	}
	for _, p := range append(form(s), problems...) {
		o.report(o.to, "PROBLEM: %s", p)
		err = fmt.Errorf("nothing was written: %w", errPerson)
	}
	if err == nil {
		err = o.write(s)
	}
	if err != nil {
		return err
	}
	o.report(o.to, "%d patches written to %s", len(s.Patches), filepath.Join(o.patches, o.to))
	return nil
}

// exportFrom returns the commits on a release's tag, or on upstream's main, in the user's
// clone, as a series, and problems with its hooks.
func (o *options) exportFrom(ctx context.Context, dir, version string) (*series.Series, []string, error) {
	of := *o
	of.src = dir
	rev, err := of.target(ctx, version)
	if err != nil {
		return nil, nil, err
	}
	base, err := findCommit(ctx, dir, nil, rev)
	if err != nil {
		return nil, nil, err
	}
	head, err := findCommit(ctx, dir, nil, "HEAD")
	if err != nil {
		return nil, nil, err
	}
	c, _, err := o.throwaway(ctx, dir, head)
	if err != nil {
		return nil, nil, err
	}
	fork, err := c.git(ctx, "merge-base", base, "HEAD")
	if err != nil && run.ExitStatus(err) != 1 {
		return nil, nil, err
	}
	if fork != base {
		return nil, nil, fmt.Errorf("HEAD is not based on %s; check out your commits on that tag", version)
	}
	s, err := c.export(ctx, base, version)
	if err != nil {
		return nil, nil, err
	}
	if len(s.Patches) == 0 {
		return nil, nil, fmt.Errorf("there are no commits on top of %s", version)
	}
	source, err := c.source(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s, checkHooks(source), nil
}
