// SPDX-License-Identifier: GPL-2.0-only

package cli

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns a text from outside (a name, a path) as it is safe to print.
// Bytes that a terminal could take for a command, that could hide or reorder other
// text, or that are not UTF-8 become \xNN: control characters, bidirectional marks
// and all else that is not a graphic character or a space.
func Printable(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(text[:n])
		} else {
			for i := range n {
				fmt.Fprintf(&b, `\x%02x`, text[i])
			}
		}
		text = text[n:]
	}
	return b.String()
}
