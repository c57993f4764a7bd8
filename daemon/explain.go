// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Exit statuses, with the numbers of sysexits.h where it has one.
const (
	exitOK         = 0  // told to stop, or unmounted
	exitFailure    = 1  // anything else
	exitUsage      = 64 // bad flags or arguments
	exitBusy       = 75 // somebody else reads or serves the file system; may pass
	exitPermission = 77 // not root
	exitConfig     = 78 // not ScoutFS, or no notify support: no use in restarting
)

// Why a daemon stops, as the context's cause. With [notify.ErrUnmounted], what it serves
// is no longer mounted at the mount point.
var (
	errStopping   = errors.New("told to stop")
	errRestarting = errors.New("told to stop, to be started again")
)

// lastWords is what the log and the clients hear of a relay that is told to stop.
func lastWords(ctx context.Context) (msg string, reason notify.Reason) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, notify.ErrUnmounted):
		return "file system is unmounted: stopping", notify.EndUnmounted
	case errors.Is(cause, errRestarting):
		return "stopping", notify.EndRestarting
	}
	return "stopping", notify.EndStopping
}

// explain returns the exit status for the error of run, and what to do about it,
// if that is known.
func explain(err error) (status int, hint string) {
	switch {
	case err == nil:
		return exitOK, ""
	case errors.Is(err, notify.ErrNotSupported):
		return exitConfig, installHint("/sys/module/scoutfs")
	case errors.Is(err, notify.ErrNotScoutFS):
		return exitConfig, "mount the file system first and name its mount point"
	case errors.Is(err, notify.ErrBusy):
		return exitBusy, "stop the other reader; this finds it: find /proc -path '/proc/[0-9]*/fd/*' -lname '*scoutfs-notify*'"
	case errors.Is(err, errServed):
		return exitBusy, ""
	case errors.Is(err, errUnsafeDir):
		return exitPermission, "give it to the daemon's user and to nobody else: chown root: DIRECTORY && chmod 755 DIRECTORY"
	case errors.Is(err, os.ErrPermission):
		return exitPermission, "run it as root of the host, with CAP_SYS_ADMIN and CAP_NET_ADMIN"
	}
	return exitFailure, ""
}

// installHint says what to install for notify support.
func installHint(moduleDir string) string {
	const then = ", unmount the file system, reload the module (modprobe -r scoutfs, modprobe scoutfs) and mount it again"
	if v := moduleRelease(moduleDir); v != "" {
		return "install the package scoutfs-notify-kmod-" + v + then
	}
	return "install the package scoutfs-notify-kmod-vX.YY, where X.YY is the release of ScoutFS" + then
}

// releaseTag finds the release in git's description of a build, such as
// tags/v1.30-0-gad6511.
var releaseTag = regexp.MustCompile(`\bv[0-9]+\.[0-9]+\b`)

// moduleRelease returns the release of the loaded ScoutFS module, such as v1.30,
// or "" if the module does not say. dir is its directory in /sys/module.
func moduleRelease(dir string) string {
	// ScoutFS has it in a note of the module; a packager may have set the version,
	// with or without the v. What is missing reads as empty.
	note, _ := os.ReadFile(filepath.Join(dir, "notes", ".note.git_describe"))
	version, _ := os.ReadFile(filepath.Join(dir, "version"))
	return cmp.Or(releaseTag.FindString(string(note)), releaseTag.FindString("v"+strings.TrimPrefix(string(version), "v")))
}
