// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// releaseTags creates the tag vX.YY-notify-N of each series at HEAD. Nothing is
// created unless all of them can be. dry only says what would be.
func (p *project) releaseTags(ctx context.Context, dry bool) error {
	git := func(args ...string) (string, error) {
		out, err := run.Command{Dir: p.root, Argv: append([]string{"git"}, args...)}.Output(ctx)
		return strings.TrimSpace(out), err
	}
	dirty, err := git("status", "--porcelain")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("the work tree is not clean, commit or remove:\n%s", dirty)
	}
	if err := p.agree(); err != nil {
		return err
	}
	head, err := git("rev-parse", "HEAD")
	if err != nil {
		return err
	}
	var tags []string
	for _, s := range p.releases {
		tag := fmt.Sprintf("%s-notify-%d", s.Version, p.number)
		at, err := git("rev-parse", "--verify", "--quiet", "refs/tags/"+tag+"^{commit}")
		switch {
		case err != nil: // there is none
			tags = append(tags, tag)
		case at != head:
			return fmt.Errorf("tag %s is at commit %.12s: release %d is out, the next one needs a higher number in patches/RELEASE "+
				"and an entry in packaging/changelog", tag, at, p.number)
		}
	}
	if len(tags) == 0 {
		p.say("release %d is tagged already, at HEAD", p.number)
		return nil
	}
	if dry {
		p.say("would tag %.12s: %s", head, strings.Join(tags, " "))
		return nil
	}
	for i, tag := range tags {
		if _, err := git("tag", "-a", "-m", fmt.Sprintf("Release %d of the series for ScoutFS %s", p.number, strings.Split(tag, "-")[0]), tag, head); err != nil {
			// A half release would look like a whole one.
			if i > 0 {
				_, undo := git(append([]string{"tag", "-d"}, tags[:i]...)...)
				err = errors.Join(err, undo)
			}
			return err
		}
	}
	names := strings.Join(tags, " ")
	// GitHub starts no job at all for more than three tags in one push. The newest
	// series' tag, which is the one that starts it, comes last.
	p.say("tagged %.12s: %s\npublish with: for tag in %s; do git push origin $tag || break; done", head, names, names)
	return nil
}

// agree holds the places that tell of a version or of the interface against each
// other.
func (p *project) agree() error {
	if got := p.changes[0].release; got != p.number {
		return fmt.Errorf("patches/RELEASE says %d, packaging/changelog begins with %d", p.number, got)
	}
	_, err := p.commonHeader()
	return err
}
