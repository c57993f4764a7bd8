// SPDX-License-Identifier: GPL-2.0-only

// Package docs holds the documentation against what it documents.
package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := vm.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root(t)}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func submatches(re, text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// The README's table has the supported releases and no others.
func TestReleases(t *testing.T) {
	t.Setenv("VERSIONS", "")
	want, err := standin.Versions()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	got := submatches(`(?m)^\| (v[0-9.]+) \|`, read(t, "README.md"))
	if !slices.Equal(got, want) {
		t.Errorf("README.md tells of releases %v, patches/ has %v", got, want)
	}
}

// Every target that is named in a document is in the Makefile.
func TestTargets(t *testing.T) {
	targets := submatches(`(?m)^([a-z][a-z0-9-]*):`, read(t, "Makefile"))
	for _, line := range strings.Split(read(t, "Makefile"), "\n") {
		if names, _, ok := strings.Cut(line, ": ##"); ok {
			targets = append(targets, strings.Fields(names)...)
		}
	}
	docs, err := filepath.Glob(filepath.Join(root(t), "docs/*.md"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("no documents in docs/: %v", err)
	}
	for _, doc := range append(docs, filepath.Join(root(t), "README.md")) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range submatches("(?m)(?:`|^)make ([a-z][a-z0-9.-]*)", string(text)) {
			if !slices.Contains(targets, name) && !strings.HasPrefix(name, "kmod-v") {
				t.Errorf("%s names make %s, which the Makefile does not have", filepath.Base(doc), name)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", filepath.Base(doc), m[1])
			}
		}
	}
}

// --help and man page tell of the same flags and commands.
func TestManPages(t *testing.T) {
	bin := t.TempDir()
	for _, c := range []struct{ program, page string }{
		{"scoutfs-notifyd", "scoutfs-notifyd.8"},
		{"scoutfs-notify", "scoutfs-notify.1"},
	} {
		t.Run(c.program, func(t *testing.T) {
			path := filepath.Join(bin, c.program)
			if err := vm.BuildProgram(t.Context(), "./cmd/"+c.program, path); err != nil {
				t.Fatal(err)
			}
			help := func(args ...string) string {
				out, err := exec.Command(path, append(args, "-help")...).Output()
				if err != nil {
					t.Fatalf("%s %v -help: %v", c.program, args, err)
				}
				return string(out)
			}
			text := help()
			if _, commands, ok := strings.Cut(text, "\nCommands:\n"); ok {
				commands, _, _ = strings.Cut(commands, "\n\n")
				page := read(t, "packaging/man", c.page)
				for _, name := range submatches(`(?m)^  ([a-z]+) `, commands) {
					text += help(name)
					if !regexp.MustCompile(fmt.Sprintf(`\b%s\b`, name)).MatchString(page) {
						t.Errorf("%s does not tell of the command %s", c.page, name)
					}
				}
			}
			got := submatches(`(?m)^  -([a-z-]+)`, text)
			want := submatches(`(?m)^\.It Fl ([a-z-]+)`, read(t, "packaging/man", c.page))
			if !slices.Equal(got, want) {
				t.Errorf("-help tells of the flags %v, %s of %v", got, c.page, want)
			}
			if len(got) == 0 {
				t.Error("no flags were found")
			}
		})
	}
}
