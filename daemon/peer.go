// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// peers knows who may be a client: a process of the same user and the same user
// namespace as the daemon, in production the host's root.
//
// The socket's mode keeps out everybody without CAP_DAC_OVERRIDE, and a uid of
// another user namespace arrives translated: the root of a usual container has
// some large number here. That leaves a namespace that maps its root to the
// host's (unshare -r run by root). Its root has the same uid but none of the power,
// and could not attach to the kernel's ring either.
type peers struct {
	uid  uint32
	maps []byte // of the daemon's user namespace
}

func newPeers() (*peers, error) {
	maps, err := idMaps("self")
	if err != nil {
		return nil, fmt.Errorf("find out the daemon's user namespace: %w", err)
	}
	return &peers{uid: uint32(os.Geteuid()), maps: maps}, nil
}

// check returns an error if the process that connected to fd may not be a client.
// pid is that process, 0 if it is not known.
func (p *peers) check(fd int) (pid int32, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, fmt.Errorf("get its credentials: %w", err)
	}
	if cred.Uid != p.uid {
		return cred.Pid, fmt.Errorf("its user is %d, not %d: %w", cred.Uid, p.uid, os.ErrPermission)
	}
	maps, err := idMaps(strconv.Itoa(int(cred.Pid)))
	if err != nil {
		return cred.Pid, fmt.Errorf("find out its user namespace: %w", err)
	}
	if !bytes.Equal(maps, p.maps) {
		return cred.Pid, fmt.Errorf("it is in another user namespace: %w", os.ErrPermission)
	}
	return cred.Pid, nil
}

// idMaps returns what tells a process's user namespace from others. To compare
// /proc/PID/ns/user would take the right to trace the process, which a daemon with
// few capabilities lacks. Anybody may read the maps of ids. They are the same in
// two namespaces only if somebody with the host's CAP_SYS_ADMIN has made them so: a
// new namespace has no projid_map at all.
func idMaps(pid string) ([]byte, error) {
	var maps []byte
	for _, name := range []string{"uid_map", "gid_map", "projid_map"} {
		b, err := os.ReadFile("/proc/" + pid + "/" + name)
		if err != nil {
			return nil, err
		}
		maps = append(append(maps, b...), 0)
	}
	return maps, nil
}
