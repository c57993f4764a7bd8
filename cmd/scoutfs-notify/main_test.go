// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// asCommand makes the test binary run as scoutfs-notify.
const asCommand = "SCOUTFS_NOTIFY_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	time.Local = time.UTC
	os.Exit(m.Run())
}

// commandLine is scoutfs-notify as a process of its own.
func commandLine(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// runCommand runs scoutfs-notify in this process.
func runCommand(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := systemEnvironment()
	env.stdout, env.stderr = &out, &errs
	env.height = func() int { return 0 }
	status = run(context.Background(), env, args)
	return status, out.String(), errs.String()
}

// fakeDaemon makes a socket like the daemon's and has serve take each client.
func fakeDaemon(t *testing.T, serve func(conn *net.UnixConn)) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, notify.SocketName), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			var req [notify.RequestSize]byte
			conn.Read(req[:])
			serve(conn)
			conn.Close()
		}
	}()
	return ln.Addr().String()
}

// sendAll sends one packet with all records.
func sendAll(conn *net.UnixConn, recs ...notify.Record) {
	var b []byte
	for i := range recs {
		b, _ = recs[i].AppendBinary(b)
	}
	conn.Write(b)
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, notify.SocketName)
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		stdout string // a part
		stderr string // a part
	}{
		{"nothing", nil, 64, "", "expected a command"},
		{"help", []string{"-help"}, 0, "Usage: scoutfs-notify COMMAND", ""},
		{"version", []string{"--version"}, 0, "scoutfs-notify ", ""},
		{"unknown", []string{"cat"}, 64, "", `there is no command "cat"`},
		{"tail help", []string{"tail", "-h"}, 0, "Usage: scoutfs-notify tail", ""},
		{"tail nothing", []string{"tail"}, 64, "", "expected one mount point, got 0"},
		{"tail two", []string{"tail", "a", "b"}, 64, "", "expected one mount point, got 2"},
		{"tail flag", []string{"tail", "-x", "a"}, 64, "", "-x"},
		{"tail count", []string{"tail", "-n", "-1", "a"}, 64, "", "-n"},
		{"top help", []string{"top", "-h"}, 0, "Usage: scoutfs-notify top", ""},
		{"top by", []string{"top", "-by", "x", "a"}, 64, "", "-by x: not inode"},
		{"top sort", []string{"top", "-sort", "x", "a"}, 64, "", "-sort x: not bytes"},
		{"top interval", []string{"top", "-interval", "0s", "a"}, 64, "", "-interval 0s"},
		{"top rows", []string{"top", "-rows", "0", "a"}, 64, "", "-rows 0"},
		{"top not running", []string{"top", socket}, 1, "", "scoutfs-notifyd is not running: start it with: systemctl start scoutfs-notifyd@"},
		{"stat help", []string{"stat", "-h"}, 0, "Usage: scoutfs-notify stat", ""},
		{"stat nothing", []string{"stat"}, 64, "", "expected one mount point, got 0"},
		{"tail other file system", []string{"tail", dir}, 1, "", "not a mounted ScoutFS: name the mount point of one"},
		{"tail no such", []string{"tail", dir + "/none"}, 1, "", "no such file"},
		{"tail not running", []string{"tail", socket}, 1, "", "scoutfs-notifyd is not running: start it with: systemctl start scoutfs-notifyd@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, stdout, stderr := runCommand(tt.args...)
			if status != tt.status || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit status %d, output %q, errors %q", status, stdout, stderr)
			}
			if (stderr == "") != (tt.status == 0) {
				t.Errorf("exit status %d with errors %q", status, stderr)
			}
		})
	}
}

// TestEscapeUnitPath: the expected names are those of systemd-escape --path.
func TestEscapeUnitPath(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/", "-"},
		{"/mnt/scoutfs", "mnt-scoutfs"},
		{"/mnt/scoutfs/", "mnt-scoutfs"},
		{"//mnt//scoutfs", "mnt-scoutfs"},
		{"/mnt/my-fs", `mnt-my\x2dfs`},
		{"/.hidden/.x", `\x2ehidden-.x`},
		{"/a b", `a\x20b`},
		{"/ä", `\xc3\xa4`},
		{"/a:b_c.d", "a:b_c.d"},
		{`/a\b`, `a\x5cb`},
	} {
		if got := escapeUnitPath(tt.path); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
	if path, err := exec.LookPath("systemd-escape"); err == nil {
		for _, p := range []string{"/", "/mnt/my-fs", "/.hidden/.x", "/a b", "/ä", `/a\b`, "/tmp/a:b_c.d/"} {
			out, err := exec.Command(path, "--path", p).Output()
			if err != nil {
				t.Fatalf("systemd-escape --path %s: %v", p, err)
			}
			if got, want := escapeUnitPath(p), strings.TrimSpace(string(out)); got != want {
				t.Errorf("%s: %s, systemd-escape says %s", p, got, want)
			}
		}
	}
}
