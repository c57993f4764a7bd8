// SPDX-License-Identifier: GPL-2.0-only

package plant

import (
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// Every bug has its place in the newest series, so that it can be planted.
func TestBugs(t *testing.T) {
	s, err := repo.Newest()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range Bugs {
		planted := 0
		for path, text := range s.Added() {
			if !strings.HasPrefix(path, "kmod/src/notify") {
				continue
			}
			got, err := Apply(b.Name, path, text)
			if err != nil {
				t.Error(err)
			} else if got != text {
				planted++
			}
		}
		if planted != 1 {
			t.Errorf("%s changes %d files, not one", b.Name, planted)
		}
	}
	if _, err := Apply("nonesuch", "notify.c", ""); err == nil {
		t.Error("a bug that does not exist was planted")
	}
	if text, err := Apply("", "notify.c", "x"); text != "x" || err != nil {
		t.Errorf("no bug changed the text to %q: %v", text, err)
	}
}
