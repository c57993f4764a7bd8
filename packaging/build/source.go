// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// prefix is the folder name in the upstream archive, which the spec knows too.
func (s series) prefix() string { return "scoutfs-" + s.version }

// archive returns upstream's tree at the tag of s, as a tar file. It holds the
// commit's id (git get-tar-commit-id).
func (p *project) archive(ctx context.Context, s series) (string, error) {
	if p.upstream == "" {
		return "", errors.New("SCOUTFS_SRC is not set: it must name a ScoutFS checkout or bare repository with its tags")
	}
	git := command{dir: p.upstream}
	if _, err := git.run(ctx, "git", "rev-parse", "--verify", "--quiet", "refs/tags/"+s.name()+"^{commit}"); err != nil {
		return "", fmt.Errorf("SCOUTFS_SRC=%s has no tag %s (git fetch --tags there): %w", p.upstream, s.name(), err)
	}
	return git.run(ctx, "git", "-c", "tar.umask=0022", "archive", "--format=tar",
		"--prefix="+s.prefix()+"/", "refs/tags/"+s.name())
}

// archiveGzip writes the archive of s to file, the same bytes every time.
func (p *project) archiveGzip(ctx context.Context, s series, file string) error {
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

// apply applies the patches of s to the tree in dir, only what matches include
// when that is not empty.
func (s series) apply(ctx context.Context, dir, include string) error {
	args := []string{"apply", "--whitespace=nowarn"}
	if include != "" {
		args = append(args, "--include="+include)
	}
	// dir may lie inside another work tree (dist/ does), where git apply would
	// skip every path without a word.
	git := command{dir: dir, env: []string{"GIT_CEILING_DIRECTORIES=" + filepath.Dir(dir)}}
	_, err := git.run(ctx, "git", append(args, s.patches...)...)
	return err
}

// stage makes the DKMS source tree of s under dir and returns its path,
// dir/scoutfs-notify-X.YY.N.
func (p *project) stage(ctx context.Context, s series, dir string) (string, error) {
	tar, err := p.archive(ctx, s)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-stage-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := (command{dir: tmp, in: strings.NewReader(tar)}).run(ctx, "tar", "-x"); err != nil {
		return "", err
	}
	tree := filepath.Join(tmp, s.prefix())
	if err := s.apply(ctx, tree, ""); err != nil {
		return "", err
	}
	dest := filepath.Join(dir, kmodName+"-"+p.dkmsVersion(s))
	_, err = command{}.run(ctx, "sh", p.file("dkms", "stage.sh"), tree, dest,
		s.version, strconv.Itoa(p.release), p.file("dkms", "dkms.conf"), s.kernels)
	return dest, err
}

func (p *project) dkmsVersion(s series) string {
	return fmt.Sprintf("%s.%d", s.version, p.release)
}

// headerPath is where the series puts the ABI header.
const headerPath = "kmod/src/notify_ioctl.h"

// header writes the C header of the ABI to file. Every series must carry the same:
// the ABI is one for all versions.
func (p *project) header(ctx context.Context, file string) error {
	var text []byte
	for i, s := range p.series {
		got, err := s.header(ctx)
		if err != nil {
			return fmt.Errorf("header of %s: %w", s.name(), err)
		}
		if i > 0 && !bytes.Equal(got, text) {
			return fmt.Errorf("%s differs between the series of %s and %s", headerPath, p.series[0].name(), s.name())
		}
		text = got
	}
	return os.WriteFile(file, text, 0o644)
}

func (s series) header(ctx context.Context) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "scoutfs-notify-header-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := s.apply(ctx, tmp, headerPath); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(tmp, headerPath))
}
