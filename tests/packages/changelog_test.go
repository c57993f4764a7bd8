// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

const twoReleases = `* Tue Nov 24 2026 Some Body <some@body.invalid> - 2
- Second: 100% better,
  in two lines.
- And more.

* Mon Nov 23 2026 Any Body <any@body.invalid> - 1
- First.
`

func TestParseChangelog(t *testing.T) {
	got, err := parseChangelog(twoReleases)
	if err != nil {
		t.Fatal(err)
	}
	want := []change{
		{time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), "Some Body <some@body.invalid>", 2,
			[]string{"Second: 100% better, in two lines.", "And more."}},
		{time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), "Any Body <any@body.invalid>", 1, []string{"First."}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	const spec = `* Tue Nov 24 2026 Some Body <some@body.invalid> - 1.30-2
- Second: 100%% better, in two lines.
- And more.

* Mon Nov 23 2026 Any Body <any@body.invalid> - 1.30-1
- First.

`
	if text := rpmChangelog(got, "1.30"); text != spec {
		t.Errorf("rpm's changelog:\n%s\nwant\n%s", text, spec)
	}
}

func TestParseChangelogErrors(t *testing.T) {
	for name, text := range map[string]string{
		"no entry":               "",
		"not an entry, note":     "- a note without an entry\n",
		"is a Monday":            "* Tue Nov 23 2026 x <x@y> - 1\n- y\n",
		"NAME <ADDRESS> - ":      "* Mon Nov 23 2026 x <x@y> - one\n- y\n",
		"x - 1\" must end in":    "* Mon Nov 23 2026 x - 1\n- y\n",
		"<x> - 1\" must end in":  "* Mon Nov 23 2026 x <x> - 1\n- y\n",
		"too short":              "* Mon\n- y\n",
		"out of range":           "* Mon Nov 77 2026 x - 1\n- y\n",
		"is not older than 1":    "* Mon Nov 23 2026 x <x@y> - 1\n- y\n* Mon Nov 23 2026 x <x@y> - 1\n- y\n",
		"release 2 has no notes": "* Mon Nov 23 2026 x <x@y> - 2\n* Mon Nov 23 2026 x <x@y> - 1\n- y\n",
	} {
		if _, err := parseChangelog(text); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: error %v lacks %q", text, err, name)
		}
	}
}

// The project's own changelog parses.
func TestChangelogOfProject(t *testing.T) {
	text, err := os.ReadFile("../../packaging/changelog")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseChangelog(string(text)); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseChangelog(f *testing.F) {
	f.Add(twoReleases)
	f.Add("* Mon Nov 23 2026 x <x@y> - 1\n- y\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseChangelog(text)
		if err != nil {
			return
		}
		// What parsed is written in a form that parses to the same. A spec doubles
		// percent signs.
		again := strings.ReplaceAll(rpmChangelog(all, "1.30"), "%%", "%")
		again = strings.ReplaceAll(again, " - 1.30-", " - ")
		got, err := parseChangelog(again)
		if err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		for i := range got {
			if !got[i].date.Equal(all[i].date) || got[i].release != all[i].release {
				t.Errorf("entry %d: %+v became %+v", i, all[i], got[i])
			}
		}
	})
}
