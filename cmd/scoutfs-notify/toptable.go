// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/screen"
	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/tally"
)

// utf8Locale tells whether the terminal shows UTF-8, as the first of these variables that
// is set says.
func utf8Locale(getenv func(string) string) bool {
	locale := strings.ToLower(cmp.Or(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// textTable prints tables for people, with an empty line between them.
func textTable(w io.Writer, mount string, q tally.Query) func(v tally.Table, now time.Time) error {
	first := true
	return func(v tally.Table, now time.Time) error {
		var b bytes.Buffer
		if !first {
			b.WriteByte('\n')
		}
		first = false
		fmt.Fprintf(&b, "%s  %s  %s\n", now.Local().Format(time.TimeOnly), printable(mount), sum(v.All, v.Seconds, q.Total))
		if v.Waiting != "" {
			fmt.Fprintf(&b, "waiting: %s\n", printable(v.Waiting))
		}
		fmt.Fprintf(&b, "%s, %d shown of %d\n", v.Loss, len(v.Rows), v.Found)
		unit := "/S"
		if q.Total {
			unit = ""
		}
		fmt.Fprintf(&b, "%10s %10s %12s  %s\n", "OPENS"+unit, "READS"+unit, "BYTES"+unit, labels[q.By].header)
		for i := range v.Rows {
			r := &v.Rows[i]
			opens, reads, size := amounts(r.Count, v.Seconds, q.Total)
			fmt.Fprintf(&b, "%10s %10s %12s  %s\n", opens, reads, size, labels[q.By].text(r))
		}
		if v.Rest.Events() > 0 {
			fmt.Fprintf(&b, "and more, for which there is no room: %s\n", sum(v.Rest, v.Seconds, q.Total))
		}
		_, err := w.Write(b.Bytes())
		return err
	}
}

// amounts writes what is in a row.
func amounts(c tally.Count, seconds float64, total bool) (opens, reads, size string) {
	if total {
		return strconv.FormatUint(c.Opens, 10), strconv.FormatUint(c.Reads, 10), screen.Size(float64(c.Bytes))
	}
	return screen.Rate(c.Opens, seconds), screen.Rate(c.Reads, seconds), screen.Size(float64(c.Bytes) / seconds)
}

// sum writes a sum on one line.
func sum(c tally.Count, seconds float64, total bool) string {
	opens, reads, size := amounts(c, seconds, total)
	if total {
		return fmt.Sprintf("%s opens  %s reads  %s in %v", opens, reads, size, time.Duration(seconds*1e9).Round(time.Second))
	}
	return fmt.Sprintf("%s opens/s  %s reads/s  %s/s", opens, reads, size)
}

// labels say what a row is about.
var labels = map[tally.By]struct {
	header string
	text   func(*tally.Row) string
}{
	tally.ByFile: {"FILE", func(r *tally.Row) string {
		return cmp.Or(printable(r.Name), "inode "+strconv.FormatUint(r.ID, 10))
	}},
	tally.ByDirectory: {"DIRECTORY", func(r *tally.Row) string { return cmp.Or(printable(r.Name), "not known") }},
	tally.ByUser: {fmt.Sprintf("%10s  USER", "UID"), func(r *tally.Row) string {
		return fmt.Sprintf("%10d  %s", r.ID, cmp.Or(printable(r.Name), "-"))
	}},
	tally.ByProcess: {fmt.Sprintf("%10s  %-10s  COMMAND", "PID", "USER"), func(r *tally.Row) string {
		return fmt.Sprintf("%10d  %-10s  %s", r.ID, cmp.Or(printable(r.User), strconv.FormatUint(uint64(r.UID), 10)), cmp.Or(printable(r.Name), "-"))
	}},
	tally.ByCommand: {"COMMAND", func(r *tally.Row) string { return cmp.Or(printable(r.Name), "not known") }},
}

// jsonRow is a row of -json. The order of the fields is that of the output.
type jsonRow struct {
	Ino     *uint64 `json:"ino,omitempty"`
	PID     *uint64 `json:"pid,omitempty"`
	UID     *uint64 `json:"uid,omitempty"`
	Path    *string `json:"path,omitempty"`
	PathB64 []byte  `json:"path_b64,omitempty"`
	User    *string `json:"user,omitempty"`
	Command *string `json:"comm,omitempty"`
	tally.Count
}

// jsonTable prints tables as JSON Lines.
func jsonTable(w io.Writer, q tally.Query) func(v tally.Table, now time.Time) error {
	enc := json.NewEncoder(printableJSON{w})
	enc.SetEscapeHTML(false)
	return func(v tally.Table, now time.Time) error {
		rows := make([]jsonRow, len(v.Rows))
		for i := range v.Rows {
			rows[i] = newJSONRow(q.By, &v.Rows[i])
		}
		return enc.Encode(struct {
			Time    time.Time   `json:"time"`
			Seconds float64     `json:"seconds"`
			By      string      `json:"by"`
			Sum     tally.Count `json:"sum"`
			Lost    tally.Loss  `json:"lost"`
			Waiting string      `json:"waiting,omitempty"`
			Found   int         `json:"found"`
			Rows    []jsonRow   `json:"rows"`
			Rest    tally.Count `json:"rest"`
		}{now.UTC(), v.Seconds, q.By.String(), v.All, v.Loss, v.Waiting, v.Found, rows, v.Rest})
	}
}

func newJSONRow(by tally.By, r *tally.Row) jsonRow {
	known := func(text string) *string {
		if text == "" {
			return nil
		}
		return &text
	}
	j := jsonRow{Count: r.Count}
	uid := uint64(r.UID)
	switch by {
	case tally.ByFile, tally.ByDirectory:
		if by == tally.ByFile {
			j.Ino = &r.ID
		}
		j.Path = known(r.Name)
		if !utf8.ValidString(r.Name) {
			j.PathB64 = []byte(r.Name)
		}
	case tally.ByUser:
		j.UID, j.User = &r.ID, known(r.Name)
	case tally.ByProcess:
		j.PID, j.UID, j.User, j.Command = &r.ID, &uid, known(r.User), known(r.Name)
	case tally.ByCommand:
		j.Command = known(r.Name)
	}
	return j
}
