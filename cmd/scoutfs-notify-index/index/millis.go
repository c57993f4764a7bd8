// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"math"
	"time"
)

// Millis is a time in milliseconds since 1970, as files have them. 0 is none.
type Millis int64

// forever is later than any time.
const forever = Millis(math.MaxInt64)

func millisOf(ns uint64) Millis { return Millis(ns / 1e6) }

// MillisOf returns a time in milliseconds, rounded down.
func MillisOf(t time.Time) Millis { return Millis(t.UnixMilli()) }

// Time returns it as a time in UTC.
func (m Millis) Time() time.Time { return time.UnixMilli(int64(m)).UTC() }

// String returns it in UTC, to the second.
func (m Millis) String() string {
	if m == 0 {
		return "never"
	}
	return m.Time().Format("2006-01-02T15:04:05Z")
}

// hours returns the hours since 1970.
func (m Millis) hours() int64 { return int64(m) / time.Hour.Milliseconds() }

func (m Millis) plus(d time.Duration) Millis { return m + Millis(d.Milliseconds()) }

// minus returns how much later it is than another time, as far as that can be said: times in
// a stream can be anything.
func (m Millis) minus(o Millis) time.Duration {
	const most = Millis(math.MaxInt64 / 4 / time.Millisecond)
	return time.Duration(min(max(m-o, -most), most)) * time.Millisecond
}
