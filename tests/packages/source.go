// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// prefix returns the name of the folder in upstream's archive. The spec has it, too.
func (s release) prefix() string { return "scoutfs-" + s.number() }

// archive returns upstream's tree at the tag of s, as a tar file. It holds the
// commit's id (git get-tar-commit-id).
func (p *project) archive(ctx context.Context, s release) (string, error) {
	if err := p.checkUpstream(ctx); err != nil {
		return "", err
	}
	tag := "refs/tags/" + s.Version
	if _, err := run.Output(ctx, "git", "-C", p.upstream, "rev-parse", "--verify", "--quiet", tag+"^{commit}"); err != nil {
		return "", fmt.Errorf("SCOUTFS_SRC=%s has no tag %s (git fetch --tags there): %w", p.upstream, s.Version, err)
	}
	// The user's line ends and attributes must not change what is packaged.
	return run.Output(ctx, "git", "-C", p.upstream, "-c", "tar.umask=0022", "-c", "core.autocrlf=false", "-c", "core.eol=lf",
		"-c", "core.attributesFile=/dev/null", "archive", "--format=tar", "--prefix="+s.prefix()+"/", tag)
}

const noSource = "SCOUTFS_SRC is not set: it must name a ScoutFS checkout or bare repository with its tags; " +
	"ScoutFS's source is published as versity/scoutfs on GitHub"

// checkUpstream says what is wrong with SCOUTFS_SRC, if anything is.
func (p *project) checkUpstream(ctx context.Context) error {
	if p.upstream == "" {
		return errors.New(noSource)
	}
	if _, err := os.Stat(p.upstream); err != nil {
		if p.relative {
			return fmt.Errorf("SCOUTFS_SRC: %w (relative paths start at the top of this repository, %s)", err, p.root)
		}
		return fmt.Errorf("SCOUTFS_SRC: %w", err)
	}
	_, err := run.Output(ctx, "git", "-C", p.upstream, "rev-parse", "--git-dir")
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "dubious ownership"):
		return fmt.Errorf("SCOUTFS_SRC=%[1]s belongs to another user, so git refuses to read it; if you trust it: "+
			"git config --global --add safe.directory '%[1]s'", p.upstream)
	default:
		return fmt.Errorf("SCOUTFS_SRC=%s is not a git repository: it must be a clone of ScoutFS, not an unpacked archive: %w", p.upstream, err)
	}
}

// archiveGzip writes the archive of s to file, the same bytes every time.
func (p *project) archiveGzip(ctx context.Context, s release, file string) error {
	tar, err := p.archive(ctx, s)
	if err != nil {
		return err
	}
	packed, err := gzipBytes([]byte(tar))
	if err != nil {
		return err
	}
	return os.WriteFile(file, packed, 0o644)
}

// apply applies the patches of s to the tree in dir.
func (s release) apply(ctx context.Context, dir string) error {
	_, err := run.Command{
		Dir: dir,
		// In another work tree, such as this project's dist/, git apply would
		// silently skip every path.
		Env:  []string{"GIT_CEILING_DIRECTORIES=" + filepath.Dir(dir)},
		Argv: append([]string{"git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn"}, s.Paths()...),
	}.Output(ctx)
	return err
}

// stage makes the DKMS source tree of s under dir and returns its path,
// dir/scoutfs-notify-X.YY.N.
func (p *project) stage(ctx context.Context, s release, dir string) (string, error) {
	tar, err := p.archive(ctx, s)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-stage-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := (run.Command{Dir: tmp, Stdin: strings.NewReader(tar), Argv: []string{"tar", "-x"}}).Output(ctx); err != nil {
		return "", err
	}
	tree := filepath.Join(tmp, s.prefix())
	if err := s.apply(ctx, tree); err != nil {
		return "", err
	}
	dest := filepath.Join(dir, kmodName+"-"+p.dkmsVersion(s))
	_, err = run.Output(ctx, "sh", p.file("dkms", "stage.sh"), tree, dest,
		s.number(), strconv.Itoa(p.number), p.file("dkms", "dkms.conf"), s.kernels)
	return dest, err
}

func (p *project) dkmsVersion(s release) string {
	return fmt.Sprintf("%s.%d", s.number(), p.number)
}

// commonHeader returns the C header of the interface, which all releases share.
func (p *project) commonHeader() (string, error) {
	var all []*series.Series
	for _, r := range p.releases {
		all = append(all, r.Series)
	}
	return series.CommonHeader(all)
}
