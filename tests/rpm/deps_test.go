// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// tools makes a folder with shell scripts, given by name.
func tools(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tests/deps.sh with packages installed or missing, as root and as a user, in the RHEL
// family and on another distribution, where it only prints a note, and with Go.
func TestDeps(t *testing.T) {
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	const (
		// Has dpkg and git, not rpm.
		debian = `case " $* " in *" rpm "*) exit 1 ;; *-f*) printf 'install ok installed' ;; esac`
		apt    = `echo "apt-get $*"`
	)
	const el = `[ "$2" = git ]`
	old := func(version string) map[string]string {
		return map[string]string{"dpkg-query": debian, "go": version}
	}
	for _, c := range []struct {
		name  string
		tools map[string]string // all of PATH
		args  []string
		fails bool
		want  string // in standard error; empty: no output
	}{
		{name: "no dpkg", args: []string{"git", "rpm"}, want: "deps.sh: this is not Debian"},
		{name: "a dpkg without packages", tools: map[string]string{"dpkg-query": "exit 1"},
			args: []string{"git", "rpm"}, want: "Needed, by Debian's names: git rpm"},
		{name: "RHEL family, missing", tools: map[string]string{"dnf": "exit 1", "rpm": el},
			args: []string{"git", "rpm", "busybox-static", "createrepo-c"}, want: "with EPEL: dnf install rpm-build createrepo_c\n"},
		{name: "RHEL family, installed", tools: map[string]string{"dnf": "exit 1", "rpm": el}, args: []string{"git"}},
		{name: "no Go", tools: old("exit 127"), fails: true, want: "Go 1.25 or newer is needed, from go.dev, and go is not installed"},
		{name: "an old Go", tools: old("echo go version go1.19.8 linux/amd64"), fails: true,
			want: "Go 1.25 or newer is needed, from go.dev, and go is go version go1.19.8"},
		{name: "a Go of the developers", tools: old("echo go version devel go1.27-abcdef linux/amd64"), args: []string{"git"}},
		{name: "installed", tools: map[string]string{"dpkg-query": debian}, args: []string{"git"}},
		{name: "missing, a user", tools: map[string]string{"dpkg-query": debian, "apt-get": apt, "id": "echo 1000"},
			args: []string{"git", "rpm"}, fails: true, want: "apt-get install -y --no-install-recommends rpm'"},
		{name: "missing, root", tools: map[string]string{"dpkg-query": debian, "apt-get": apt, "id": "echo 0"},
			args: []string{"git", "rpm"}, want: "apt-get install -q -y --no-install-recommends rpm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/bin/sh", append([]string{"tests/deps.sh"}, c.args...)...)
			cmd.Dir = repo
			all := map[string]string{"go": "echo go version go1.25.0 linux/amd64"}
			maps.Copy(all, c.tools)
			cmd.Env = []string{"PATH=" + tools(t, all)}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if (err != nil) != c.fails {
				t.Errorf("deps.sh: %v\n%s", err, stderr.String())
			}
			if out := stdout.String(); out != "" {
				t.Errorf("on standard output: %s", out)
			}
			out := stderr.String()
			if !strings.Contains(out, c.want) || c.want == "" && out != "" {
				t.Errorf("printed %q, not %q", out, c.want)
			}
		})
	}
}

// The Makefile passes the named releases to the program that builds.
func TestMakeVersions(t *testing.T) {
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"packages":        "all v1.29 v1.30",
		"kmod":            "kmod v1.29 v1.30",
		"kmod-v1.28":      "kmod v1.28",
		"srpm":            "srpm v1.29 v1.30",
		"rpm":             "rpm v1.29 v1.30",
		"mock CHROOT=el9": "mock el9 v1.29 v1.30",
	} {
		args := append([]string{"-n", "--no-print-directory", "VERSIONS=v1.29 v1.30", "SCOUTFS_SRC=/upstream"}, strings.Fields(target)...)
		if out := host(t, repo, "make", args...); !strings.HasSuffix(out, "/packages "+want+"\n") {
			t.Errorf("make %s runs\n%s\nwhich does not end in %q", target, out, want)
		}
	}
}
