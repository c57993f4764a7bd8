// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

func some(n int) instructions { return instructions{Least: n, Median: n + 7} }

var someCosts = []cost{
	{Observer: unobserved, Read: some(6600), OpenRead: some(17000)},
	{Observer: "one & another", Read: some(7600), OpenRead: some(19000), Delivered: 0.5},
	{Observer: "awake", Awake: true, Read: instructions{1, 6600 + 7 + 123}, OpenRead: some(17000)},
	{Observer: "less than nothing", Read: some(6599), OpenRead: some(17000)},
}

// TestDraw checks that the picture is XML and has each observer's figures.
func TestDraw(t *testing.T) {
	svg, err := draw(someCosts)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(svg))
	text := ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if c, ok := tok.(xml.CharData); ok {
			text += string(c)
		}
	}
	for _, want := range []string{"one & another", "1000", "2000", "123", "50.00 % delivered", "-1"} {
		if !strings.Contains(text, want) {
			t.Errorf("the picture has no %q", want)
		}
	}
	if _, err := draw(someCosts[:1]); err == nil {
		t.Error("a picture of nothing")
	}
}

// TestTables checks that costs are told as differences, and results are read back.
func TestTables(t *testing.T) {
	var r results
	for _, line := range []string{
		`result: {"Cost":{"Observer":"nobody","Read":{"Least":100},"OpenRead":{"Least":300}}}`,
		`result: {"Cost":{"Observer":"x","Read":{"Least":150},"OpenRead":{"Least":400},"Delivered":1}}`,
		`result: {"Flow":{"Table":"t","Processors":1,"Threads":2,"Clients":1,"Accesses":1000,"Delivered":500,"Elapsed":1000000000,"Daemon":50000000}}`,
	} {
		if _, err := io.WriteString(&r, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{"x                       50                100                    1.0000", "0.5000", "0.050", "100µs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if io.WriteString(&r, "result: {\n"); r.err == nil {
		t.Error("a broken result is no error")
	}
}

// TestOnly checks that tables can be measured alone, and a machine is booted for those that
// have something in it.
func TestOnly(t *testing.T) {
	for _, tt := range []struct {
		only         string
		counted, two bool
	}{{"", true, true}, {"costs", true, false}, {"by rate", true, false}, {"2 processors", false, true}, {"full speed", false, false}} {
		only := regexp.MustCompile(tt.only)
		if counted, two := wanted(roleCounted, only), wanted(roleTwo, only); counted != tt.counted || two != tt.two {
			t.Errorf("%q: %v, %v", tt.only, counted, two)
		}
		for _, f := range append(loads(1, only), loads(2, only)...) {
			if !only.MatchString(f.Table) {
				t.Errorf("%q: %q", tt.only, f.Table)
			}
		}
	}
}
