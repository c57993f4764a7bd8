// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/blakesmith/ar"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// deb writes the package of s for Debian to dist.
func (p *project) deb(ctx context.Context, s release) error {
	nfpm, err := p.nfpm(ctx)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "scoutfs-notify-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	source, err := p.stage(ctx, s, tmp)
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(tmp, name) }
	if err := os.Rename(source, at("source")); err != nil {
		return err
	}
	changelog, err := chglog(p.changes, func(release int) string { return fmt.Sprintf("%s-%d", s.number(), release) })
	if err != nil {
		return err
	}
	script, err := p.debScript(s)
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"changelog.yaml":           changelog,
		"script.sh":                script,
		"modules_to_force_install": []byte(kmodName + "_version-override\n"),
		"copyright":                []byte(kmodCopyright),
	} {
		if err := os.WriteFile(at(name), text, 0o644); err != nil {
			return err
		}
	}
	if err := p.stamp(tmp); err != nil {
		return err
	}
	out := at("out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if _, err := (run.Command{
		Dir: tmp,
		Env: []string{"SCOUTFS=" + s.number(), "VERSION=" + strconv.Itoa(p.number),
			"SOURCE_DATE_EPOCH=" + strconv.FormatInt(p.epoch.Unix(), 10)},
		Argv: []string{nfpm, "package", "--config", p.file("packaging", "nfpm-kmod.yaml"), "--packager", "deb", "--target", out},
	}).Output(ctx); err != nil {
		return err
	}
	_, err = p.collect(filepath.Join(out, "*.deb"), p.dist)
	return err
}

// kmodCopyright is the deb's replacement for a licence file.
const kmodCopyright = `ScoutFS and the scoutfs-notify series are licensed under the GNU General Public License,
version 2 only, which is in /usr/share/common-licenses/GPL-2.
`

// debScript returns the deb's maintainer scripts, which are one.
func (p *project) debScript(s release) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#!/bin/sh\nname=%s scoutfs=%s release=%d\n", s.packageName(), s.number(), p.number)
	for _, name := range []string{"kmod.sh", "kmod-deb.sh"} {
		text, err := os.ReadFile(p.file("packaging", name))
		if err != nil {
			return nil, err
		}
		_, shell, _ := bytes.Cut(text, []byte("\n"))
		b.Write(shell)
	}
	return b.Bytes(), nil
}

// aptIndex writes the index of all debs in dir for apt: Packages, and Release, which
// vouches for it and is not signed.
func aptIndex(dir string, date time.Time) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	var index bytes.Buffer
	for _, deb := range debs {
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		control, err := debControl(data)
		if err != nil {
			return fmt.Errorf("read %s: %w", deb, err)
		}
		fmt.Fprintf(&index, "%s\nFilename: ./%s\nSize: %d\nSHA256: %x\n\n",
			strings.TrimSpace(control), filepath.Base(deb), len(data), sha256.Sum256(data))
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages"), index.Bytes(), 0o644); err != nil {
		return err
	}
	text := fmt.Sprintf("Origin: scoutfs-notify\nLabel: scoutfs-notify\nDate: %s\nSHA256:\n %x %d Packages\n",
		date.UTC().Format(time.RFC1123), sha256.Sum256(index.Bytes()), index.Len())
	return os.WriteFile(filepath.Join(dir, "Release"), []byte(text), 0o644)
}

// debControl returns the control file of a deb.
func debControl(deb []byte) (string, error) {
	files := ar.NewReader(bytes.NewReader(deb))
	for {
		h, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("find control.tar.gz: %w", noEOF(err))
		}
		if strings.TrimSuffix(h.Name, "/") != "control.tar.gz" {
			continue
		}
		z, err := gzip.NewReader(files)
		if err != nil {
			return "", fmt.Errorf("unpack control.tar.gz: %w", err)
		}
		for t := tar.NewReader(z); ; {
			h, err := t.Next()
			if err != nil {
				return "", fmt.Errorf("find control: %w", noEOF(err))
			}
			if path.Clean(h.Name) == "control" {
				text, err := io.ReadAll(t)
				return string(text), err
			}
		}
	}
}

// noEOF returns an error that says that a file ends too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
