// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// connect connects to the daemon of a mount, with errors that tell what to do.
func connect(ctx context.Context, env *environment, mount string) (*notify.Client, error) {
	d := &notify.Dialer{RunDir: env.runDir}
	c, err := d.DialContext(ctx, mount)
	if err != nil {
		return nil, explain(env, err, mount)
	}
	return c, nil
}

// explain adds what to do to an error of finding or reaching the notify.
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

// startHint tells how to start the daemon of a mount.
func startHint(env *environment, mount string) string {
	if mountPointOf(env, mount) == "" {
		return `start it with: systemctl start "$(systemd-escape --path --template=scoutfs-notifyd@.service MOUNTPOINT)"; findmnt -t scoutfs lists the mount points`
	}
	return "start it with: systemctl start " + unitName(env, mount)
}

// unitName is the daemon's unit for a mount, quoted for a shell if need be, or
// what journalctl takes for all of them if the mount point cannot be told.
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

// mountPointOf returns the mount point that a command's argument stands for, ""
// if it cannot be told: the argument may be a directory below it, or the
// daemon's socket.
func mountPointOf(env *environment, mount string) string {
	if isSocketPath(mount) {
		// A daemon that was killed has left it.
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

// isSocketPath tells whether a command's argument names the daemon's socket,
// which need not be there.
func isSocketPath(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return filepath.Base(path) == notify.SocketName
	}
	return fi.Mode().Type() == os.ModeSocket
}

// findMountPoint returns where the ScoutFS is mounted that a directory is on, or
// the directory if it is on another file system. info is what
// proc_pid_mountinfo(5) describes:
//
//	36 35 0:42 / /mnt/scoutfs rw,noatime shared:1 - scoutfs /dev/vdb rw
func findMountPoint(info, dir string) string {
	found, isScoutFS := "", false
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(fs) < 1 {
			continue
		}
		point := mountInfoEscapes.Replace(fields[4])
		// A later mount at the same place hides the one before.
		if len(point) >= len(found) && isBelow(dir, point) {
			found, isScoutFS = point, fs[0] == "scoutfs"
		}
	}
	if !isScoutFS {
		return dir
	}
	return found
}

var mountInfoEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// isBelow tells whether a clean absolute path is a directory or below it.
func isBelow(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// escapeUnitPath does what systemd-escape --path does to a clean absolute path:
// slashes become dashes, and what is not a letter, a digit, ':', '_' or '.'
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
