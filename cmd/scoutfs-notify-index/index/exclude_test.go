// SPDX-License-Identifier: GPL-2.0-only

package index

import (
	"os"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func TestExclude(t *testing.T) {
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	comm := strings.TrimSpace(string(self))
	var x Exclude
	for _, s := range []string{"uid=7,gid=8", "comm=" + comm, "cgroup=/x/y"} {
		if err := x.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := x.String(), "uid=7,gid=8,comm="+comm+",cgroup=/x/y"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	now := uint64(time.Now().UnixNano())
	for _, tt := range []struct {
		name string
		rec  notify.Record
		want bool
	}{
		{"another", notify.Record{PID: 1 << 30, TimeNS: now}, false},
		{"uid", notify.Record{UID: 7}, true},
		{"gid", notify.Record{GID: 8}, true},
		{"command", notify.Record{PID: uint32(os.Getpid()), TimeNS: now}, true},
		{"a process before it with its number", notify.Record{PID: uint32(os.Getpid()), TimeNS: 1e18}, false},
	} {
		if got := x.Match(&tt.rec); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	me := uint32(os.Getpid())
	opened := func(pid uint32, comm string, ns uint64) notify.Record {
		r := notify.Record{Type: notify.TypeOpen, PID: pid, TID: pid, Flags: notify.FlagComm, TimeNS: ns}
		copy(r.Comm[:], comm)
		return r
	}
	for _, tt := range []struct {
		name string
		rec  notify.Record
		want bool
	}{
		{"a command that has ended", opened(1<<30, comm, now), true},
		{"its next read", notify.Record{PID: 1 << 30, TimeNS: now + 1}, true},
		{"a read before that", notify.Record{PID: 1 << 30, TimeNS: now - 1}, false},
		{"a thread of one that is not left out", notify.Record{Type: notify.TypeOpen, PID: 1<<30 + 1, TID: 5, TimeNS: now, Comm: opened(0, comm, 0).Comm}, false},
		{"it executed another program", opened(1<<30, "other", now+2), false},
		{"a read of that", notify.Record{PID: 1 << 30, TimeNS: now + 3}, false},
		{"one that is gone and had a number that is in use", opened(me, "other", 1e18), false},
		{"one that is gone, to be left out", opened(me, comm, 1e18), true},
		{"a read of who has the number now", notify.Record{PID: me, TimeNS: now}, true},
	} {
		if got := x.Match(&tt.rec); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for text, want := range map[string]bool{
		"0::/x/y\n": true, "0::/x/y/z\n": true, "0::/x/yz\n": false, "12:cpu:/a\n0::/x\n": false, "4:memory:/x/y\n": true, "junk": false,
	} {
		if got := x.inCGroup(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for _, bad := range []string{"", "uid", "uid=-1", "uid=4294967296", "comm=", "comm=sixteencharacter", "cgroup=x", "cgroup=/", "cgroup=/x/", "pid=1"} {
		if err := new(Exclude).Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
