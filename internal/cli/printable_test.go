// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"/mnt/my files", "/mnt/my files"},
		{"/mnt/Größe/文件", "/mnt/Größe/文件"},
		{"a\x1b[31mb", `a\x1b[31mb`},
		{"a\nb\tc\x7f", `a\x0ab\x09c\x7f`},
		{"a\u009bb", `a\xc2\x9bb`},             // C1
		{"a\u202eb", `a\xe2\x80\xaeb`},         // right-to-left override
		{"a\u200bb", `a\xe2\x80\x8bb`},         // takes no room
		{"a\xffb\xc3", `a\xffb\xc3`},           // not UTF-8
		{"a\ufffdb", "a\ufffdb"},               // a real replacement character
		{"\xed\xa0\x80", `\xed\xa0\x80`},       // half of a surrogate pair
		{"nbsp\u00a0here", `nbsp\xc2\xa0here`}, // looks like another
	} {
		if got := Printable(tt.text); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[31mb\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := Printable(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q became %q, which is not UTF-8", text, got)
		}
		if again := Printable(got); again != got {
			t.Errorf("%q became %q and then %q", text, got, again)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
