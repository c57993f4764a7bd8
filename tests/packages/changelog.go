// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// change is one entry of packaging/changelog, which has the format of rpm's
// changelogs. The last number of an entry's first line is the release N.
type change struct {
	date    time.Time // midnight UTC, as in rpm since 4.16
	who     string    // with an address, which dpkg requires
	release int
	notes   []string // one for each dash, joined to a line
}

// parseChangelog reads packaging/changelog. Entries are newest first, each with
// its own release number. It returns at least one.
func parseChangelog(text string) ([]change, error) {
	var all []change
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		var err error
		switch {
		case line == "":
		case strings.HasPrefix(line, "* "):
			var c change
			c, err = parseChangeHead(line[2:])
			all = append(all, c)
		case len(all) == 0 || !all[len(all)-1].note(line):
			err = fmt.Errorf("%q is not an entry, note or continuation", line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no entry")
	}
	for i, c := range all {
		if len(c.notes) == 0 {
			return nil, fmt.Errorf("release %d has no notes", c.release)
		}
		if i > 0 && (c.release >= all[i-1].release || c.date.After(all[i-1].date)) {
			return nil, fmt.Errorf("release %d is not older than %d above it", c.release, all[i-1].release)
		}
	}
	return all, nil
}

// note adds a line to the entry, as a note or as the continuation of the last one. It
// returns false if line is neither.
func (c *change) note(line string) bool {
	if text, ok := strings.CutPrefix(line, "- "); ok {
		c.notes = append(c.notes, strings.TrimSpace(text))
		return true
	}
	last := len(c.notes) - 1
	if last < 0 || !strings.HasPrefix(line, "  ") {
		return false
	}
	c.notes[last] += " " + strings.TrimSpace(line)
	return true
}

var whoRE = regexp.MustCompile(`^[^<>]+ <[^<>@\s]+@[^<>@\s]+>$`)

// parseChangeHead reads "Mon Nov 23 2026 Somebody <some@body.invalid> - 1".
func parseChangeHead(s string) (change, error) {
	const layout = "Mon Jan 02 2006"
	if len(s) < len(layout)+1 {
		return change{}, fmt.Errorf("%q is too short for a date and a name", s)
	}
	date, err := time.Parse(layout, s[:len(layout)])
	if err != nil {
		return change{}, err
	}
	// time.Parse accepts any day of the week; rpm refuses a wrong one.
	if want := date.Format(layout); want != s[:len(layout)] {
		return change{}, fmt.Errorf("%s is a %s", s[:len(layout)], date.Weekday())
	}
	who, number, ok := strings.Cut(s[len(layout):], " - ")
	who = strings.TrimSpace(who)
	release, err := strconv.Atoi(number)
	if !ok || !whoRE.MatchString(who) || err != nil || release < 1 {
		return change{}, fmt.Errorf("%q must end in NAME <ADDRESS> - RELEASE", s)
	}
	return change{date: date, who: who, release: release}, nil
}

// rpmChangelog returns the changelog for a spec, with version before each release
// number.
func rpmChangelog(all []change, version string) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "* %s %s - %s-%d\n", c.date.Format("Mon Jan 02 2006"), c.who, version, c.release)
		for _, n := range c.notes {
			// rpm would expand a macro in a note.
			fmt.Fprintf(&b, "- %s\n", strings.ReplaceAll(n, "%", "%%"))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
