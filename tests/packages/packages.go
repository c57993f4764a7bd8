// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// packages writes the module's packages of the series and the daemon's to dist, with
// an index for dnf. The module's need SCOUTFS_SRC: without it they are left out,
// which is said.
func (p *project) packages(ctx context.Context, all []release) error {
	if p.upstream == "" {
		p.say("the packages of the module are left out: SCOUTFS_SRC is not set")
	} else {
		for _, s := range all {
			if err := p.rpm(ctx, s); err != nil {
				return fmt.Errorf("packages of %s: %w", s.Version, err)
			}
		}
	}
	if err := p.notifyd(ctx); err != nil {
		return err
	}
	// The index is of what dist holds: packages of former releases stay in it.
	if _, err := run.Output(ctx, "createrepo_c", "--quiet", p.dist); err != nil {
		return err
	}
	p.say("install from it with: dnf --repofrompath=scoutfs-notify,file://%s --nogpgcheck install ...", p.dist)
	return nil
}
