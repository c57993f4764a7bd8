// SPDX-License-Identifier: GPL-2.0-only

package cli

import "testing"

func TestUnescapePath(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"-", "/"},
		{"mnt-scoutfs", "/mnt/scoutfs"},
		{`mnt-my\x2dfs`, "/mnt/my-fs"},
		{`mnt-\x24\x7bHOME\x7d\x24\x24`, "/mnt/${HOME}$$"},
		{`mnt-a\x20b\x0a\xff\x25i`, "/mnt/a b\n\xff%i"},
		{`\x2emnt`, "/.mnt"},
		{"mnt:_.", "/mnt:_."},
		{`mnt-\x00`, ""}, {`mnt-\x2`, ""}, {`mnt-\`, ""}, {`mnt-\x2g`, ""}, {`mnt-\x+1`, ""}, {`mnt-\n24`, ""},
	} {
		got, err := UnescapePath(tt.name)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}
