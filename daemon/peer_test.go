// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

const (
	// asClient makes the test binary connect to a socket and wait for a record.
	asClient = "SCOUTFS_NOTIFYD_TEST_CLIENT"
	// asParent makes it connect, leave the connection to a child and exit.
	asParent = "SCOUTFS_NOTIFYD_TEST_PARENT"
	// asHeir makes it that child.
	asHeir = "SCOUTFS_NOTIFYD_TEST_HEIR"
)

func clientProcess(path string) int {
	c, err := (&notify.Dialer{Version: notify.Version1}).DialContext(context.Background(), path)
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

func parentProcess(path string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), asParent+"=", asHeir+"=1", noRaceDelay)
	child.Stdout = os.Stdout
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "connection")}
	if err := child.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func heirProcess() int {
	var buf [notify.RecordSize]byte
	n, err := unix.Read(3, buf[:])
	fmt.Printf("%d bytes, %v\n", n, err)
	return 0
}

// TestParentExited: a client is served although the process that connected has exited
// before the daemon looks.
func TestParentExited(t *testing.T) {
	d := startProcess(t, testConfig(t), nil)
	var status unix.WaitStatus
	if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(d.cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the daemon is not stopped: %v, %v", status, err)
	}

	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), asParent+"="+d.socket(), noRaceDelay)
	parent.Stdout = w // a file, for which Wait does not wait
	err = parent.Run()
	w.Close()
	if err != nil {
		t.Errorf("the parent: %v", err)
	}

	if err := d.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.order("emit 1")
	got, err := io.ReadAll(out)
	if want := fmt.Sprintf("%d bytes, <nil>\n", notify.RecordSize); err != nil || string(got) != want {
		t.Errorf("the child got %q, %v, want %q", got, err, want)
	}
}

// TestPeers: only processes of the host's root can receive records, however others try.
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
		}, "got a record", ""},
		{"root in a user namespace with the same users", syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}},
		}, "got a record", ""},
		{"root as another user of another user namespace", syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
			Credential:  &syscall.Credential{Uid: 1000, Gid: 1000, NoSetGroups: true},
		}, "got a record", ""},
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
