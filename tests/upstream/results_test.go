// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseResult(t *testing.T) {
	for _, tt := range []struct {
		line string
		want result
	}{
		{"  simple-readdir                   passed: 13s", result{"simple-readdir", "passed", "13s"}},
		{"  simple-readdir                 last: 12s  passed: 13s\r", result{"simple-readdir", "passed", "13s"}},
		{"  notify-reader                    [ failed: output differs ]", result{"notify-reader", "failed", "output differs"}},
		{"  xfstests                         [ skipped: no [ -X ] given ]", result{"xfstests", "skipped", "no [ -X ] given"}},
		{"  quota                            [ skipped (permitted): not here ]", result{"quota", "skipped", "not here"}},
		{"  a-name-longer-than-thirty-characters   passed: 0s", result{"a-name-longer-than-thirty-characters", "passed", "0s"}},
		{"  createmany-parallel            something the test says  passed: 7s", result{"createmany-parallel", "passed", "7s"}},
	} {
		if got, ok := parseResult(tt.line); !ok || got != tt.want {
			t.Errorf("parsed %q as %+v, %v", tt.line, got, ok)
		}
	}
	for _, line := range []string{
		"", "[== running tests ==]", "  simple-readdir", "[== all tests run: 1 passed ==]",
		" passed: 3s", "notify-reader output differs",
	} {
		if got, ok := parseResult(line); ok {
			t.Errorf("parsed %q as %+v", line, got)
		}
	}
}

func FuzzParseResult(f *testing.F) {
	f.Add("  simple-readdir                   passed: 13s")
	f.Add("  x  [ failed: y ]")
	f.Fuzz(func(t *testing.T, line string) {
		if r, ok := parseResult(line); ok && (r.name == "" || r.verdict == "") {
			t.Errorf("parsed %q as %+v", line, r)
		}
	})
}

func TestSequence(t *testing.T) {
	got := sequence("# head\none.sh\ntwo.sh\n\nthree.sh\nfour.sh\n", map[string]string{"two": "why"}, regexp.MustCompile("o"))
	if want := []string{"one", "four"}; !slices.Equal(got, want) {
		t.Errorf("sequence %v, not %v", got, want)
	}
}

func TestCompare(t *testing.T) {
	pass, fail, skip := "passed", "failed", "skipped"
	for _, tt := range []struct {
		name               string
		unpatched, patched results
		worse              []string
	}{
		{"equal", results{{"a", pass, "1s"}, {"b", fail, "x"}, {"c", skip, "y"}}, results{{"a", pass, "2s"}, {"b", fail, "x"}, {"c", skip, "y"}}, nil},
		{"better", results{{"a", fail, "x"}}, results{{"a", pass, "1s"}}, nil},
		{"failed", results{{"a", pass, "1s"}}, results{{"a", fail, "x"}}, []string{"a"}},
		{"skipped", results{{"a", pass, "1s"}}, results{{"a", skip, "x"}}, []string{"a"}},
		{"hung", results{{"a", pass, "1s"}, {"b", pass, "1s"}}, results{{"a", "no end", ""}, {"b", "not run", ""}}, []string{"a", "b"}},
		{"new", results{}, results{{"n", pass, "1s"}}, nil},
		{"new and failed", results{}, results{{"n", fail, "x"}}, []string{"n"}},
		{"gone", results{{"a", pass, "1s"}}, results{}, []string{"a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if got := compare(&b, tt.unpatched, tt.patched); !slices.Equal(got, tt.worse) {
				t.Errorf("worse: %v, not %v\n%s", got, tt.worse, b.String())
			}
			if strings.Count(b.String(), "WORSE") != len(tt.worse) {
				t.Errorf("the table does not say which are worse:\n%s", b.String())
			}
		})
	}
}

func TestComplete(t *testing.T) {
	got := results{{"a", "passed", "1s"}}.complete([]string{"a", "b", "c"}, false)
	if want := "1 passed, 1 no end, 1 not run"; got.count() != want {
		t.Errorf("%q, not %q", got.count(), want)
	}
	if names := got.names(noEnd, notRun); !slices.Equal(names, []string{"b", "c"}) {
		t.Errorf("did not end: %v, not b and c", names)
	}
	got = results{{"a", "passed", "1s"}}.complete([]string{"a", "b"}, true)
	if want := "1 passed, 1 not run"; got.count() != want {
		t.Errorf("%q, not %q", got.count(), want)
	}
}

// TestWatcher cuts the suite's output anywhere, as the serial port does.
func TestWatcher(t *testing.T) {
	text := "  one                              passed: 1s\nnoise\n  two   [ failed: x ]\n[== all tests run: 1 passed, 0 skipped ==]\n"
	for n := 1; n < 20; n++ {
		w := &watcher{name: "test"}
		for p := range slices.Chunk([]byte(text), n) {
			if _, err := w.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := fmt.Sprint(w.all, w.ended), fmt.Sprint(results{{"one", "passed", "1s"}, {"two", "failed", "x"}}, true); got != want {
			t.Errorf("in pieces of %d: %s, not %s", n, got, want)
		}
	}
}

// TestIncludes parses the options as run-tests.sh does: by word, then with grep.
func TestIncludes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sequence")
	if err := os.WriteFile(file, []byte("quota.sh\nquota-invalidate-race.sh\nmmap.sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `T_INCLUDE=; while [ "$1" = -I ]; do T_INCLUDE="$T_INCLUDE-e '$2' "; shift 2; done; eval grep "$T_INCLUDE" ` + file
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "OPTIONS='"+includes([]string{"quota", "mmap"})+`'; set -- $OPTIONS; `+script)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "quota.sh\nmmap.sh\n" {
		t.Errorf("chosen: %q, %v", out, err)
	}
}

func TestDifferences(t *testing.T) {
	for _, tt := range []struct {
		name    string
		full    bool
		ran     results
		smaller bool
	}{
		{"one smaller", false, results{{"quota", "passed", "1s"}, {"enospc", "passed", "1s"}}, true},
		{"none smaller", false, results{{"quota", "passed", "1s"}}, false},
		{"full", true, results{{"enospc", "passed", "1s"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			(&suite{full: tt.full}).differences(&b, tt.ran)
			got := b.String()
			for name := range leftOut {
				if !strings.Contains(got, "\n  "+name+": ") {
					t.Errorf("does not say that %s is left out:\n%s", name, got)
				}
			}
			if strings.Contains(got, "\n  enospc\n") != tt.smaller || strings.Contains(got, "sizes.go") != tt.smaller {
				t.Errorf("says which are smaller should be %v:\n%s", tt.smaller, got)
			}
		})
	}
}

// TestMakeOnly checks that make passes on ONLY as it is: $| is a variable of make's.
func TestMakeOnly(t *testing.T) {
	const only = "^mmap$|^quota$"
	for name, cmd := range map[string]*exec.Cmd{
		"argument":    exec.CommandContext(t.Context(), "make", "-n", "-C", "../..", "test-upstream", "VERSION=v1.33", "SCOUTFS_SRC=.", "ONLY="+only),
		"environment": exec.CommandContext(t.Context(), "env", "ONLY="+only, "make", "-n", "-C", "../..", "test-upstream", "VERSION=v1.33", "SCOUTFS_SRC=."),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "-only '"+only+"'") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
