// SPDX-License-Identifier: GPL-2.0-only

package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each line of the table of what is recorded, in scoutfs-notify(5), names the test of
// tests/guest that makes such an access; and each row of TestRecords has its line.
func TestRecordTable(t *testing.T) {
	page := section(t, read(t, "packaging/man/scoutfs-notify.5"), "DESCRIPTION")
	_, table, _ := strings.Cut(page, "\n.Ss What is recorded\n")
	table, _, _ = strings.Cut(table, "\n.El\n")

	files, err := filepath.Glob(filepath.Join(root(t), "tests/guest/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, f := range files {
		test := ""
		for line := range strings.Lines(read(t, "tests/guest", filepath.Base(f))) {
			if m := regexp.MustCompile(`^func (Test\w+)\(t \*testing\.T\)`).FindStringSubmatch(line); m != nil {
				test = m[1]
				tests[test] = true
			} else if m := regexp.MustCompile(`^\t+\{"([^"]+)", func`).FindStringSubmatch(line); m != nil {
				tests[test+"/"+m[1]] = true
			}
		}
	}
	rows := submatches(`(?m)^\t\{name: "([^"]+)", .*do:`, read(t, "tests/guest/records_test.go"))
	if len(rows) == 0 {
		t.Fatal("tests/guest/records_test.go has no rows")
	}
	for _, row := range rows {
		tests["TestRecords/"+row] = true
	}

	named := map[string]bool{}
	var test string
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, `.\" `); ok {
			test = name
			continue
		}
		if access, ok := strings.CutPrefix(line, ".It "); ok && !strings.HasPrefix(access, "Sy ") {
			if !tests[test] {
				t.Errorf("%q: the comment above names the test %q, which tests/guest does not have", access, test)
			}
			named[test] = true
			test = ""
		}
	}
	for _, row := range rows {
		if !named["TestRecords/"+row] {
			t.Errorf("scoutfs-notify(5) has no line for TestRecords/%s", row)
		}
	}
}
