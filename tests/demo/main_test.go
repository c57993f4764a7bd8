// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"strings"
	"testing"
)

// The recording that the machine prints is kept and not shown, however the output is cut up.
func TestWatch(t *testing.T) {
	want := bytes.Repeat([]byte("recording \x00\n\xff"), 100)
	text := "a\n" + recordingMark + base64.StdEncoding.EncodeToString(want[:300]) + "\r\n" +
		recordingMark + base64.StdEncoding.EncodeToString(want[300:]) + "\nb\n"
	for _, size := range []int{1, 7, len(text)} {
		var shown strings.Builder
		w := &watch{w: &shown}
		for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write([]byte(rest[:min(size, len(rest))])); err != nil {
				t.Fatal(err)
			}
		}
		if shown.String() != "a\nb\n" || !bytes.Equal(w.recording, want) || w.done {
			t.Errorf("in parts of %d: it shows %q, keeps %q, done: %v", size, &shown, w.recording, w.done)
		}
		if _, err := w.Write([]byte("  " + lastLine + "\n")); err != nil || !w.done {
			t.Errorf("the last line: %v, done: %v", err, w.done)
		}
	}
	if _, err := (&watch{w: &strings.Builder{}}).Write([]byte(recordingMark + "*\n")); err == nil {
		t.Error("a recording that is damaged is no error")
	}
}

// The README says what to do with the recording as the demo does.
func TestAfterwards(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	for line := range strings.Lines(afterwards) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "bin/") && !strings.Contains(readme, "\n"+line+"\n") {
			t.Errorf("README.md lacks %q", line)
		}
	}
}
