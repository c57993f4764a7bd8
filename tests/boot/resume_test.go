// SPDX-License-Identifier: GPL-2.0-only

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
)

// resumeRace returns a Resume that has machines whose mounts hang follow each other until
// TestRace has raced for as long as it is to.
func resumeRace(length time.Duration) func(log string) ([]string, error) {
	line := regexp.MustCompile(`\| +race_test\.go:\d+: ` + guest.Raced + `(\S+): `)
	stuck := 0
	return func(log string) ([]string, error) {
		text, err := os.ReadFile(log)
		if err != nil {
			return nil, err
		}
		if m := line.FindAllSubmatch(text, -1); m != nil {
			raced, err := time.ParseDuration(string(m[len(m)-1][1]))
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", log, err)
			}
			length, stuck = max(length-raced, time.Second), 0
		} else if stuck++; stuck > 3 {
			return nil, fmt.Errorf("boot the machine again: mount(2) did not return in %d machines that had not raced for ten seconds", stuck)
		}
		return []string{guest.EnvRace + "=" + length.String()}, nil
	}
}

func TestResumeRace(t *testing.T) {
	resume := resumeRace(3 * time.Minute)
	for _, tt := range []struct{ log, want string }{
		{"", "RACE=3m0s"},
		{"   9.1       |     race_test.go:138: raced for 40s: map[]\n  99.1       |     race_test.go:138: raced for 1m10s: map[attach:1]\n", "RACE=1m50s"},
		{"   9.1       |     race_test.go:138: raced for 3m: map[]\n", "RACE=1s"},
		{"", "RACE=1s"},
		{"", "RACE=1s"},
		{"", "RACE=1s"},
		{"", ""},
	} {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, []byte(tt.log), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := resume(log)
		if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("after %q: %q, %v, not %q", tt.log, got, err, tt.want)
		}
	}
}
