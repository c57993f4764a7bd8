// SPDX-License-Identifier: GPL-2.0-only

package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// With a daemon's state file the client does not touch the file system: the mount
// points here do not even exist.
func TestDialServed(t *testing.T) {
	const mount = "/nonexistent/mount"
	serve := func(t *testing.T, run, fsid, state string) {
		t.Helper()
		dir := filepath.Join(run, fsid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, StateName), []byte(state), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	state := fmt.Sprintf(`{"mount_point": %q}`, mount)
	live := func(t *testing.T, run, fsid string) {
		t.Helper()
		serve(t, run, fsid, state)
		if err := os.Symlink(listen(t).Addr().String(), filepath.Join(run, fsid, SocketName)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		setup func(t *testing.T, run string)
		err   error
	}{
		"served": {func(t *testing.T, run string) { live(t, run, "a") }, nil},
		"among others": {func(t *testing.T, run string) {
			serve(t, run, "0", `{"mount_point": "/elsewhere"}`)
			serve(t, run, "1", `not JSON`)
			live(t, run, "a")
		}, nil},
		"none":      {func(*testing.T, string) {}, os.ErrNotExist},
		"stale":     {func(t *testing.T, run string) { serve(t, run, "a", state) }, os.ErrNotExist},
		"ambiguous": {func(t *testing.T, run string) { live(t, run, "a"); serve(t, run, "b", state) }, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			c.setup(t, run)
			client, err := (&Dialer{RunDir: run}).DialContext(t.Context(), mount)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, should be %v", err, c.err)
			}
			if err == nil {
				client.Close()
			}
		})
	}
}
