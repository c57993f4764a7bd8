// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// span is from when the kernel made a record until it was sent, by CLOCK_REALTIME.
type span struct{ From, To time.Duration }

func (s span) length() time.Duration { return s.To - s.From }

// overlap returns how much of a span is in another.
func (s span) overlap(other span) time.Duration {
	return max(0, min(s.To, other.To)-max(s.From, other.From))
}

// daemonName is what the kernel calls the daemon's threads.
const daemonName = "scoutfs-notifyd"

const tracing = "/sys/kernel/tracing"

// trace has the kernel note who is woken, who gets the processor, and when a process renames
// a file, as the daemon does when it publishes its state.
func trace() error {
	if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil && err != unix.EBUSY {
		return fmt.Errorf("mount tracefs: %w", err)
	}
	for _, set := range []struct{ name, value string }{
		{"trace_clock", "mono"}, {"buffer_size_kb", "32768"}, {"trace", ""},
		{"events/sched/sched_switch/enable", "1"}, {"events/sched/sched_wakeup/enable", "1"}, {"events/syscalls/sys_enter_renameat/enable", "1"}, {"tracing_on", "1"},
	} {
		if err := os.WriteFile(filepath.Join(tracing, set.name), []byte(set.value), 0o644); err != nil {
			return fmt.Errorf("trace: %w", err)
		}
	}
	return nil
}

// whoRan ends trace, and returns who had the processor in a span.
func whoRan(s span) (string, error) {
	if err := os.WriteFile(filepath.Join(tracing, "tracing_on"), []byte("0"), 0o644); err != nil {
		return "", fmt.Errorf("end the trace: %w", err)
	}
	f, err := os.Open(filepath.Join(tracing, "trace"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	toMonotonic := clock(unix.CLOCK_MONOTONIC) - clock(unix.CLOCK_REALTIME)
	return processorTimes(f, span{s.From + toMonotonic, s.To + toMonotonic})
}

// traced matches a line of the trace: "comm-12 [000] d... 3.456789: event: text".
var traced = regexp.MustCompile(`^ *(.+)-\d+ +\[\d+\] .{4,5} +(\d+)\.(\d{6}): (sched_switch|sched_wakeup|sys_renameat)[:(](?: comm=(.+) pid=|.* next_comm=(.+) next_pid=)?`)

// processorTimes adds up who had the processor in a span, by the trace, longest first.
func processorTimes(trace io.Reader, s span) (string, error) {
	ran, renames := map[string]time.Duration{}, 0
	var woken []string
	var since time.Duration
	running := ""
	lines := bufio.NewScanner(trace)
	for lines.Scan() {
		m := traced.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		at, err := time.ParseDuration(m[2] + "." + m[3] + "s")
		if err != nil {
			return "", err
		}
		within := at >= s.From && at < s.To
		switch {
		case m[4] == "sys_renameat" && within:
			renames++
		case m[4] == "sched_wakeup" && m[5] == daemonName && within:
			woken = append(woken, (at - s.From).Round(time.Microsecond).String())
		}
		if m[4] != "sched_switch" {
			continue
		}
		if running == "" {
			running = m[1]
		}
		ran[running] += span{since, at}.overlap(s)
		running, since = m[6], at
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read the trace: %w", err)
	}
	if running == "" || since < s.To {
		return "", errors.New("the trace does not cover the span")
	}
	maps.DeleteFunc(ran, func(_ string, d time.Duration) bool { return d <= 0 })
	var parts []string
	for _, who := range slices.SortedFunc(maps.Keys(ran), func(a, b string) int {
		return cmp.Or(cmp.Compare(ran[b], ran[a]), cmp.Compare(a, b))
	}) {
		parts = append(parts, who+" "+ran[who].Round(time.Microsecond).String())
	}
	if len(woken) > 0 {
		parts = append(parts, "daemon woken after "+strings.Join(woken, " and "))
	}
	if renames > 0 {
		parts = append(parts, strconv.Itoa(renames)+" files renamed")
	}
	return strings.Join(parts, ", "), nil
}
