// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func TestPictureCommand(t *testing.T) {
	for kind := range pictures {
		for name, tt := range map[string]struct {
			end    []notify.Event
			status int
		}{
			"end":    {[]notify.Event{&notify.End{Seq: 5, Reason: notify.EndUnmounted}}, 0},
			"killed": {nil, 1}, // what there was is drawn
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				socket := fakeDaemon(t, func(c *fakeClient) {
					c.say(records(sampleRecords[:1]...)...)
					c.say(tt.end...)
				})
				out := filepath.Join(t.TempDir(), "x.svg")
				status, stdout, stderr := runCommand("picture", kind, "-title", "a <title>", "-o", out, socket)
				if status != tt.status || stdout != "" {
					t.Errorf("exit status %d, output %q, %s", status, stdout, stderr)
				}
				text, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				if s := string(text); !strings.Contains(s, ">a &lt;title&gt;</text>") || !strings.HasSuffix(s, "</svg>\n") {
					t.Errorf("got %s", s)
				}
				left, err := os.ReadDir(filepath.Dir(out))
				if err != nil || len(left) != 1 {
					t.Errorf("there are %v, %v", left, err)
				}
				fi, err := os.Stat(out)
				if err != nil || fi.Mode().Perm() != 0o600 {
					t.Errorf("mode %v, %v", fi.Mode(), err)
				}
				status, stdout, stderr = runCommand("picture", kind, socket)
				if status != tt.status || !strings.HasSuffix(stdout, "</svg>\n") {
					t.Errorf("to standard output: exit status %d, %s", status, stderr)
				}
			})
		}
	}
}

// With -for it ends, and draws what there was.
func TestPictureFor(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	socket := fakeDaemon(t, func(c *fakeClient) {
		c.say(records(sampleRecords[:1]...)...)
		<-release
	})
	if status, stdout, stderr := runCommand("picture", "-for", "100ms", "who", socket); status != 0 || !strings.Contains(stdout, "read by") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

// A recording is drawn as a mount is, and top sums it up.
func TestPictureRecording(t *testing.T) {
	socket := fakeDaemon(t, func(c *fakeClient) {
		c.say(records(sampleRecords[:1]...)...)
		c.say(&notify.End{Seq: sampleRecords[0].Seq, Reason: notify.EndUnmounted})
	})
	file := filepath.Join(t.TempDir(), "x.rec")
	if status, _, stderr := runCommand("record", "-count", "1", file, socket); status != 0 {
		t.Fatalf("record: exit status %d, %s", status, stderr)
	}
	for kind := range pictures {
		// -for is for mounts.
		if status, stdout, stderr := runCommand("picture", "-for", "1ns", kind, file); status != 0 || !strings.Contains(stdout, "lost nothing") || strings.Contains(stdout, "no accesses") {
			t.Errorf("%s: exit status %d, %s\n%s", kind, status, stderr, stdout)
		}
	}
	if status, stdout, stderr := runCommand("top", file); status != 0 || !strings.Contains(stdout, "  inode 42\n") {
		t.Errorf("top: exit status %d, %s\n%s", status, stderr, stdout)
	}
}

func TestPictureUsage(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"picture"}, 64, "picture: the kind of picture is missing: heatmap, reuse, treemap, who\n"},
		{[]string{"picture", "x"}, 64, `picture: there is no kind "x": the kinds are heatmap`},
		{[]string{"picture", "who", "a", "b"}, 64, "picture: expected one mount point, got 2 arguments"},
		{[]string{"picture", "-block", "0", "reuse", "a"}, 64, "out of range: 1 to 1048576"},
		{[]string{"picture", "-o", "/nonexistent/x", "who", "/nonexistent/y"}, 66, "picture: open /nonexistent/"},
	} {
		if status, _, stderr := runCommand(tt.args...); status != tt.status || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: exit status %d, %s", tt.args, status, stderr)
		}
	}
}
