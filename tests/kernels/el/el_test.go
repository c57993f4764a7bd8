// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestNewest(t *testing.T) {
	const list = `4.18.0-553.8.1.el8_10
4.18.0-553.66.1.el8_10
4.18.0-477.27.2.el8_8
5.14.0-427.42.1.el9_4
5.14.0-570.32.1.el9_6
5.14.0-570.9.1.el9_6
5.14.0-70.13.1.el9_0
6.12.0-55.24.1.el10_0
5.14.0-570.32.1.el9_6.tampered
v5.14
`
	for _, tt := range []struct{ el, want string }{
		{"8", "4.18.0-553.66.1.el8_10"},
		{"9", "5.14.0-570.32.1.el9_6"},
		{"9.4", "5.14.0-427.42.1.el9_4"},
		{"10", "6.12.0-55.24.1.el10_0"},
		{"10.0", "6.12.0-55.24.1.el10_0"},
		{"7", ""},
		{"9.5", ""},
		{"", ""},
	} {
		got, err := newest(list, tt.el)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("EL%s: %q, %v", tt.el, got, err)
		}
	}
}

func TestConfigName(t *testing.T) {
	for _, tt := range []struct{ files, want string }{
		{"almalinux/kernel-x86_64-debug.config almalinux/kernel-x86_64.config", "almalinux/kernel-x86_64.config"},
		{"almalinux/kernel-x86_64-rt-rhel.config almalinux/kernel-x86_64-rhel.config almalinux/kernel-s390x-rhel.config", "almalinux/kernel-x86_64-rhel.config"},
		{"arch/x86/configs/kernel-x86_64.config Makefile", ""},
	} {
		if got := configName(strings.Fields(tt.files)); got != tt.want {
			t.Errorf("of %s: %q", tt.files, got)
		}
	}
}

func TestWanted(t *testing.T) {
	for path, want := range map[string]bool{
		"Makefile": true, "arch/Kconfig": true, "arch/x86/kernel/cpu/amd.c": true, "arch/arm/kernel/x.c": false, "arch/arm/Kconfig.debug": true,
		"Documentation/x.rst": false, "Documentation/Kconfig": true, "drivers/gpu/drm/x.h": false, "drivers/gpu/Makefile": true,
		"drivers/gpu/drm/tiny/Makefile": true, "arch/arm/Makefile": true,
	} {
		if got := wanted(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestCut(t *testing.T) {
	layout := map[string]bool{}
	structOptions(`/*
 * struct a {
 * #ifdef CONFIG_IN_A_COMMENT
 */
#ifdef CONFIG_AROUND
struct a {
	int x;
#if IS_ENABLED(CONFIG_FIELD) || defined(CONFIG_OTHER_MODULE)
	int y;
#endif
};
#endif
static inline int f(void)
{
#ifdef CONFIG_IN_A_FUNCTION
	return 1;
#endif
}
struct b {
	struct {
		int z;
#ifdef CONFIG_INNER
		int w;
#endif
	};
};
struct c f(struct b *b);
`, layout)
	for option, want := range map[string]bool{"FIELD": true, "OTHER": true, "INNER": true, "AROUND": false, "IN_A_COMMENT": false, "IN_A_FUNCTION": false} {
		if layout[option] != want {
			t.Errorf("%s: %v", option, layout[option])
		}
	}

	drivers := map[string]bool{"SOUND": true, "FIELD": true, "VIRTIO_BLK": true}
	got := cut("# a comment\nCONFIG_SOUND=y\nCONFIG_FIELD=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_XFS_FS=m\nCONFIG_OTHER=m\nCONFIG_CORE=y\nCONFIG_HZ=1000\n", needed, layout, drivers)
	want := "# a comment\n# CONFIG_SOUND is not set\nCONFIG_FIELD=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_XFS_FS is not set\nCONFIG_OTHER=m\nCONFIG_CORE=y\nCONFIG_HZ=1000\n" + changed
	if got != want {
		t.Errorf("cut to\n%s", got)
	}

	lost := dropped("CONFIG_FIELD=y\nCONFIG_OTHER=m\nCONFIG_INNER=y\nCONFIG_CORE=y\n", "CONFIG_OTHER=y\n# CONFIG_INNER is not set\n", layout, drivers)
	if !slices.Equal(lost, []string{"INNER"}) {
		t.Errorf("dropped %v", lost)
	}
}

// A repository without the content of one file, as a mirror's may be, and with all kinds
// of files.
func TestExtract(t *testing.T) {
	repo := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", repo, "-c", "user.name=A", "-c", "user.email=a@example.org"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	for name, text := range map[string]string{"Makefile": "VERSION = 5\nEXTRAVERSION =\n", "large": "lost", "a b/empty": "", "scripts/run": "#!/bin/sh\n", "Documentation/x": "x"} {
		name = filepath.Join(repo, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(repo, "scripts/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("scripts/run", filepath.Join(repo, "link")); err != nil {
		t.Fatal(err)
	}
	git("add", "-A")
	git("commit", "-q", "-m", "x")
	const tag = "5.14.0-1.el9_9"
	git("tag", tag)
	id := git("rev-parse", "HEAD:large")
	if err := os.Remove(filepath.Join(repo, ".git/objects", id[:2], id[2:])); err != nil {
		t.Fatal(err)
	}

	files, err := list(t.Context(), repo, tag)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	var missing []string
	if err := extract(t.Context(), repo, out, files, func(path string) { missing = append(missing, path) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(missing, []string{"large"}) {
		t.Errorf("missing %v", missing)
	}
	if st, err := os.Stat(filepath.Join(out, "scripts/run")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the program: %v %v", st, err)
	}
	if target, err := os.Readlink(filepath.Join(out, "link")); err != nil || target != "scripts/run" {
		t.Errorf("the link goes to %q, %v", target, err)
	}
	if text, err := os.ReadFile(filepath.Join(out, "a b/empty")); err != nil || len(text) != 0 {
		t.Errorf("the empty file holds %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(out, "Documentation")); err == nil {
		t.Error("the documentation is there")
	}
	if err := adjust(out, tag); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "Makefile"))
	if err != nil || !strings.Contains(string(text), "\nEXTRAVERSION = -1.el9_9.x86_64\n") {
		t.Errorf("the Makefile is\n%s", text)
	}

	for name, answer := range map[string]string{"cut": files[0].id + " blob 100\nx", "another": "0 blob 1\nx\n", "none": ""} {
		if err := unpack(bufio.NewReader(strings.NewReader(answer)), t.TempDir(), files[:1], func(string) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := list(t.Context(), repo, "nonesuch"); err == nil {
		t.Error("a tag that is not there has files")
	}
}

// What newer compilers need is added to the kernels that lack it, and to no others.
func TestAdjust(t *testing.T) {
	for tag, want := range map[string]bool{"4.18.0-553.66.1.el8_10": true, "5.14.0-570.32.1.el9_6": false} {
		tree := t.TempDir()
		name := filepath.Join(tree, "arch/x86/kernel/Makefile")
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{name, filepath.Join(tree, "Makefile")} {
			if err := os.WriteFile(file, []byte("EXTRAVERSION =\nifdef CONFIG_STACK_VALIDATION\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := adjust(tree, tag); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if got := strings.Contains(string(text), "CFLAGS_smpboot.o"); err != nil || got != want {
			t.Errorf("%s: %v, error %v", tag, got, err)
		}
		text, err = os.ReadFile(filepath.Join(tree, "Makefile"))
		if got := strings.Contains(string(text), "\nexport SKIP_STACK_VALIDATION := 1\n"); err != nil || got != want {
			t.Errorf("%s: %s, error %v", tag, text, err)
		}
		if got := slices.Contains(neededBy(tag), "SYNC_FILE"); got != want {
			t.Errorf("%s: needed %v", tag, neededBy(tag))
		}
	}
	if err := adjust(t.TempDir(), "4.18.0-553.66.1.el8_10"); err == nil {
		t.Error("a tree without a Makefile: no error")
	}
}

func TestPrintTable(t *testing.T) {
	cells := func(all ...cell) []cell {
		return append(all, cell{"ok, 1 of 2 tests skipped", []string{"TestX: needs y"}, false}, skipped("why"), skipped("packages"))
	}
	good := []row{
		{"4.18.0-553.66.1.el8_10.x86_64", "v1.28", cells(ok, ok)},
		{"5.14.0-570.32.1.el9_6.x86_64", "main", cells(ok, skipped("registers"))},
	}
	var out strings.Builder
	if err := printTable(&out, good); err != nil {
		t.Error(err)
	}
	const want = `kernel                         release  compiles  hooks    boots                     systemd  DKMS
4.18.0-553.66.1.el8_10.x86_64  v1.28    ok        ok       ok, 1 of 2 tests skipped  skipped  skipped
5.14.0-570.32.1.el9_6.x86_64   main     ok        skipped  ok, 1 of 2 tests skipped  skipped  skipped
boots skipped: TestX: needs y
systemd skipped: why
DKMS skipped: packages
hooks skipped: registers
`
	if out.String() != want {
		t.Errorf("printed\n%s\nnot\n%s", &out, want)
	}
	out.Reset()
	err := printTable(&out, append(good, row{"k", "v1.33", cells(failed("no", "x.c:1: error: y"), ok)}))
	if err == nil || !strings.HasSuffix(out.String(), "\ncompiles of v1.33 on k: no: x.c:1: error: y\n") {
		t.Errorf("error %v after\n%s", err, &out)
	}
}

func TestChecks(t *testing.T) {
	for _, tt := range []struct {
		o    options
		want int // checks named; -1: an error
	}{
		{options{}, 0},
		{options{only: "compiles,hooks"}, 2},
		{options{only: "nonesuch"}, -1},
		{options{only: "boots"}, -1},
		{options{only: "boots", boot: true}, 1},
	} {
		got, err := tt.o.checks()
		if (err != nil) != (tt.want < 0) || err == nil && len(got) != tt.want {
			t.Errorf("%+v: %v, %v", tt.o, got, err)
		}
	}
}

// The outcome of a check follows from what "go test -json" prints and how it ends.
func TestReadTests(t *testing.T) {
	event := func(action, test string) string {
		return `{"Time":"2026-11-28T09:00:00Z","Action":"` + action + `","Package":"p","Test":"` + test + `","Elapsed":1}` + "\n"
	}
	skip := func(test, why string) string {
		return `{"Action":"output","Package":"p","Test":"` + test + `","Output":"    run.go:292: \n        x_test.go:7: ` + why + `\n    y_test.go:8: cleaned up\n"}` + "\n" + event("skip", test)
	}
	for name, tt := range map[string]struct {
		out    string
		err    error
		passed int
		want   cell
	}{
		"good":      {event("pass", "T/v/A") + event("pass", "T/v") + event("pass", "T"), nil, 1, ok},
		"some":      {event("pass", "T/v/A") + skip("T/v/B", "needs root") + event("pass", "T/v") + event("pass", "T"), nil, 1, cell{"ok, 1 of 2 tests skipped", []string{"B: needs root"}, false}},
		"failed":    {event("pass", "T/v/A") + event("fail", "T/v/B") + event("fail", "T/v") + event("fail", "T"), errors.New("exit status 1"), 1, failed("FAIL", "T/v/B")},
		"alone":     {event("pass", "T/v/A") + event("fail", "T/v") + event("fail", "T"), errors.New("exit status 1"), 1, failed("FAIL", "T/v")},
		"no end":    {event("run", "T") + event("pass", "T/v/A"), errors.New("killed"), 1, failed("FAIL", "killed")},
		"none":      {"", nil, 0, failed("FAIL", "no test ran")},
		"skipped":   {skip("T", "skipped: needs root"), nil, 0, skipped("T: needs root")},
		"silent":    {event("skip", "T"), nil, 0, skipped("T: it does not say why")},
		"no events": {"# p\nsyntax error\n", errors.New("exit status 1"), 0, failed("FAIL", "exit status 1")},
	} {
		r, err := readTests(strings.NewReader(tt.out), func(*results, string) {})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := r.cell("v", tt.err); !reflect.DeepEqual(got, tt.want) || r.passed != tt.passed {
			t.Errorf("%s: %+v with %d passed", name, got, r.passed)
		}
	}
}

// What cannot be meant is refused before anything is built.
func TestOptions(t *testing.T) {
	for _, o := range []options{
		{els: []string{"9"}},
		{src: "x", els: []string{"9"}, compile: true, boot: true},
		{src: "x", els: []string{"9"}, compile: true, prepare: true},
		{src: "x", els: []string{"9"}, only: "boots"},
		{src: "x", els: []string{"9"}, only: "boots", prepare: true},
		{src: "x", els: []string{"9"}, tag: "5.14.0-570.32.1.el9_6"},
		{src: "x"},
	} {
		if err := o.run(t.Context()); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
