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
		return nil, explain(err, mount)
	}
	return c, nil
}

// explain adds what to do to an error of finding or reaching the daemon.
func explain(err error, mount string) error {
	switch {
	case errors.Is(err, notify.ErrNotRunning):
		return fmt.Errorf("%w: start it with: systemctl start %s", err, unitName(mount))
	case errors.Is(err, notify.ErrRefused):
		return fmt.Errorf("%w: it has as many clients as it may, or this is not the host's root: see journalctl -u %s", err, unitName(mount))
	case errors.Is(err, notify.ErrNotScoutFS):
		return fmt.Errorf("%w: name the mount point of one; findmnt -t scoutfs lists them", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: only root may see who reads what", err)
	}
	return err
}

// unitName is the daemon's unit for a mount point. For a socket's path the
// mount point is not known.
func unitName(mount string) string {
	const template = "scoutfs-notifyd@"
	abs, err := filepath.Abs(mount)
	if err != nil || filepath.Base(mount) == notify.SocketName {
		return template + "MOUNTPOINT.service"
	}
	return template + escapeUnitPath(abs) + ".service"
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
