// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"strings"
	"testing"
)

func TestConfiguration(t *testing.T) {
	for _, name := range kernels {
		text, err := configuration(name)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			option, value, ok := strings.Cut(line, "=")
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !ok || !strings.HasPrefix(option, "CONFIG_") || value == "" || value == "m" {
				t.Errorf("%s: %q is not an option that is built in or off", name, line)
			}
			if seen[option] {
				t.Errorf("%s: %s twice", name, option)
			}
			seen[option] = true
		}
	}
	if _, err := configuration("nonesuch"); err == nil {
		t.Error("a kernel that does not exist has a configuration")
	}
}

func TestCheckConfig(t *testing.T) {
	const got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=8\n"
	for _, tt := range []struct{ want, missing string }{
		{"# a comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=8\n\n", ""},
		{"CONFIG_D=n\n", ""},
		{"CONFIG_B=y\n", "CONFIG_B"},
		{"CONFIG_A=n\n", "CONFIG_A"},
		{"CONFIG_C=16\n", "CONFIG_C"},
	} {
		err := checkConfig(got, tt.want)
		if (err != nil) != (tt.missing != "") || err != nil && !strings.Contains(err.Error(), tt.missing) {
			t.Errorf("checkConfig(%q): %v", tt.want, err)
		}
	}
}
