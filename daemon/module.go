// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"os"
	"path/filepath"
	"regexp"
)

// releaseTag finds the release in what git says of a build, such as
// tags/v1.30-0-gad6511.
var releaseTag = regexp.MustCompile(`\bv[0-9]+\.[0-9]+\b`)

// moduleRelease returns the release of the loaded ScoutFS module, such as
// v1.30, or "" if it does not tell. dir is its directory in /sys/module.
func moduleRelease(dir string) string {
	// ScoutFS keeps it in a note of the module. The other is what a packager
	// may set.
	if b, err := os.ReadFile(filepath.Join(dir, "notes", ".note.git_describe")); err == nil {
		if tag := releaseTag.Find(b); tag != nil {
			return string(tag)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "version")); err == nil {
		if tag := releaseTag.FindString("v" + string(b)); tag != "" {
			return tag
		}
		return releaseTag.FindString(string(b))
	}
	return ""
}

// installHint tells what to install for notify support.
func installHint(moduleDir string) string {
	const then = ", unmount the file system, reload the module (modprobe -r scoutfs, modprobe scoutfs) and mount it again"
	if v := moduleRelease(moduleDir); v != "" {
		return "install the package scoutfs-notify-kmod-" + v + then
	}
	return "install the package scoutfs-notify-kmod-vX.YY, where X.YY is the release of ScoutFS" + then
}
