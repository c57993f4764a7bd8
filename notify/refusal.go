// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import "errors"

// Refusal returns why the daemon turned a client away, from an [ErrRefused]. ok is
// false for other errors, and if the daemon did not say.
func Refusal(err error) (why Reason, ok bool) {
	var r *refusedError
	if !errors.As(err, &r) {
		return 0, false
	}
	return r.reason, true
}
