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
