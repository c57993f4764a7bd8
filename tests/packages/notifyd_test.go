// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The packages have the licences of all that the programs are made of.
func TestLinkedLicences(t *testing.T) {
	p, err := openProject("../..", func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.linkedLicences(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for path := range linkedFrom {
		if !strings.Contains("\n"+string(text), "\n"+path) {
			t.Errorf("no program contains %s", path)
		}
	}
	config, err := os.ReadFile(filepath.Join(p.root, "packaging", "nfpm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?m)^license: (.*)$`).FindStringSubmatch(string(config))
	sum := slices.Compact(slices.Sorted(maps.Values(linkedFrom)))
	if want := "GPL-2.0-only AND " + strings.Join(sum, " AND "); len(got) != 2 || got[1] != want {
		t.Errorf("packaging/nfpm.yaml has %q, want %q", got, want)
	}
}
