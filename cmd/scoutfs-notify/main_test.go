// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"io"
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

// asIdle makes it a process that writes a byte and waits for the end of its input.
const asIdle = "SCOUTFS_NOTIFY_TEST_IDLE"

func TestMain(m *testing.M) {
	if os.Getenv(asIdle) != "" {
		os.Stdout.Write([]byte{0})
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	time.Local = time.UTC
	os.Exit(m.Run())
}

// commandLine returns scoutfs-notify as a separate process.
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
	env.height, env.width, env.progress = func() int { return 0 }, func() int { return 0 }, false
	status = run(context.Background(), env, args)
	return status, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, notify.SocketName)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const (
		start     = `scoutfs-notifyd is not running: start it with: systemctl start "$(systemd-escape --path --template=scoutfs-notifyd@.service MOUNTPOINT)"`
		nameOne   = ": name a mount point; findmnt -t scoutfs lists them\n"
		aDuration = ": a duration is a number with a unit, such as 500us or 2s\nTry 'scoutfs-notify top -help'.\n"
		aNumber   = ": not a whole number, 0 or more\nTry 'scoutfs-notify tail -help'.\n"
	)
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		stdout string // part of it
		stderr string // part of it
	}{
		{"nothing", nil, 64, "", "a command is missing\nTry 'scoutfs-notify -help'.\n"},
		{"help", []string{"-help"}, 0, "Usage: scoutfs-notify COMMAND", ""},
		{"help of a command", []string{"help", "tail"}, 0, "Usage: scoutfs-notify tail", ""},
		{"help of an unknown command", []string{"help", "cat"}, 64, "", `there is no command "cat"`},
		{"help of help", []string{"help", "-help"}, 0, "Usage: scoutfs-notify COMMAND", ""},
		{"help of version", []string{"help", "version"}, 0, "Usage: scoutfs-notify COMMAND", ""},
		{"version", []string{"--version"}, 0, "scoutfs-notify ", ""},
		{"unknown", []string{"cat"}, 64, "", `there is no command "cat"`},
		{"tail help", []string{"tail", "-h"}, 0, "Usage: scoutfs-notify tail", ""},
		{"tail nothing", []string{"tail"}, 64, "", "tail: a mount point is missing, and no ScoutFS is mounted here\nTry 'scoutfs-notify tail -help'.\n"},
		{"tail empty", []string{"tail", ""}, 64, "", "tail: the mount point is an empty string\n"},
		{"tail two", []string{"tail", "a", "b"}, 64, "", "tail: expected one mount point, got 2 arguments\n"},
		{"tail flag after the mount point", []string{"tail", dir + "/none", "-json"}, 66, "", "find the socket for " + dir + "/none: no such file or directory" + nameOne},
		{"tail dash dash", []string{"tail", "--", "-json"}, 66, "", "find the socket for -json: no such file or directory" + nameOne},
		{"tail dash dash in between", []string{"tail", dir + "/none", "--", "-json"}, 64, "", "expected one mount point, got 2 arguments\n"},
		{"tail flag", []string{"tail", "-x", "a"}, 64, "", "flag provided but not defined: -x\nTry 'scoutfs-notify tail -help'.\n"},
		{"tail count", []string{"tail", "-count", "-1", "a"}, 64, "", `invalid value "-1" for flag -count` + aNumber},
		{"tail types", []string{"tail", "-type", "open,write", "a"}, 64, "", `tail: invalid value "open,write" for flag -type: "write" is neither open nor read` + "\n"},
		{"tail users", []string{"tail", "-user", "1", "-exclude-user", "2", "a"}, 64, "", "tail: -user and -exclude-user: only one of them can be given\nTry 'scoutfs-notify tail -help'.\n"},
		{"tail processes", []string{"tail", "-exclude-pid", "1", "-pid", "2", "a"}, 64, "", "tail: -pid and -exclude-pid: only one of them can be given\n"},
		{"tail commands", []string{"tail", "-exclude-comm", "cat", "-comm", "dd", "a"}, 64, "", "tail: -comm and -exclude-comm: only one of them can be given\n"},
		{"tail formats", []string{"tail", "-json", "-0", "a"}, 64, "", "tail: -json and -0: only one of them can be given\n"},
		{"tail past", []string{"tail", "-n", "10", dir}, 64, "", "tail: -n is for recordings, a mount has no past; -count 10 ends after as many accesses\n"},
		{"tail every", []string{"tail", "-every", "1s", "-count", "1", "a"}, 64, "", "tail: -every has lines for files"},
		{"tail under", []string{"tail", "-under", dir + "/none", socket}, 66, "", "stat " + dir + "/none: no such file or directory"},
		{"tail time", []string{"tail", "-time", "x", "a"}, 64, "", `invalid value "x" for flag -time: not one of clock, date, iso, unix`},
		{"tail idle", []string{"tail", "-idle", "9ms", "a"}, 64, "", `invalid value "9ms" for flag -idle: out of range: 10ms to 24h0m0s` + "\n"},
		{"top user", []string{"top", "-user", "no such user", "a"}, 64, "", `top: invalid value "no such user" for flag -user: "no such user" is not a user: there is none of that name` + "\n"},
		{"top help", []string{"top", "-h"}, 0, "Usage: scoutfs-notify top", ""},
		{"top by", []string{"top", "-by", "x", "a"}, 64, "", `top: invalid value "x" for flag -by: not one of file, directory, user, process, command` + "\nTry 'scoutfs-notify top -help'.\n"},
		{"top sort", []string{"top", "-sort", "x", "a"}, 64, "", `top: invalid value "x" for flag -sort: not one of bytes, reads, opens, events`},
		{"top interval", []string{"top", "-interval", "0s", "a"}, 64, "", `top: invalid value "0s" for flag -interval: out of range: 10ms or more`},
		{"top interval without unit", []string{"top", "-interval", "1", "a"}, 64, "", `invalid value "1" for flag -interval` + aDuration},
		{"top rows", []string{"top", "-rows", "0", "a"}, 64, "", `top: invalid value "0" for flag -rows: out of range: 1 or more`},
		{"top not running", []string{"top", socket}, 69, "", start},
		{"stat help", []string{"stat", "-h"}, 0, "Usage: scoutfs-notify stat", ""},
		{"stat nothing", []string{"stat"}, 64, "", "stat: a mount point is missing"},
		{"stat no such", []string{"stat", dir + "/none"}, 66, "", "scoutfs-notify: open " + dir + "/none: no such file or directory" + nameOne},
		{"stat other file system", []string{"stat", dir}, 69, "", "scoutfs-notify: identify file system at " + dir + ": not a mounted ScoutFS" + nameOne},
		{"tail other file system", []string{"tail", dir}, 69, "", "identify file system at " + dir + ": not a mounted ScoutFS" + nameOne},
		{"tail no such", []string{"tail", dir + "/none"}, 66, "", "find the socket for " + dir + "/none: no such file or directory" + nameOne},
		{"tail file", []string{"tail", file}, 66, "", "scoutfs-notify: read " + file + ": not a recording of scoutfs-notify\n"},
		{"tail follow no such", []string{"tail", "-f", dir + "/none"}, 66, "", dir + "/none: no such file or directory" + nameOne},
		{"tail not running", []string{"tail", socket}, 69, "", start},
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

// someMounts is a mountinfo with mounts of ScoutFS. One has a mount below it, and
// another file system hides one.
const someMounts = `21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
36 21 0:42 / /mnt/my-fs rw,noatime shared:2 - scoutfs /dev/vdb rw
37 36 0:43 / /mnt/my-fs/scratch rw shared:3 - tmpfs tmpfs rw
41 21 0:47 / /mnt/over rw - tmpfs tmpfs rw
42 41 0:48 / /mnt/over/fs rw - scoutfs /dev/vde rw
43 41 0:49 / /mnt/over rw - tmpfs tmpfs rw
38 21 0:44 / /mnt/a\040b rw - scoutfs /dev/vdc rw
39 21 0:45 / /mnt/hidden rw - scoutfs /dev/vdd rw
40 39 0:46 / /mnt/hidden rw - tmpfs tmpfs rw
short line
`

func TestFindMountPoint(t *testing.T) {
	for dir, want := range map[string]string{
		"/mnt/my-fs":           "/mnt/my-fs",
		"/mnt/my-fs/a/b":       "/mnt/my-fs",
		"/mnt/my-fs-2":         "/mnt/my-fs-2",
		"/mnt/my-fs/scratch/a": "/mnt/my-fs/scratch/a",
		"/mnt/a b/c":           "/mnt/a b",
		"/mnt/hidden/a":        "/mnt/hidden/a",
		"/mnt/over/fs":         "/mnt/over/fs",
		"/":                    "/",
	} {
		if got := findMountPoint(someMounts, dir); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
}

// TestUnitName: hints name the unit ready to paste, whatever the command's argument.
func TestUnitName(t *testing.T) {
	dir := t.TempDir()
	env := &environment{proc: filepath.Join(dir, "proc")}
	mounted := filepath.Join(dir, "my-fs")
	write(t, filepath.Join(env.proc, "self", "mountinfo"), "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 21 0:42 / "+mounted+" rw - scoutfs /dev/vdb rw\n")
	mkdir(t, filepath.Join(mounted, "a", "b"))
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(mounted, "a"), link); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "run", notify.SocketName)
	write(t, filepath.Join(dir, "run", notify.StateName), `{"mount_point": "/mnt/scoutfs", "fsid": "0123456789abcdef", "rid": "0123456789abcdef"}`)
	other := fakeDaemon(t, func(*fakeClient) {})
	quoted := "'scoutfs-notifyd@" + escapeUnitPath(mounted) + ".service'"
	for arg, want := range map[string]string{
		mounted:                       quoted,
		filepath.Join(mounted, "a/b"): quoted,
		link:                          quoted,
		stale:                         "scoutfs-notifyd@mnt-scoutfs.service",
		other:                         "'scoutfs-notifyd@*'",
		"/nonexistent":                "scoutfs-notifyd@nonexistent.service",
	} {
		if got := unitName(env, arg); got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
	}
	renamed := filepath.Join(dir, "other.sock")
	if err := os.Symlink(other, renamed); err != nil {
		t.Fatal(err)
	}
	if got := startHint(env, renamed); !strings.Contains(got, "systemd-escape --path --template=scoutfs-notifyd@.service MOUNTPOINT") {
		t.Errorf("a socket with another name: %s", got)
	}
}

// TestEscapeUnitPath: names are those of systemd-escape --path.
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
