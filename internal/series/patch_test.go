// SPDX-License-Identifier: GPL-2.0-only

package series

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mail is a patch as git format-patch writes it, with a file that it creates.
const mail = `From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Date: Mon, 23 Nov 2026 06:51:29 +0000
Subject: [PATCH] scoutfs: a subject so long that git
 folds it

Why.

Signed-off-by: A <a@example.org>
---
 kmod/src/notify_ioctl.h | 2 ++
 1 file changed, 2 insertions(+)
 create mode 100644 kmod/src/notify_ioctl.h

diff --git a/kmod/src/notify_ioctl.h b/kmod/src/notify_ioctl.h
new file mode 100644
index 0000000000000000000000000000000000000000..0000000000000000000000000000000000000001
--- /dev/null
+++ b/kmod/src/notify_ioctl.h
@@ -0,0 +1,2 @@
+#define NR 25
+
`

func TestParsePatch(t *testing.T) {
	p, err := ParsePatch("0001-x.patch", []byte(mail))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(p.Bytes()); got != mail {
		t.Errorf("it was written as\n%s", got)
	}
	if got, want := p.Subject(), "scoutfs: a subject so long that git folds it"; got != want {
		t.Errorf("subject %q, not %q", got, want)
	}
	if got := p.Message(); got[len(got)-1] != "Signed-off-by: A <a@example.org>" {
		t.Errorf("message %q", got)
	}
	s := &Series{Version: "v1.1", Patches: []*Patch{p}}
	if got, want := s.Header(), "#define NR 25\n\n"; got != want {
		t.Errorf("header %q, not %q", got, want)
	}
}

func TestParsePatchErrors(t *testing.T) {
	diff := mail[strings.Index(mail, "diff --git"):]
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "the last line has no end"},
		{"cut", strings.TrimSuffix(mail, "\n"), "the last line has no end"},
		{"no mail", diff, "no mail"},
		{"no diff", strings.TrimSuffix(mail, diff), "no diff"},
		{"signature", mail + "-- \n2.39.5\n", "line 23: \"-- \" follows a hunk: export with --no-signature"},
		{"line missing", strings.TrimSuffix(mail, "+\n"), "another number of lines"},
		{"line too many", strings.Replace(mail, "1,2 @@", "1 @@", 1), "follows a hunk"},
		{"not a line", strings.Replace(mail, "+#define", "#define", 1), "line 20: \"#define NR 25\" is not a line of a hunk"},
		{"a blank context line cut", strings.Replace(mail, "25\n+\n", "25\n\n", 1), "is not a line of a hunk"},
		{"not a head", strings.Replace(mail, "@@ -0,0", "@@ -x", 1), "is not the head of a hunk"},
		{"another tool's head", strings.Replace(mail, "+1,2", "+01,2", 1), "git does not write"},
		{"huge", strings.Replace(mail, "+1,2", "+1,99999999999999999999", 1), "out of range"},
		{"mode alone", mail[:len(mail)-len(diff)] + "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", "changes no text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParsePatch("0001-x.patch", []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, without %q", err, tt.want)
			}
		})
	}
}

func FuzzParsePatch(f *testing.F) {
	names, err := filepath.Glob("../../patches/*/*.patch")
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
	f.Add([]byte(mail))
	f.Add([]byte("Subject: x\n\ndiff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePatch("fuzz", text)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Bytes(), text) {
			t.Errorf("parsed %q, wrote %q", text, p.Bytes())
		}
		p.Subject()
		p.Message()
		(&Series{Patches: []*Patch{p}}).Added()
	})
}
