// SPDX-License-Identifier: GPL-2.0-only

package picture

import (
	"fmt"
	"strconv"
)

// size writes a number of bytes, such as "1.5 MiB".
func size(n uint64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"} {
		if v < 1000 || unit == "PiB" {
			if v == float64(int(v)) || v >= 100 {
				return fmt.Sprintf("%.0f %s", v, unit)
			}
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return "" // not reached
}

// number writes a number with its digits in groups of three.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes how many of something there are.
func count(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + more
}

// niceSize is a round number of bytes that is at least as much.
func niceSize(v float64) float64 {
	unit := 1.0
	for v/unit > 1024 {
		unit *= 1024
	}
	for _, n := range []float64{1, 2, 4, 8, 12, 16, 20, 32, 40, 60, 80, 100, 200, 400, 600, 800, 1024} {
		if v <= n*unit {
			return n * unit
		}
	}
	return v
}
