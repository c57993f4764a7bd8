// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// systemClock returns the name of this run of the machine, and how far CLOCK_REALTIME is
// ahead of CLOCK_BOOTTIME, which nobody sets.
func systemClock() (boot string, offset time.Duration) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		id = []byte("unknown")
	}
	var mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &mono) != nil {
		return strings.TrimSpace(string(id)), 0
	}
	return strings.TrimSpace(string(id)), time.Duration(time.Now().UnixNano() - mono.Nano())
}
