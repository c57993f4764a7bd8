// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// What is offered for the last of some arguments. That shells make of it what they should is
// seen by tests/completion.
func TestCompletion(t *testing.T) {
	newFlags := func() *flag.FlagSet {
		flags := flag.NewFlagSet("try", flag.ContinueOnError)
		by, n := "inode", 0
		flags.Bool("json", false, "print `JSON`")
		flags.Var(Choice(&by, "inode", "user"), "by", "add up by `key`")
		flags.Var(Int(&n, 0, 9), "n", "at most `count`")
		flags.String("o", "", "write to `file`")
		flags.String("under", "", "below `folder`")
		flags.String("user", "", "of `users`")
		return flags
	}
	const about = "KIND is one of\n\n  heatmap  when\n  who      by whom\n"
	names := []string{"-by", "-json", "-n", "-o", "-under", "-user"}
	for _, tt := range []struct {
		operands string
		args     []string
		also     string
		words    []string
	}{
		{"[MOUNT]", []string{""}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"[MOUNT]", []string{"/mnt/a", "x"}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"[MOUNT]", []string{"-"}, "", names},
		{"[MOUNT]", []string{"/mnt/a", "-"}, "", names},
		{"[MOUNT]", []string{"--j"}, "", []string{"--by", "--json", "--n", "--o", "--under", "--user"}},
		{"[MOUNT]", []string{"-by", "i"}, "", []string{"inode", "user"}},
		{"[MOUNT]", []string{"-by=i"}, "", []string{"inode", "user"}},
		{"[MOUNT]", []string{"-by", "user", ""}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"[MOUNT]", []string{"-by=user", "-"}, "", names},
		{"[MOUNT]", []string{"-json", ""}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"[MOUNT]", []string{"-n", ""}, "", nil},
		{"[MOUNT]", []string{"-n", "-"}, "", nil},
		{"[MOUNT]", []string{"-o", ""}, "files", nil},
		{"[MOUNT]", []string{"-under", ""}, "directories", nil},
		{"[MOUNT]", []string{"-user="}, "users", nil},
		{"[MOUNT]", []string{"--", "-"}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"[MOUNT]", []string{"-unknown", ""}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"KIND [MOUNT]", []string{""}, "", []string{"heatmap", "who"}},
		{"KIND [MOUNT]", []string{"who", ""}, "files", []string{"/mnt/a", "/mnt/\x01\n"}},
		{"FILE [MOUNT]", []string{"-json", ""}, "files", nil},
		{"", []string{""}, "", nil},
		{"STORE...", []string{"a", "b", ""}, "files", nil},
	} {
		var out strings.Builder
		c := Completion{W: &out, Mounts: func() []string { return []string{"/mnt/a", "/mnt/\x01\n"} }}
		if err := c.Arguments(newFlags(), tt.operands, about, tt.args); err != nil {
			t.Fatal(err)
		}
		answer := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
		var words []string
		for i := 1; i < len(answer); i += 2 {
			words = append(words, answer[i])
			if i+1 == len(answer) || Printable(answer[i+1]) != answer[i+1] {
				t.Errorf("%s %q: how to list %q is missing, or not printable", tt.operands, tt.args, answer[i])
			}
		}
		if answer[0] != tt.also || !slices.Equal(words, tt.words) {
			t.Errorf("%s %q: got %q and %q, want %q and %q", tt.operands, tt.args, words, answer[0], tt.words, tt.also)
		}
	}
}

// What bash splits at "=" is one word.
func TestCompletionWords(t *testing.T) {
	for _, tt := range []struct{ args, want []string }{
		{[]string{"top", "-by", "=", "u"}, []string{"top", "-by=u"}},
		{[]string{"top", "-by", "="}, []string{"top", "-by="}},
		{[]string{"top", "-by=u", "x"}, []string{"top", "-by=u", "x"}},
		{[]string{"follow", "-exclude", "uid", "=", "993", "/mnt"}, []string{"follow", "-exclude", "uid=993", "/mnt"}},
		{[]string{"tail", "a", "=", "b"}, []string{"tail", "a=b"}},
		{[]string{"="}, []string{"="}},
		{[]string{"", "="}, []string{"="}},
		{nil, nil},
	} {
		c := Completion{}
		if got := c.Words(tt.args); !slices.Equal(got, tt.want) {
			t.Errorf("%q becomes %q, want %q", tt.args, got, tt.want)
		}
	}
}
