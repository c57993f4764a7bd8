// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// releaseTags creates the tag vX.YY-notify-N of each series at HEAD. Nothing is
// created unless all of them can be. dry only says what would be.
func (p *project) releaseTags(ctx context.Context, dry bool) error {
	git := func(args ...string) (string, error) {
		out, err := command{dir: p.root}.run(ctx, "git", args...)
		return strings.TrimSpace(out), err
	}
	dirty, err := git("status", "--porcelain")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("the work tree is not clean, commit or remove:\n%s", dirty)
	}
	if err := p.agree(ctx); err != nil {
		return err
	}
	head, err := git("rev-parse", "HEAD")
	if err != nil {
		return err
	}
	var tags []string
	for _, s := range p.series {
		tag := fmt.Sprintf("%s-notify-%d", s.name(), p.release)
		at, err := git("rev-parse", "--verify", "--quiet", "refs/tags/"+tag+"^{commit}")
		switch {
		case err != nil: // there is none
			tags = append(tags, tag)
		case at != head:
			return fmt.Errorf("tag %s is at commit %.12s: release %d is out, the next one needs a higher number in patches/RELEASE "+
				"and an entry in packaging/changelog", tag, at, p.release)
		}
	}
	if len(tags) == 0 {
		p.say("release %d is tagged already, at HEAD", p.release)
		return nil
	}
	if dry {
		p.say("would tag %.12s: %s", head, strings.Join(tags, " "))
		return nil
	}
	for i, tag := range tags {
		if _, err := git("tag", "-a", "-m", fmt.Sprintf("Release %d of the series for ScoutFS %s", p.release, strings.Split(tag, "-")[0]), tag, head); err != nil {
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

// agree holds the places that tell of a version against each other; openProject has
// already held base.txt against its folder.
func (p *project) agree(ctx context.Context) error {
	if got := p.changes[0].release; got != p.release {
		return fmt.Errorf("patches/RELEASE says %d, packaging/changelog begins with %d", p.release, got)
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return p.header(ctx, filepath.Join(tmp, "notify_ioctl.h"))
}
