// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"reflect"
	"strings"
	"testing"
)

func TestAptSources(t *testing.T) {
	tests := []struct {
		name  string
		parse func(string) ([]aptSource, error)
		text  string
		want  string // format of what forSuite makes of it for "bullseye"
	}{
		{
			"deb822", parseDeb822,
			"Types: deb deb-src\n# a comment\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n" +
				"Components: main contrib\nSigned-By: /k.gpg\n\n" +
				"Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n",
			"architectures: amd64\ncomponents: main\nsigned-by: /k.gpg\nsuites: bullseye\ntypes: deb\nuris: http://mirror.test/debian\n\n",
		},
		{
			"deb822 with a key in it", parseDeb822,
			"Types: deb\nURIs: http://mirror.test/debian\nSuites: stable\nComponents: main\nSigned-By:\n -----BEGIN\n .\n KEY\n",
			"architectures: amd64\ncomponents: main\nsigned-by: \n -----BEGIN\n .\n KEY\nsuites: bullseye\ntypes: deb\nuris: http://mirror.test/debian\n\n",
		},
		{
			"deb822 disabled", parseDeb822,
			"Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n", "",
		},
		{
			"one line", parseOneLine,
			"# comment\ndeb [arch=amd64,arm64 signed-by=/k.gpg] http://mirror.test/debian bookworm main # note\n" +
				"deb-src http://mirror.test/debian bookworm main\ndeb http://vendor.test/apt stable-x main\n",
			"architectures: amd64\ncomponents: main\nsigned-by: /k.gpg\nsuites: bullseye\ntypes: deb\nuris: http://mirror.test/debian\n\n",
		},
		{"source only", parseOneLine, "deb-src http://mirror.test/debian bookworm main\n", ""},
		{"no main", parseOneLine, "deb http://mirror.test/debian bookworm contrib\n", ""},
		{"another distribution", parseOneLine, "deb http://mirror.test/ubuntu noble main\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := tt.parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := format(forSuite(all, "bullseye")); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestAptSourcesBad(t *testing.T) {
	for _, text := range []string{" leading\n", "no colon\n", ": no name\n"} {
		if _, err := parseDeb822(text); err == nil {
			t.Errorf("deb822 %q: no error", text)
		}
	}
	for _, text := range []string{"rpm http://x y z\n", "deb\n", "deb [signed-by] http://x y z\n"} {
		if _, err := parseOneLine(text); err == nil {
			t.Errorf("one line %q: no error", text)
		}
	}
}

// FuzzDeb822 checks that what is written reads back.
func FuzzDeb822(f *testing.F) {
	f.Add("Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n")
	f.Add("a: b\n c\n\nd: e\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseDeb822(text)
		if err != nil {
			return
		}
		again, err := parseDeb822(format(all))
		if err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 && !reflect.DeepEqual(all, again) {
			t.Errorf("%q became %q", all, again)
		}
	})
}

func FuzzOneLine(f *testing.F) {
	f.Add("deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main # note\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseOneLine(text)
		if err != nil {
			return
		}
		for _, s := range all {
			for field, value := range s {
				if strings.Contains(value, "\n") || strings.Contains(field, "\n") {
					t.Errorf("%q holds a line feed: %q: %q", text, field, value)
				}
			}
		}
	})
}
