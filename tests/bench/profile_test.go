// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"strings"
	"testing"
	"time"
)

const someTrace = `# tracer: nop
#
#           TASK-PID     CPU#  ||||   TIMESTAMP  FUNCTION
           bench-115     [000] d...     1.000100: sched_switch: prev_comm=bench prev_pid=115 prev_prio=120 prev_state=S ==> next_comm=kworker/0:1 next_pid=9 next_prio=120
     kworker/0:1-9       [000] dNh.     1.000250: sched_wakeup: comm=scoutfs-notifyd pid=120 prio=110 target_cpu=000
     kworker/0:1-9       [000] d...     1.000300: sched_switch: prev_comm=kworker/0:1 prev_pid=9 prev_prio=120 prev_state=I ==> next_comm=scoutfs-notifyd next_pid=120 next_prio=110
 scoutfs-notifyd-120     [000] ....     1.000400: sys_renameat(olddfd: ffffff9c, oldname: c0001, newdfd: ffffff9c, newname: c0002)
 scoutfs-notifyd-120     [000] d...     1.001000: sched_switch: prev_comm=scoutfs-notifyd prev_pid=120 prev_prio=110 prev_state=S ==> next_comm=a name next_pid=115 next_prio=120
          a name-115     [000] d...     1.002000: sched_switch: prev_comm=a name prev_pid=115 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
`

func TestProcessorTimes(t *testing.T) {
	at := func(microseconds int) time.Duration {
		return time.Second + time.Duration(microseconds)*time.Microsecond
	}
	for _, tt := range []struct {
		from, to int
		want     string
	}{
		{50, 1100, "scoutfs-notifyd 700µs, kworker/0:1 200µs, a name 100µs, bench 50µs, daemon woken after 200µs, 1 files renamed"},
		{450, 500, "scoutfs-notifyd 50µs"},
		{1500, 2000, "a name 500µs"},
	} {
		got, err := processorTimes(strings.NewReader(someTrace), span{at(tt.from), at(tt.to)})
		if err != nil || got != tt.want {
			t.Errorf("from %d to %d: %q, %v; should be %q", tt.from, tt.to, got, err, tt.want)
		}
	}
	for _, trace := range []string{"", someTrace} {
		if got, err := processorTimes(strings.NewReader(trace), span{at(0), at(3000)}); err == nil {
			t.Errorf("a span that the trace does not cover: %q", got)
		}
	}
}
