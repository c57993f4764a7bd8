// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// packages writes the packages of the module and of the daemon to dist, with an
// index for dnf. Without SCOUTFS_SRC it leaves out those of the module, and says so.
func (p *project) packages(ctx context.Context, all []release) error {
	if p.upstream == "" {
		p.say("left out the packages of the module: SCOUTFS_SRC is not set")
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
	// The index covers all of dist, with the packages of former releases.
	if _, err := run.Output(ctx, "createrepo_c", "--quiet", p.dist); err != nil {
		return err
	}
	p.say("install from it with: dnf --repofrompath=scoutfs-notify,file://%s --nogpgcheck install ...", p.dist)
	return nil
}
