// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gotest.tools/gotestsum/testjson"
)

func TestRecord(t *testing.T) {
	line := func(action, test string) string {
		return `{"Action":"` + action + `","Test":"` + test + `"}` + "\n"
	}
	for _, tt := range []struct {
		name string
		pkg  string
		out  string
		err  error
		want map[string]string
	}{
		{"good", "./boot", line("pass", "TestScoutFS/v1.30/TestOpen") + line("skip", "TestScoutFS/v1.30/TestNFS") +
			line("pass", "TestScoutFS/v1.30") + line("pass", "TestScoutFS"), nil,
			map[string]string{"TestOpen": "ok", "TestNFS": "skipped"}},
		{"a failure in the machine", "./boot", line("fail", "TestScoutFS/v1.30/TestOpen/deeper") + line("fail", "TestScoutFS/v1.30/TestOpen") +
			line("fail", "TestScoutFS/v1.30") + line("fail", ""), errors.New("exit status 1"),
			map[string]string{"TestOpen": "FAIL", "boot": "FAIL"}},
		{"one check", "./hotpath", line("pass", "TestScoutFS/v1.30"), nil, map[string]string{"hotpath": "ok"}},
		{"none ran", "./boot", "", nil, map[string]string{"boot": "FAIL"}},
		{"no build", "./boot", `{"Action":"build-output","Output":"x.go:1: no\n"}` + "\n" + line("fail", ""), errors.New("exit status 1"),
			map[string]string{"boot": "FAIL"}},
		{"another version", "./hotpath", line("pass", "TestScoutFS/v1.3"), nil, map[string]string{"hotpath": "FAIL"}},
		{"killed after a test", "./boot", line("pass", "TestScoutFS/v1.30/TestOpen"), errors.New("signal: killed"),
			map[string]string{"TestOpen": "ok", "boot": "FAIL"}},
		{"no test to blame", "./hotpath", line("pass", "TestScoutFS/v1.30") + line("fail", ""), errors.New("exit status 1"),
			map[string]string{"hotpath": "FAIL"}},
		{"a long line, cut by go test", "./hotpath", strings.Repeat(`{"Action":"output","Output":"`+strings.Repeat("x", 4<<10)+"\"}\n", 512) +
			"not JSON\n" + line("pass", "TestScoutFS/v1.30"), nil,
			map[string]string{"hotpath": "ok"}},
		{"a line too long to read", "./hotpath", line("pass", "TestScoutFS/v1.30") + strings.Repeat("x", 2<<20) + "\n", nil,
			map[string]string{"hotpath": "FAIL"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &results{cells: make(map[string]map[string]string)}
			r.record(tt.pkg, "v1.30", strings.NewReader(tt.out), tt.err)
			got := map[string]string{}
			for check, row := range r.cells {
				got[check] = row["v1.30"]
			}
			for check, want := range tt.want {
				if got[check] != want {
					t.Errorf("%s: %q, not %q", check, got[check], want)
				}
				delete(got, check)
			}
			if len(got) > 0 {
				t.Errorf("and also %v", got)
			}
		})
	}
}

// What a machine skips, with its reason, is no failure.
func TestTableWithASkip(t *testing.T) {
	r := &results{cells: make(map[string]map[string]string)}
	r.set("TestOpen", "v1.30", outcomes[testjson.ActionPass])
	r.set("TestCost", "v1.30", outcomes[testjson.ActionSkip])
	var out strings.Builder
	if !r.print(&out, []string{"v1.30"}, "5.10", time.Second) || !strings.Contains(out.String(), "\n1 passed, 1 skipped, 0 failed\n") {
		t.Errorf("with a skipped check the table is\n%s", &out)
	}
}

// A version whose tests cannot even start does not cost the others their table.
func TestTableWithAFailure(t *testing.T) {
	r := &results{cells: make(map[string]map[string]string)}
	r.goTest(t.Context(), t.TempDir(), "./hotpath", "v1.29")
	r.set("hotpath", "v1.30", "ok")
	r.set("TestOpen", "v1.30", "ok")
	var out strings.Builder
	if r.print(&out, []string{"v1.29", "v1.30"}, "5.10", time.Second) {
		t.Error("the table is good although tests failed")
	}
	for _, want := range []string{
		"          v1.29    v1.30\n",
		"hotpath   FAIL     ok\n",
		"TestOpen  not run  ok\n",
		"2 passed, 0 skipped, 2 failed\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
