// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		cgroup string
		files  map[string]string
		want   uint64
	}{
		"none":          {"", nil, math.MaxUint64},
		"not readable":  {"0::/a\n", nil, math.MaxUint64},
		"no limit":      {"0::/a\n", map[string]string{"a/memory.max": "max\n"}, math.MaxUint64},
		"limit":         {"0::/a/b\n", map[string]string{"a/b/memory.max": "33554432\n"}, 32 << 20},
		"above":         {"0::/a/b\n", map[string]string{"a/b/memory.max": "33554432\n", "a/memory.max": "1000\n"}, 1000},
		"colons":        {"0::/a:b:c\n", map[string]string{"a:b:c/memory.max": "5\n"}, 5},
		"version 1":     {"11:cpu:/x\n9:memory:/a\n1:name=systemd:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "7\n"}, 7},
		"version 1, no": {"9:memory:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 9223372036854771712},
		"garbage":       {"x\n0:\n0::../../..\n", map[string]string{"memory.max": "x\n"}, math.MaxUint64},
	} {
		t.Run(name, func(t *testing.T) {
			proc, cgroups := t.TempDir(), t.TempDir()
			if tt.cgroup != "" {
				if err := os.WriteFile(filepath.Join(proc, "cgroup"), []byte(tt.cgroup), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range tt.files {
				path := filepath.Join(cgroups, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := memoryLimit(proc, cgroups); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	t.Logf("this process: %d", memoryLimit("/proc/self", "/sys/fs/cgroup"))
}
