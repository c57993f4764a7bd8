// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModuleRelease(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"tag", map[string]string{"notes/.note.git_describe": "tags/v1.30-0-gad6511\n"}, "v1.30"},
		{"notify tag", map[string]string{"notes/.note.git_describe": "tags/v1.30-notify-2-0-gad6511\n"}, "v1.30"},
		{"branch", map[string]string{"notes/.note.git_describe": "heads/main-0-gad6511\n"}, ""},
		{"no git", map[string]string{"notes/.note.git_describe": "no-git\n"}, ""},
		{"version", map[string]string{"version": "1.30\n"}, "v1.30"},
		{"version with v", map[string]string{"version": "v1.30\n"}, "v1.30"},
		{"long version", map[string]string{"version": "1.30.2\n"}, "v1.30"},
		{"garbage", map[string]string{"version": "\x00\xff 30"}, ""},
		{"both", map[string]string{"notes/.note.git_describe": "no-git\n", "version": "1.31"}, "v1.31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := moduleRelease(dir); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			want := "scoutfs-notify-kmod-" + tt.want
			if tt.want == "" {
				want = "scoutfs-notify-kmod-vX.YY"
			}
			if hint := installHint(dir); !strings.Contains(hint, want) {
				t.Errorf("hint %q does not name %s", hint, want)
			}
		})
	}
}
