// SPDX-License-Identifier: GPL-2.0-only

// Init is PID 1 of the machines that package vm boots: it loads modules, runs
// one program to its end, reports its exit status and powers the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/mountinfo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

func main() {
	if os.Args[0] == proto.ServiceInit {
		serve()
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is PID 1 of the machines that tests/vm boots; it does nothing elsewhere")
		os.Exit(2)
	}
	// Nothing here may end PID 1, such as Ctrl-Alt-Del. signal.Ignore would do, but
	// every program in the machine would inherit it.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM)

	var spec proto.Spec
	status, err := live(&spec)
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
	}
	// With every program killed, all files are closed: a file system that cannot be
	// unmounted now has leaked a reference.
	killAll()
	if err := unmountAll(); err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		status = proto.StatusInit
	}
	end(&spec, status)
}

// end reports the exit status and powers the machine off.
func end(spec *proto.Spec, status int) {
	unix.Sync()
	// The program's last line may lack its line feed.
	fmt.Fprintf(os.Stdout, "\n%s\n", proto.LastLine(spec.Nonce, status))
	// tcdrain(3)
	if err := unix.IoctlSetInt(1, unix.TCSBRK, 1); err != nil {
		fmt.Fprintf(os.Stderr, "init: drain the serial port: %v\n", err)
	}
	if err := proto.PowerOff(); err != nil {
		fmt.Fprintf(os.Stderr, "init: power off: %v\n", err)
	}
}

// live does everything up to the end of the program and returns its status.
func live(spec *proto.Spec) (int, error) {
	if err := mountAll(); err != nil {
		return proto.StatusInit, err
	}
	if err := takePort(); err != nil {
		return proto.StatusInit, err
	}
	if err := readSpec(proto.SpecPath, spec); err != nil {
		return proto.StatusInit, err
	}
	fmt.Println(proto.FirstLine(spec.Nonce))
	if err := loopbackUp(); err != nil {
		return proto.StatusInit, err
	}
	for _, m := range spec.Modules {
		if err := insmod(m); err != nil {
			return proto.StatusInit, err
		}
	}
	for i := range spec.Disks {
		if err := waitFor(proto.DiskPath(i), 30*time.Second); err != nil {
			return proto.StatusInit, err
		}
	}
	if spec.Root {
		return proto.StatusInit, startSystemd(spec)
	}
	return spawn(spec)
}

func readSpec(path string, spec *proto.Spec) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, spec); err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	return nil
}

// mounts are the machine's own file systems, in the order to mount them.
var mounts = []struct{ fstype, dir, opts string }{
	{"proc", "/proc", ""},
	{"sysfs", "/sys", ""},
	{"debugfs", "/sys/kernel/debug", ""},
	{"devtmpfs", "/dev", ""},
	{"devpts", "/dev/pts", "ptmxmode=0666"},
	{"tmpfs", "/dev/shm", "mode=1777"},
	{"tmpfs", "/run", "mode=0755"},
	{"tmpfs", "/tmp", "mode=1777"},
}

func mountAll() error {
	unix.Umask(0o022)
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, m.opts); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.dir, err)
		}
	}
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

// unmountAll unmounts what the program left mounted, the newest first.
func unmountAll() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, left := range slices.Backward(mountinfo.Parse(string(text))) {
		if left.Point == "/" || slices.ContainsFunc(mounts, func(m struct{ fstype, dir, opts string }) bool { return m.dir == left.Point }) {
			continue
		}
		if err := unix.Unmount(left.Point, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s (%s), which the program left: %w", left.Point, left.Type, err))
		}
	}
	return errors.Join(errs...)
}

// takePort makes the program's serial port standard input, output and error, in raw
// mode, so that the host reads exactly what is written.
func takePort() error {
	fd, err := unix.Open(proto.Port, unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", proto.Port, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("read the mode of %s: %w", proto.Port, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("make %s raw: %w", proto.Port, err)
	}
	for n := range 3 {
		if err := unix.Dup3(fd, n, 0); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return unix.Sethostname([]byte("guest"))
}

func insmod(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w (the kernel's log may say why)", path, err)
	}
	return nil
}

// waitFor returns once a file in /dev exists.
func waitFor(path string, limit time.Duration) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for end := time.Now().Add(limit); ; {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%s did not appear within %v", path, limit)
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(left.Milliseconds())+1)
		if err == nil && n > 0 {
			_, err = unix.Read(fd, buf)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// spawn runs the program and returns its exit status as a shell would. It also
// collects orphans, as PID 1 has to.
func spawn(spec *proto.Spec) (int, error) {
	for _, e := range spec.Env {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return proto.StatusInit, err
		}
	}
	path, err := exec.LookPath(spec.Argv[0])
	if err != nil {
		return proto.StatusInit, err
	}
	p, err := os.StartProcess(path, spec.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return proto.StatusInit, fmt.Errorf("start %s: %w", path, err)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return proto.StatusInit, fmt.Errorf("wait for %s: %w", path, err)
		case pid != p.Pid:
		case ws.Signaled():
			return 128 + int(ws.Signal()), fmt.Errorf("%s was killed: %v", path, ws.Signal())
		default:
			return ws.ExitStatus(), nil
		}
	}
}

// killAll kills every other process and collects it.
func killAll() {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil {
		return // none left
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
