// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"errors"
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Exit statuses of scoutfs-notifyd, with the numbers of sysexits.h where it has
// one.
const (
	ExitOK         = 0  // told to stop, or unmounted
	ExitFailure    = 1  // anything else
	ExitUsage      = 64 // bad flags or arguments
	ExitBusy       = 75 // somebody else reads or serves the file system; may pass
	ExitPermission = 77 // not root
	ExitConfig     = 78 // not ScoutFS, or no notify support: restarting is no use
)

// ExitStatus returns the exit status for what Run returned.
func ExitStatus(err error) int {
	for _, is := range []struct {
		target error
		status int
	}{
		{ErrConfig, ExitUsage},
		{notify.ErrNotSupported, ExitConfig},
		{notify.ErrNotScoutFS, ExitConfig},
		{notify.ErrBusy, ExitBusy},
		{ErrServed, ExitBusy},
		{errReplaced, ExitBusy},
		{os.ErrPermission, ExitPermission},
	} {
		if errors.Is(err, is.target) {
			return is.status
		}
	}
	if err != nil {
		return ExitFailure
	}
	return ExitOK
}
