// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryLimit returns how much memory the daemon's control group may take, in bytes; the
// most there is if it has no limit, or if that cannot be read. proc is /proc/self, cgroups
// /sys/fs/cgroup. The kernel charges the group for what waits in clients' queues, and kills
// the daemon if that is too much.
func memoryLimit(proc, cgroups string) uint64 {
	text, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return math.MaxUint64
	}
	limit := uint64(math.MaxUint64)
	for line := range strings.Lines(string(text)) {
		// 0::/system.slice/x.service, or in version 1 9:memory:/system.slice/x.service.
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(part) != 3 {
			continue
		}
		root, file := cgroups, "memory.max"
		if part[1] == "memory" {
			root, file = filepath.Join(cgroups, "memory"), "memory.limit_in_bytes"
		} else if part[1] != "" {
			continue
		}
		// A limit holds for all groups below.
		for dir := filepath.Clean("/" + part[2]); ; dir = filepath.Dir(dir) {
			if n, err := readLimit(filepath.Join(root, dir, file)); err == nil {
				limit = min(limit, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// readLimit reads a limit. "max" is not a number, and no limit.
func readLimit(file string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}
