// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// releaseTags creates the tag vX.YY-notify-N of each series at HEAD, or none if one
// of them cannot be created. With dry it only prints them.
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
	if got := p.changes[0].release; got != p.number {
		return fmt.Errorf("patches/RELEASE says %d, packaging/changelog begins with %d", p.number, got)
	}
	if _, err := p.commonHeader(); err != nil {
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
		case err != nil: // no such tag
			tags = append(tags, tag)
		case at != head:
			return fmt.Errorf("tag %s is at commit %.12s: release %d is out, the next one needs a higher number in patches/RELEASE "+
				"and an entry in packaging/changelog", tag, at, p.number)
		}
	}
	if len(tags) == 0 {
		p.say("release %d is already tagged, at HEAD", p.number)
		return nil
	}
	if dry {
		p.say("would tag %.12s: %s", head, strings.Join(tags, " "))
		return nil
	}
	for i, tag := range tags {
		if _, err := git("tag", "-a", "-m", fmt.Sprintf("Release %d of the series for ScoutFS %s", p.number, strings.Split(tag, "-")[0]), tag, head); err != nil {
			// An incomplete release would look complete.
			if i > 0 {
				_, undo := git(append([]string{"tag", "-d"}, tags[:i]...)...)
				err = errors.Join(err, undo)
			}
			return err
		}
	}
	names := strings.Join(tags, " ")
	// One push each: GitHub starts no job for a push of more than three tags. The
	// newest series' tag comes last, because it starts the job.
	p.say("tagged %.12s: %s\npublish with: for tag in %s; do git push origin $tag || break; done", head, names, names)
	return nil
}
