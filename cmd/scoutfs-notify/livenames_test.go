// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// TestMeet: what is known of one mount's files is not believed of the next one's, which
// can have the same device number, and is kept over restarts of the daemon.
func TestMeet(t *testing.T) {
	n := newLiveNames(systemEnvironment(), true)
	defer n.close()
	first := notify.Hello{Device: notify.Device{Minor: 40}, RID: 1}
	for _, tt := range []struct {
		name  string
		hello notify.Hello
		kept  bool
	}{
		{"first mount", first, false},
		{"the same", first, true},
		{"another on its device", notify.Hello{Device: first.Device, RID: 2}, false},
		{"another on another device", notify.Hello{Device: notify.Device{Minor: 41}, RID: 3}, false},
	} {
		before := n.paths
		if err := n.meet(&tt.hello); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if kept := n.paths == before; kept != tt.kept {
			t.Errorf("%s: what was known is kept: %v, should be %v", tt.name, kept, tt.kept)
		}
	}
}
