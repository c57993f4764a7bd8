// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkPeer returns an error if the process that connected to fd may not be a client,
// which takes the daemon's own user: in production the host's root. pid is that
// process, 0 if it is not known.
//
// The socket's mode keeps out everybody without CAP_DAC_OVERRIDE, and this those who
// have it. The kernel notes the credentials in connect(2), so the process may have
// exited since, and nothing has to be looked up in /proc, which hidepid could hide. A
// uid of another user namespace arrives translated: the root of a usual container
// has some large number here. A namespace that maps its root to the host's gets in,
// as it gets at all other files of the host's root.
func checkPeer(fd int) (pid int32, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, fmt.Errorf("get its credentials: %w", err)
	}
	if uid := uint32(os.Geteuid()); cred.Uid != uid {
		return cred.Pid, fmt.Errorf("its user is %d, not %d: %w", cred.Uid, uid, os.ErrPermission)
	}
	return cred.Pid, nil
}
