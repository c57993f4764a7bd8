// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// With a daemon's state file the client does not touch the file system: the mount
// points here do not even exist. They are on the device of the root directory.
func TestDialServed(t *testing.T) {
	const mount = "/nonexistent/mount"
	root, err := MountOf("/")
	if err != nil {
		t.Fatal(err)
	}
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
	state := fmt.Sprintf(`{"mount_point": "/elsewhere", "device": "%v"}`, root.Device)
	liveOn := func(t *testing.T, run, fsid string, hello *Hello) {
		t.Helper()
		serve(t, run, fsid, state)
		ln := listen(t)
		if err := os.Symlink(ln.Addr().String(), filepath.Join(run, fsid, SocketName)); err != nil {
			t.Fatal(err)
		}
		go greet(t, ln, hello)
	}
	live := func(t *testing.T, run, fsid string) {
		t.Helper()
		liveOn(t, run, fsid, &Hello{Next: 1, Device: root.Device, Version: Version2})
	}
	for name, c := range map[string]struct {
		setup func(t *testing.T, run string)
		err   error
	}{
		"served": {func(t *testing.T, run string) { live(t, run, "a") }, nil},
		"among others": {func(t *testing.T, run string) {
			serve(t, run, "0", fmt.Sprintf(`{"mount_point": %q, "device": "4095:4095"}`, mount))
			serve(t, run, "2", fmt.Sprintf(`{"mount_point": %q}`, mount))
			serve(t, run, "1", `not JSON`)
			live(t, run, "a")
		}, nil},
		"none": {func(*testing.T, string) {}, os.ErrNotExist},
		"another mount": {func(t *testing.T, run string) {
			liveOn(t, run, "a", &Hello{Next: 1, Device: Device{4095, 4095}, Version: Version2})
		}, ErrOtherMount},
		"killed":    {func(t *testing.T, run string) { serve(t, run, "a", state) }, ErrNotRunning},
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

// TestResolve: symbolic links are followed, and a path that does not exist is kept.
func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if got, err := resolve(link); err != nil || got != link {
		t.Errorf("a link to nothing: %s, %v", got, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := resolve(link + "/"); err != nil || got != filepath.Join(dir, "real") {
		t.Errorf("a link: %s, %v", got, err)
	}
}

// greet accepts a client of version 2 and says hello.
func greet(t *testing.T, ln *net.UnixListener, hello *Hello) {
	conn, err := ln.AcceptUnix()
	if err != nil {
		return // nobody came
	}
	t.Cleanup(func() { conn.Close() })
	var b [RequestSize2]byte
	if _, err := conn.Read(b[:]); err != nil {
		return
	}
	pkt, _ := hello.AppendBinary(nil)
	conn.Write(pkt)
}
