// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// connect connects to the daemon of a mount. Its errors say what to do.
func connect(ctx context.Context, env *environment, mount string) (*notify.Client, error) {
	d := &notify.Dialer{RunDir: env.runDir}
	c, err := d.DialContext(ctx, mount)
	if err != nil {
		return nil, explain(env, err, mount)
	}
	return c, nil
}

// explain adds advice to an error from looking for the daemon or reaching it.
func explain(env *environment, err error, mount string) error {
	switch {
	case errors.Is(err, notify.ErrNotRunning):
		return fmt.Errorf("%w: %s", err, startHint(env, mount))
	case errors.Is(err, notify.ErrRefused):
		return fmt.Errorf("%w: it has as many clients as it may, or this is not the host's root: see journalctl -u %s", err, unitName(env, mount))
	case errors.Is(err, notify.ErrNotScoutFS), errors.Is(err, notify.ErrTarget), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: name a mount point; findmnt -t scoutfs lists them", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: only root may see who reads what: run this as root of the host", err)
	}
	return err
}

// startHint says how to start the daemon of a mount.
func startHint(env *environment, mount string) string {
	if mountPointOf(env, mount) == "" {
		return `start it with: systemctl start "$(systemd-escape --path --template=scoutfs-notifyd@.service MOUNTPOINT)"; findmnt -t scoutfs lists the mount points`
	}
	return "start it with: systemctl start " + unitName(env, mount)
}

// unitName returns the daemon's unit for a mount, quoted for a shell if need be;
// if the mount point is not known, the pattern that journalctl takes for all.
func unitName(env *environment, mount string) string {
	point := mountPointOf(env, mount)
	if point == "" {
		return "'scoutfs-notifyd@*'"
	}
	unit := "scoutfs-notifyd@" + escapeUnitPath(point) + ".service"
	if strings.Contains(unit, `\`) {
		unit = "'" + unit + "'"
	}
	return unit
}

// mountPointOf returns the mount point for a command's argument, which may also be
// a directory below it or the daemon's socket; "" if it is not known.
func mountPointOf(env *environment, mount string) string {
	if isSocketPath(mount) {
		// Written by the daemon, which may have been killed since.
		if st, err := notify.ReadState(filepath.Join(filepath.Dir(mount), notify.StateName)); err == nil {
			return st.MountPoint
		}
		return ""
	}
	dir, err := filepath.Abs(mount)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	b, err := os.ReadFile(filepath.Join(env.proc, "self", "mountinfo"))
	if err != nil {
		return dir
	}
	return findMountPoint(string(b), dir)
}

// isSocketPath tells whether a command's argument is the path of the daemon's
// socket, which need not exist.
func isSocketPath(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return filepath.Base(path) == notify.SocketName
	}
	return fi.Mode().Type() == os.ModeSocket
}

// findMountPoint returns the mount point of the ScoutFS that a directory is on, or
// the directory itself if it is on another file system. info is a process's
// mountinfo.
func findMountPoint(info, dir string) string {
	var found mountinfo.Mount
	for _, m := range mountinfo.Parse(info) {
		// A later mount at the same place hides an earlier one.
		if len(m.Point) >= len(found.Point) && isBelow(dir, m.Point) {
			found = m
		}
	}
	if found.Type != "scoutfs" {
		return dir
	}
	return found.Point
}

// isBelow tells whether a clean absolute path is dir or below it.
func isBelow(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// escapeUnitPath does what systemd-escape --path does to an absolute path:
// slashes become dashes, and anything but letters, digits, ':', '_' and '.'
// becomes \xNN, as does a leading dot.
func escapeUnitPath(path string) string {
	path = strings.Trim(filepath.Clean(path), "/")
	if path == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i == 0:
			fmt.Fprintf(&b, `\x%02x`, c)
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
