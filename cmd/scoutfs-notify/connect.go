// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// dialer returns how to connect to daemons, with a filter.
func dialer(env *environment, f notify.Filter) *notify.Dialer {
	return &notify.Dialer{RunDir: env.runDir, Filter: f}
}

// connect connects to the daemon of a mount. Its errors say what to do.
func connect(ctx context.Context, env *environment, d *notify.Dialer, mount string) (*notify.Client, error) {
	c, err := d.DialContext(ctx, mount)
	if err != nil {
		return nil, explain(env, err, mount)
	}
	return c, nil
}

// explain adds advice to an error from looking for the daemon, reaching it, or
// listening to it.
func explain(env *environment, err error, mount string) error {
	switch {
	case errors.Is(err, notify.ErrNotRunning):
		return fmt.Errorf("%w: %s", err, startHint(env, mount))
	case errors.Is(err, notify.ErrRefused):
		return fmt.Errorf("%w: %s", err, refusalHint(env, err, mount))
	case errors.Is(err, notify.ErrOtherMount):
		return fmt.Errorf("%w: of the mounts of one file system, a clone or a snapshot included, it serves only one; findmnt -t scoutfs lists them", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w, and what it had not sent is lost: %s", err, logHint(env, mount))
	case errors.Is(err, notify.ErrNotScoutFS), errors.Is(err, notify.ErrTarget), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: name a mount point; findmnt -t scoutfs lists them", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: only root may see who reads what: run this as root of the host", err)
	}
	return err
}

// refusalHint says what to do about being turned away.
func refusalHint(env *environment, err error, mount string) string {
	switch why, _ := notify.Refusal(err); why {
	case notify.EndMaxClients:
		return "scoutfs-notify stat lists them; -max-clients of the daemon says how many"
	case notify.EndCredentials:
		return "run this as root of the host"
	}
	return logHint(env, mount)
}

// logHint says where the daemon's log is.
func logHint(env *environment, mount string) string {
	return "see journalctl -u " + unitName(env, mount)
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
	if m, ok := mountinfo.Find(mountinfo.Parse(info), dir); ok && m.Type == notify.FSType {
		return m.Point
	}
	return dir
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
