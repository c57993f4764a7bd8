// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Records have the time of CLOCK_REALTIME, which the kernel half adds up by itself where
// the clock is the tsc: also when the clock is set or slewed, or when its source is
// another, or becomes one.
func TestTime(t *testing.T) {
	f := setup(t)
	f.create("a", 0)
	r := f.attach()
	const sysfs = "/sys/devices/system/clocksource/clocksource0/"
	read := func(name string) string {
		text, err := os.ReadFile(sysfs + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	usual := read("current_clocksource")
	sources := strings.Fields(read("available_clocksource"))
	t.Logf("the clock's source is %s, of %v", usual, sources)
	use := func(source string) {
		if err := os.WriteFile(sysfs+"current_clocksource", []byte(source), 0); err != nil {
			t.Fatal(err)
		}
		if got := read("current_clocksource"); got != source {
			t.Fatalf("the clock's source is %s, should be %s", got, source)
		}
	}

	// The tsc's rate is known to a millionth, and is added up for 2^18 of its cycles.
	const rounding = time.Microsecond
	if !slices.Contains(sources, "tsc") {
		t.Log("the kernel does not trust the tsc here, so this shows nothing of its records' own clock")
	} else if usual != "tsc" {
		// tsc first, so that this reader begins with it
		use("tsc")
		defer use(usual)
	}
	t.Run("as it is", func(t *testing.T) { f.checkTimes(r, rounding) })
	t.Run("slewed", func(t *testing.T) {
		for _, tick := range []int64{9000, 11000} { // microseconds, all that the kernel allows: a tenth
			adjust(t, &unix.Timex{Modes: unix.ADJ_TICK, Tick: tick})
			defer adjust(t, &unix.Timex{Modes: unix.ADJ_TICK, Tick: 10000})
			f.checkTimes(r, 1<<18*time.Nanosecond/10)
		}
	})
	t.Run("set", func(t *testing.T) {
		for _, step := range []time.Duration{time.Hour, -time.Hour} {
			setClock(t, step)
			// It may take a millisecond until records have the new time. Meanwhile there
			// are some, so that the old one is as fresh as can be.
			for start := time.Now(); time.Since(start) < 10*time.Millisecond; {
				f.touch("a")
			}
			drain(t, r)
			f.checkTimes(r, rounding)
		}
	})
	t.Run("other sources", func(t *testing.T) {
		current := read("current_clocksource")
		defer use(current)
		for _, source := range sources {
			use(source)
			// A source that is no longer used may still be added up for a millisecond.
			f.checkTimes(r, rounding)
			again := reattach(t, f, r)
			f.checkTimes(again, rounding)
			r = again
		}
	})
}

// reattach replaces a reader.
func reattach(t *testing.T, f *fs, r *notify.Reader) *notify.Reader {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return f.attach()
}

// checkTimes checks that each record's time is between those of before and after the
// access, give or take slack. It takes some milliseconds, and many windows of the tsc.
func (f *fs) checkTimes(r *notify.Reader, slack time.Duration) {
	f.t.Helper()
	type access struct{ before, after time.Duration }
	for range 4 {
		accesses := make([]access, 0, notify.RingRecords/2)
		for range cap(accesses) {
			var a access
			a.before = realtime(f.t)
			f.touch("a")
			a.after = realtime(f.t)
			accesses = append(accesses, a)
		}
		recs := drain(f.t, r)
		if len(recs) != len(accesses) {
			f.t.Fatalf("%d records of %d accesses", len(recs), len(accesses))
		}
		for i, a := range accesses {
			if at := time.Duration(recs[i].TimeNS); at < a.before-slack || at > a.after+slack {
				f.t.Fatalf("record %d: its time is %v after the clock's before the access, which took %v", i, at-a.before, a.after-a.before)
			}
		}
	}
}

// realtime returns the clock's time since 1970. (time.Now would also do, if it did not
// read two clocks.)
func realtime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func adjust(t *testing.T, tx *unix.Timex) {
	t.Helper()
	if _, err := unix.Adjtimex(tx); err != nil {
		t.Fatalf("adjtimex: %v", err)
	}
}

// setClock sets the clock by a step.
func setClock(t *testing.T, step time.Duration) {
	t.Helper()
	ts := unix.NsecToTimespec(int64(realtime(t) + step))
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Fatalf("clock_settime: %v", err)
	}
}
