// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var indexLineIn = regexp.MustCompile(`index ([0-9a-f]{7})[0-9a-f]{33}\.\.([0-9a-f]{7})[0-9a-f]{33} 100644`)

const projectPatches = "../../patches"

// The project's own series have the right form; what needs the source is make
// test-scoutfs's.
func TestProjectSeries(t *testing.T) {
	list, err := versions(projectPatches)
	if err != nil {
		t.Fatal(err)
	}
	var header string
	for _, v := range list {
		s, err := readSeries(projectPatches, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.form() {
			t.Errorf("%s: %s", v, p)
		}
		if header == "" {
			header = s.header()
		} else if s.header() != header {
			t.Errorf("%s: %s differs from that of %s", v, headerPath, list[0])
		}
		// Only whole hunks were left out anywhere.
		first, err := readSeries(projectPatches, list[0])
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range s.patches {
			if i < len(first.patches) && !slices.Equal(p.message(), first.patches[i].message()) {
				t.Errorf("%s: %s has another message than in %s", v, p.name, list[0])
			}
		}
	}
}

func TestCompareVersions(t *testing.T) {
	list := []string{"v1.30", "v2.0", "v1.9", "v1.28"}
	slices.SortFunc(list, compareVersions)
	if want := []string{"v1.9", "v1.28", "v1.30", "v2.0"}; !slices.Equal(list, want) {
		t.Errorf("sorted %v, not %v", list, want)
	}
}

func FuzzParsePatch(f *testing.F) {
	names, err := filepath.Glob(filepath.Join(projectPatches, "*", "*.patch"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no patches to start from: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 8<<10 {
			f.Add(text)
		}
	}
	f.Add([]byte("Subject: x\n\ndiff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePatch("fuzz", text)
		if err != nil {
			return
		}
		if !bytes.Equal(p.bytes(), text) {
			t.Errorf("parsed %q, wrote %q", text, p.bytes())
		}
		p.subject()
		p.message()
		(&series{"v1.1", []*patch{p}}).form()
	})
}

func TestSections(t *testing.T) {
	const text = `#include <x.h>
int plain(int a)
{
	return 0;
}
static ssize_t
split_name(struct a *b,
	   int c)
{
out:
	return 1;
}
int declared(int a);
struct tag {
	int x;
};
static const struct ops table[] = {
	.open = plain,
};
#ifdef X
int twice(int a)
#else
int twice(long a)
#endif
{
}
int last(void)
{
`
	var got []string
	lines := strings.Split(text, "\n")
	for _, s := range sections(lines) {
		got = append(got, s.name)
		if s.first > s.last || s.last >= len(lines) {
			t.Errorf("%s spans %d to %d of %d lines", s.name, s.first, s.last, len(lines))
		}
	}
	if want := []string{"plain", "split_name", "table", "twice", "last"}; !slices.Equal(got, want) {
		t.Errorf("sections %v, not %v", got, want)
	}
}

func FuzzSections(f *testing.F) {
	f.Add(dataC)
	f.Add(fileH + iomapCopy + tailC)
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		for _, s := range sections(lines) {
			if s.first < 0 || s.first > s.last || s.last >= len(lines) {
				t.Errorf("%s spans %d to %d of %d lines", s.name, s.first, s.last, len(lines))
			}
		}
		checkHooks(map[string]string{"kmod/src/file.c": text})
	})
}

func TestCheckHooks(t *testing.T) {
	hook := func(s string) string {
		return strings.ReplaceAll(s, "\treturn ret;\n", "\tscoutfs_notify_read(iocb, ret);\n\treturn ret;\n")
	}
	open := strings.Replace(dataC, "\t.fsync", "\t.open\t\t= scoutfs_notify_open,\n\t.fsync", 1)
	guard := "#ifdef KC_USE_IOMAP_FOR_IO\n#error\n#endif\n"
	for _, tt := range []struct {
		name, data, file, notify string
		want                     []string // a part of each problem
	}{
		{"good", open, hook(aioRead + readIter), guard, nil},
		{"one of two entry points", open, hook(aioRead) + readIter, guard, []string{"scoutfs_file_read_iter calls the read hook 0 times"}},
		{"twice in one", open, strings.Replace(hook(aioRead+readIter), "\tstand_in_unlock", "\tscoutfs_notify_read(iocb, ret);\n\tstand_in_unlock", 1), guard,
			[]string{"calls the read hook 2 times"}},
		{"no open", dataC, hook(aioRead + readIter), guard, []string{"no .open = scoutfs_notify_open"}},
		{"a copy without", open, hook(aioRead+readIter) + readIter, guard, []string{"calls the read hook 0 times"}},
		{"both copies, guard still there", open, hook(aioRead + iomapCopy), guard, []string{"has an #error"}},
		{"both copies", open, hook(aioRead + iomapCopy), "", nil},
		{"splice past the hook", strings.Replace(open, "generic_file_splice_read", "filemap_splice_read", 1), hook(aioRead + readIter), guard,
			[]string{"may read past the hook"}},
		{"defined elsewhere", open, hook(readIter), guard, []string{"no definition"}},
		{"nothing", "", "", guard, []string{"no file operations"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := checkHooks(map[string]string{"kmod/src/data.c": tt.data, "kmod/src/file.c": tt.file, "kmod/src/notify.c": tt.notify})
			if len(got) != len(tt.want) {
				t.Fatalf("problems %q", got)
			}
			for i := range got {
				contains(t, got[i], tt.want[i])
			}
		})
	}
}
