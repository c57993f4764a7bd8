// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"slices"
	"strings"
	"testing"
)

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
		{"a copy without the hook", open, hook(aioRead+readIter) + readIter, guard, []string{"calls the read hook 0 times"}},
		{"both copies, guard still there", open, hook(aioRead + iomapCopy), guard, []string{"has an #error"}},
		{"both copies", open, hook(aioRead + iomapCopy), "", nil},
		{"splice past the hook", strings.Replace(open, "generic_file_splice_read", "filemap_splice_read", 1), hook(aioRead + readIter), guard,
			[]string{"may read past the hook"}},
		{"defined elsewhere", open, hook(readIter), guard, []string{"no definition"}},
		{"splice past the hook on some kernels", strings.Replace(open, "\t.splice_read", "#ifdef X\n\t.splice_read\t= filemap_splice_read,\n#else\n\t.splice_read", 1),
			hook(aioRead + readIter), guard, []string{"filemap_splice_read, which may read past the hook"}},
		{"splice through the hook", strings.Replace(open, "generic_file_splice_read", "copy_splice_read", 1), hook(aioRead + readIter), guard, nil},
		{"EL7 without a hook", open, aioRead + hook(readIter), guard, []string{"scoutfs_file_aio_read calls the read hook 0 times"}},
		{"EL7 refused", open, aioRead + hook(readIter), guard + "\n#ifdef KC_LINUX_HAVE_FOP_AIO_READ\n/* why */\n#error \"EL7\"\n#endif\n", nil},
		{"EL7 named but not refused", open, aioRead + hook(readIter), guard + "#ifdef KC_LINUX_HAVE_FOP_AIO_READ\n#define X\n#endif\n",
			[]string{"scoutfs_file_aio_read calls the read hook 0 times"}},
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
