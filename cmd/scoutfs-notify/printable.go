// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/cli"
)

// printable returns a text from outside as it is safe to print.
func printable(text string) string { return cli.Printable(text) }

// printableJSON passes JSON on to a writer, with what is not safe to print as \uNNNN,
// which means the same: outside of strings JSON has nothing of that kind. Each Write
// has whole characters, as those of a json.Encoder do.
type printableJSON struct{ w io.Writer }

func (p printableJSON) Write(text []byte) (int, error) {
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	if _, err := io.WriteString(p.w, b.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}
