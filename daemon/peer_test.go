// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// asClient makes the test binary connect to a socket and wait for a record.
const asClient = "SCOUTFS_NOTIFYD_TEST_CLIENT"

func clientProcess(path string) int {
	c, err := notify.Dial(path)
	if err == nil {
		_, err = c.Next()
	}
	switch {
	case err == nil:
		fmt.Println("got a record")
	case errors.Is(err, os.ErrPermission):
		fmt.Println("not permitted")
	case errors.Is(err, notify.ErrRefused):
		fmt.Println("refused")
	default:
		fmt.Println(err)
	}
	return 0
}

// TestPeers: only the host's root can receive records, however others try.
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can become other users")
	}
	const nobody = 65534
	for _, tt := range []struct {
		name string
		attr syscall.SysProcAttr
		want string
		log  string
	}{
		{"root", syscall.SysProcAttr{}, "got a record", ""},
		{"user", syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		}, "not permitted", ""},
		{"user in root's group", syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: 0},
		}, "not permitted", ""},
		{"user with CAP_DAC_OVERRIDE", syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
			AmbientCaps: []uintptr{unix.CAP_DAC_OVERRIDE},
		}, "refused", "its user is 65534, not 0"},
		{"user as root of another user namespace", syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		}, "not permitted", ""},
		{"root as root of another user namespace", syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		}, "refused", "in another user namespace"},
		{"root in a user namespace with the same users", syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}},
		}, "refused", "in another user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			// Only the socket's mode should stop them.
			if err := os.Chmod(cfg.runDir, 0o755); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, cfg)

			// Other users may not have access to the binary's own path.
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), asClient+"="+d.socket(), noRaceDelay)
			cmd.SysProcAttr = &tt.attr
			cmd.Dir = "/"
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Start(); err != nil {
				if tt.attr.Cloneflags != 0 && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC)) {
					t.Skipf("skipped: this machine has no user namespaces: %v", err)
				}
				t.Fatal(err)
			}
			if tt.want == "got a record" {
				d.awaitCount(1, "client connects")
				d.ring.emit(1)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, &errs)
			}
			if got := strings.TrimSpace(out.String()); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if tt.log != "" && d.log.await("turning a client away", tt.log) == "" {
				t.Error("no log line")
			}
			if tt.want != "got a record" && d.log.count("client connects") != 0 {
				t.Error("it was accepted")
			}
		})
	}
}
