// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// arches are the architectures of the daemon's packages, by Go's names, which nfpm
// translates.
var arches = []string{"amd64", "arm64"}

// programs are the packaged commands, folders of cmd/, in whichever module.
var programs = []string{"scoutfs-notifyd", "scoutfs-notify", "scoutfs-notify-index"}

// goCommand runs go with the settings for packages: static binaries, the same bytes
// in every clone.
func (p *project) goCommand(ctx context.Context, env []string, args ...string) (string, error) {
	return run.Command{
		Dir:  p.root,
		Env:  append([]string{"CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false -mod=readonly"}, env...),
		Argv: append([]string{"go"}, args...),
	}.Output(ctx)
}

// nfpm compiles nfpm into Go's cache and returns its path. The first time takes a
// minute.
func (p *project) nfpm(ctx context.Context) (string, error) {
	path, err := p.goCommand(ctx, nil, "-C", p.file("tests"), "tool", "-n", "nfpm")
	return strings.TrimSpace(path), err
}

// notifyd writes the daemon's packages to dist.
func (p *project) notifyd(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "scoutfs-notify-notifyd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	nfpm, err := p.nfpm(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dist, 0o755); err != nil {
		return err
	}
	for _, arch := range arches {
		stage := filepath.Join(tmp, arch)
		if err := p.stageNotifyd(ctx, arch, stage); err != nil {
			return fmt.Errorf("stage scoutfs-notifyd for %s: %w", arch, err)
		}
		for _, packager := range []string{"rpm", "deb"} {
			out := filepath.Join(stage, "out", packager)
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			if _, err := (run.Command{
				Dir: stage,
				Env: []string{"VERSION=" + strconv.Itoa(p.number), "ARCH=" + arch,
					"SOURCE_DATE_EPOCH=" + strconv.FormatInt(p.epoch.Unix(), 10)},
				Argv: []string{nfpm, "package", "--config", p.file("packaging", "nfpm.yaml"),
					"--packager", packager, "--target", out},
			}).Output(ctx); err != nil {
				return err
			}
			if _, err := p.collect(filepath.Join(out, "*."+packager), p.dist); err != nil {
				return err
			}
		}
	}
	return nil
}

// stageNotifyd puts all files that nfpm.yaml names into dir.
func (p *project) stageNotifyd(ctx context.Context, arch, dir string) error {
	for _, folder := range []string{"scripts", "completion", "include/scoutfs"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }

	for _, name := range programs {
		if _, err := p.goCommand(ctx, []string{"GOOS=linux", "GOARCH=" + arch}, "-C", p.file("cmd", name), "build",
			"-ldflags=-s -w -buildid= -X main.version="+strconv.Itoa(p.number), "-o", at(name), "."); err != nil {
			return err
		}
	}
	for _, name := range []string{"scoutfs-notifyd@.service", "scoutfs-notify-index@.service", "tmpfiles.conf", "include/scoutfs/notify_socket.h",
		"completion/scoutfs-notify.bash", "completion/_scoutfs-notify", "scripts/postinstall.sh", "scripts/preremove.sh", "scripts/postremove.sh"} {
		if err := copyFile(at(name), p.file("packaging", name)); err != nil {
			return err
		}
	}
	if err := copyFile(at("LICENSE"), p.file("LICENSES", "GPL-2.0-only.txt")); err != nil {
		return err
	}
	texts, err := p.texts(ctx)
	if err != nil {
		return err
	}
	for name, text := range texts {
		if err := os.WriteFile(at(name), text, 0o644); err != nil {
			return err
		}
	}
	return p.stamp(dir)
}

// texts returns the files of the packages that are made here, by name.
func (p *project) texts(ctx context.Context) (map[string][]byte, error) {
	header, err := p.commonHeader()
	if err != nil {
		return nil, err
	}
	changelog, err := chglog(p.changes, func(release int) string { return fmt.Sprintf("%d-1", release) })
	if err != nil {
		return nil, err
	}
	linked, err := p.linkedLicences(ctx)
	if err != nil {
		return nil, err
	}
	texts := map[string][]byte{
		"notify_ioctl.h": []byte(header),
		"changelog.yaml": changelog,
		"LICENSE.linked": linked,
		"copyright":      fmt.Appendf(nil, copyright, linked),
	}
	pages, err := filepath.Glob(p.file("packaging", "man", "*.[0-9]"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return nil, err
		}
		if texts[filepath.Base(page)+".gz"], err = gzipBytes(text); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// copyright is Debian's replacement for a licence file.
const copyright = `scoutfs-notify is licensed under the GNU General Public License, version 2 only,
which is in /usr/share/common-licenses/GPL-2.

The programs contain the following, under their licences:

%s`

// module is the project's own path, and the start of its modules'.
const module = "git.anomalous.dev/alphacentri/scoutfs-notify"

// linkedFrom are the folders whose code the programs may contain, modules and what has a
// licence of its own in them, with the licences, which have to be such that the whole can be passed on under GPL-2.0-only: Apache-2.0 is not.
// packaging/nfpm.yaml has the sum.
var linkedFrom = map[string]string{
	"github.com/klauspost/compress":                      "BSD-3-Clause",
	"github.com/klauspost/compress/internal/snapref":     "BSD-3-Clause",
	"github.com/klauspost/compress/zstd/internal/xxhash": "MIT",
	"charm.land/bubbletea/v2":                            "MIT",
	"github.com/charmbracelet/colorprofile":              "MIT",
	"github.com/charmbracelet/ultraviolet":               "MIT",
	"github.com/charmbracelet/x/ansi":                    "MIT",
	"github.com/charmbracelet/x/term":                    "MIT",
	"github.com/charmbracelet/x/termios":                 "MIT",
	"github.com/charmbracelet/x/windows":                 "MIT",
	"github.com/clipperhouse/displaywidth":               "MIT",
	"github.com/clipperhouse/uax29/v2":                   "MIT",
	"github.com/lucasb-eyer/go-colorful":                 "MIT",
	"github.com/mattn/go-runewidth":                      "MIT",
	"github.com/muesli/cancelreader":                     "MIT",
	"github.com/rivo/uniseg":                             "MIT",
	"github.com/xo/terminfo":                             "MIT",
	"golang.org/x/sync":                                  "BSD-3-Clause",
	"golang.org/x/sys":                                   "BSD-3-Clause",
}

// linkedLicences returns the licences of the code that is linked into the programs from
// elsewhere.
func (p *project) linkedLicences(ctx context.Context) ([]byte, error) {
	files := make(map[string]string) // by the import path of the folder
	for _, name := range programs {
		const format = "{{with .Module}}{{.Path}} {{$.ImportPath}} {{$.Dir}}{{end}}"
		list, err := p.goCommand(ctx, []string{"GOOS=linux"}, "-C", p.file("cmd", name), "list", "-deps", "-f", format, ".")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(list) {
			f := strings.SplitN(strings.TrimSpace(line), " ", 3)
			if len(f) == 3 && f[0] != module && !strings.HasPrefix(f[0], module+"/") {
				if err := licences(files, f[0], f[1], f[2]); err != nil {
					return nil, err
				}
			}
		}
	}
	var b bytes.Buffer
	for _, folder := range slices.Sorted(maps.Keys(files)) {
		if linkedFrom[folder] == "" {
			return nil, fmt.Errorf("a program contains %s, whose licence nobody has looked at: add it to linkedFrom of tests/packages and to packaging/nfpm.yaml", folder)
		}
		text, err := os.ReadFile(files[folder])
		if err != nil {
			return nil, err
		}
		also := ""
		if folder == "golang.org/x/sys" {
			also = ", and Go's library, which shares its licence"
		}
		fmt.Fprintf(&b, "%s%s:\n\n%s\n\n", folder, also, bytes.TrimSpace(text))
	}
	return b.Bytes(), nil
}

// licences adds the licence files that a package's folder and those above it have, up to
// the module's, which must have one.
func licences(files map[string]string, module, pkg, dir string) error {
	for folder := pkg; ; folder, dir = path.Dir(folder), filepath.Dir(dir) {
		found, err := filepath.Glob(filepath.Join(dir, "LICENSE*"))
		if err != nil {
			return err
		}
		if len(found) > 1 || folder == module && len(found) == 0 {
			return fmt.Errorf("%s has %d files LICENSE*, not one", dir, len(found))
		}
		if len(found) == 1 {
			files[folder] = found[0]
		}
		if folder == module {
			return nil
		}
	}
}

// gzipBytes compresses a text, to the same bytes every time.
func gzipBytes(text []byte) ([]byte, error) {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(text)
	}
	if err == nil {
		err = z.Close()
	}
	return buf.Bytes(), err
}

// chglog returns the changelog for nfpm, which reads YAML: JSON is a subset. version names
// the package's version with a release number.
func chglog(all []change, version func(release int) string) ([]byte, error) {
	type object map[string]any
	var entries []object
	for _, c := range all {
		var notes []object
		for _, n := range c.notes {
			notes = append(notes, object{"note": n})
		}
		entries = append(entries, object{
			"semver": version(c.release), "date": c.date, "packager": c.who, "changes": notes,
			// Without this, dpkg cannot read the entries that nfpm writes for debs.
			"deb": object{"distributions": []string{"unstable"}, "urgency": "medium"},
		})
	}
	return json.MarshalIndent(entries, "", "  ")
}
