// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// asDaemon makes the test binary run as scoutfs-notifyd on a fake ring.
const asDaemon = "SCOUTFS_NOTIFYD_TEST"

func TestMain(m *testing.M) {
	if path := os.Getenv(asClient); path != "" {
		os.Exit(clientProcess(path))
	}
	if path := os.Getenv(asParent); path != "" {
		os.Exit(parentProcess(path))
	}
	if os.Getenv(asHeir) != "" {
		os.Exit(heirProcess())
	}
	if err := fallBack(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailure)
	}
	if os.Getenv(asVersion1) != "" {
		protocol = notify.Version1
	}
	if os.Getenv(asDaemon) != "" {
		os.Exit(daemonProcess())
	}
	os.Exit(m.Run())
}

// ringOf has the RID and the last number of a fake ring's mount, if it is not the usual one.
// The index's tests set it.
const ringOf = "SCOUTFS_NOTIFYD_TEST_RING"

// daemonProcess runs the daemon as Main does, with a fake ring. Each line of standard
// input is an order for the ring, which answers with a line when it is done.
func daemonProcess() int {
	ring, err := makeFakeRing()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	if of := os.Getenv(ringOf); of != "" {
		ring.real = true
		if _, err := fmt.Sscan(of, (*uint64)(&ring.mount.RID), &ring.seq); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return exitFailure
		}
	}
	sys := &fakeSystem{ring: ring}
	var table *fakeTable
	if kind := os.Getenv(asDaemon); strings.HasPrefix(kind, "wait") {
		if table, err = makeFakeTable(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return exitFailure
		}
		sys.table = table
		if kind == "waitpermission" {
			table.set(mounted(30, 42, "scoutfs"))
		}
	}
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var n int
			order, arg, _ := strings.Cut(in.Text(), " ")
			fmt.Sscan(arg, &n)
			switch order {
			case "emit":
				ring.emitAll(n)
				ring.settle()
			case "access": // whether there is room or not
				ring.emit(n)
			case "mount":
				table.set(mounted(30, n, "scoutfs"))
			case "unmount":
				if table != nil {
					table.set()
				}
				ring.unmount()
			case "descriptors":
				limitDescriptors(n)
			}
			fmt.Println("done")
		}
	}()
	switch os.Getenv(asDaemon) {
	case "unsupported":
		sys.attachErr = fmt.Errorf("attach: %w", notify.ErrNotSupported)
	case "busy":
		sys.attachErr = fmt.Errorf("attach: %w", notify.ErrBusy)
	case "permission", "waitpermission":
		sys.attachErr = fmt.Errorf("attach: %w", unix.EPERM)
	case "foreign":
		sys.attachErr = fmt.Errorf("identify: %w", notify.ErrNotScoutFS)
	case "missing":
		sys.attachErr = fmt.Errorf("open: %w", os.ErrNotExist)
	}
	return start(os.Args[1:], "1.2.3", os.Stdout, os.Stderr, sys)
}

// limitDescriptors lowers the limit so that free descriptors are left.
func limitDescriptors(free int) {
	limit := 0
	for ; ; limit++ {
		if _, err := unix.FcntlInt(uintptr(limit), unix.F_GETFD, 0); err == unix.EBADF {
			if free == 0 {
				break
			}
			free--
		}
	}
	var rl unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl)
	if err == nil {
		rl.Cur = uint64(limit)
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &rl)
	}
	if err != nil {
		panic(err)
	}
}

// process is a daemon in its own process.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Writer
	out   *bufio.Reader
	log   *logs
	dir   string
	ended chan struct{}
}

// noRaceDelay lets a process built with the race detector exit at once.
const noRaceDelay = "GORACE=atexit_sleep_ms=0"

func daemonCommand(kind string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asDaemon+"="+kind, noRaceDelay)
	return cmd
}

// startProcess starts a daemon with variables added to its environment, and waits
// until it serves.
func startProcess(t *testing.T, cfg *config, env []string, args ...string) *process {
	t.Helper()
	p := launch(t, "serve", cfg, env, args...)
	if p.log.await("msg=serving") == "" {
		t.Fatal("the daemon ended")
	}
	return p
}

// launch starts a daemon.
func launch(t *testing.T, kind string, cfg *config, env []string, args ...string) *process {
	t.Helper()
	args = append(append([]string{"-v", "-interval=1ms", "-run-dir=" + cfg.runDir}, args...), cfg.mountPoint)
	p := &process{
		t: t, cmd: daemonCommand(kind, args...), log: newLogs(), ended: make(chan struct{}),
		dir: filepath.Join(cfg.runDir, testMount.FSID.String()),
	}
	p.cmd.Env = append(p.cmd.Env, env...)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(errs); s.Scan(); {
			p.log.Write(append(s.Bytes(), '\n'))
		}
		p.log.end()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("log of the daemon:\n%v", p.log)
		}
	})
	return p
}

// order sends an order to the process's ring and waits until it is done.
func (p *process) order(format string, a ...any) {
	p.t.Helper()
	fmt.Fprintf(p.in, format+"\n", a...)
	if line, err := p.out.ReadString('\n'); err != nil || line != "done\n" {
		p.t.Fatalf(format+": %q, %v", append(a, line, err)...)
	}
}

// wait waits for the end and returns the exit status, or -1 for a signal.
func (p *process) wait() int {
	<-p.ended
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) socket() string { return filepath.Join(p.dir, notify.SocketName) }

func (p *process) dial() (*notify.Client, error) { return notify.Dial(p.socket()) }

func (p *process) mustDial() *notify.Client {
	p.t.Helper()
	c, err := p.dial()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

func (p *process) checkGone() {
	p.t.Helper()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		p.t.Errorf("left behind: %s", e.Name())
	}
}

func TestProcessEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *process)
	}{
		{"SIGTERM", func(p *process) { p.cmd.Process.Signal(unix.SIGTERM) }},
		{"SIGINT", func(p *process) { p.cmd.Process.Signal(unix.SIGINT) }},
		{"SIGUSR2", func(p *process) { p.cmd.Process.Signal(unix.SIGUSR2) }},
		{"SIGTERM after SIGHUP", func(p *process) {
			p.cmd.Process.Signal(unix.SIGHUP)
			p.awaitLine("SIGHUP changes nothing")
			p.order("emit 0") // it is still there
			p.cmd.Process.Signal(unix.SIGTERM)
		}},
		{"unmount", func(p *process) { p.order("unmount") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProcess(t, testConfig(t), nil)
			c := p.mustDial()
			p.order("emit 2000")
			tt.end(p)
			if status := p.wait(); status != exitOK {
				t.Errorf("exit status %d", status)
			}
			if err := errors.Join(expect(c, 1, 2000), expectEOF(c)); err != nil {
				t.Error(err)
			}
			p.checkGone()
		})
	}
}

// TestLogGone: the daemon survives the end of its log's reader.
func TestLogGone(t *testing.T) {
	cfg := testConfig(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := daemonCommand("serve", "-run-dir="+cfg.runDir, cfg.mountPoint)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, "msg=serving") {
		t.Fatalf("%q, %v", line, err)
	}
	r.Close()
	cmd.Process.Signal(unix.SIGTERM) // it logs that
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit status: %v", err)
	}
}

func TestProcessKilled(t *testing.T) {
	cfg := testConfig(t)
	p := startProcess(t, cfg, nil)
	c := p.mustDial()
	p.order("emit 10")
	p.cmd.Process.Kill()
	p.wait()
	if err := expect(c, 1, 10); err != nil {
		t.Error(err)
	}
	if rec, err := c.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the client takes it for a regular end: %+v, %v", rec, err)
	}
	if _, err := os.Lstat(p.socket()); err != nil {
		t.Fatalf("the killed daemon should have left its socket: %v", err)
	}
	if _, err := p.dial(); !errors.Is(err, notify.ErrNotRunning) {
		t.Errorf("connect to a dead daemon: %v", err)
	}
	// Even a failed start removes the dead daemon's files, which look like a live one's.
	failing := daemonCommand("unsupported", "-run-dir="+cfg.runDir, cfg.mountPoint)
	if out, err := failing.CombinedOutput(); failing.ProcessState.ExitCode() != exitConfig {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range []string{notify.StateName, notify.MetricsName, notify.LockName} {
		if _, err := os.Lstat(filepath.Join(p.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after a failed start: %v", name, err)
		}
	}
	next := startProcess(t, cfg, nil)
	c = next.mustDial()
	next.order("emit 10")
	if err := expect(c, 1, 10); err != nil {
		t.Error(err)
	}
}

// TestLogUnread: a log that nobody reads delays neither clients nor the end.
func TestLogUnread(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	ring := newFakeRing(t)
	cfg := testConfig(t)
	direct := newLogger(w, w, true)
	queue := newLogQueue(w, func(lost uint64) { direct.Warn("lost", "lines", lost) })
	cfg.log = newLogger(w, queue, true)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, cfg, &fakeSystem{ring: ring})
		close(done)
	}()
	defer func() {
		stop()
		<-done
		w.Close()
		r.Close()
		queue.close()
	}()
	if _, err := r.Read(make([]byte, 1)); err != nil { // it serves
		t.Fatal(err)
	}
	path := filepath.Join(cfg.runDir, testMount.FSID.String(), notify.SocketName)
	c, err := notify.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Each client logs a line or two, far more than fit in the queue and the pipe.
	for range 2 * logBacklog {
		other, err := notify.Dial(path)
		if errors.Is(err, notify.ErrRefused) {
			continue // too many at once
		}
		if err != nil {
			t.Fatal(err)
		}
		other.Close()
	}
	ring.emit(10)
	if err := expect(c, 1, 10); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if queue.lost.Load() == 0 {
		t.Error("no line was lost: this test is too short")
	}
}

func TestSecondDaemon(t *testing.T) {
	cfg := testConfig(t)
	p := startProcess(t, cfg, nil)

	var stderr bytes.Buffer
	cmd := daemonCommand("serve", "-run-dir="+cfg.runDir, "/mnt/other")
	cmd.Stderr = &stderr
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != exitBusy {
		t.Errorf("exit status: %v", err)
	}
	want := fmt.Sprintf("process %d at mount point %s", p.cmd.Process.Pid, cfg.mountPoint)
	if !strings.Contains(stderr.String(), want) {
		t.Errorf("the message does not say %s: %s", want, &stderr)
	}

	c := p.mustDial()
	p.order("emit 10")
	if err := expect(c, 1, 10); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

func TestExitStatus(t *testing.T) {
	cfg := testConfig(t)
	file := filepath.Join(cfg.runDir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(cfg.runDir, "wide")
	if err := errors.Join(os.Mkdir(wide, 0o700), os.Chmod(wide, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		kind   string
		args   []string
		status int
		want   string // part of the output
	}{
		{"help", "serve", []string{"-help"}, 0, "Usage: scoutfs-notifyd"},
		{"version", "serve", []string{"--version"}, 0, "scoutfs-notifyd 1.2.3"},
		{"no mount point", "serve", nil, 64, "a mount point is missing"},
		{"two mount points", "serve", []string{"a", "b"}, 64, "expected one mount point, got 2"},
		{"flag after the mount point", "serve", []string{"a", "-v"}, 64, "flags come before the mount point"},
		{"unknown flag", "serve", []string{"-x", "a"}, 64, "-x"},
		{"strange flag", "serve", []string{"-\x1b[2J\u202e", "a"}, 64, `-\x1b[2J\xe2\x80\xae`},
		{"strange directory", "serve", []string{"-run-dir=" + cfg.runDir + "/\x1b[2J\u202e\xff\n/x", "a"}, 1, `/\x1b[2J\u202e\xff\n/x`},
		{"pause", "serve", []string{"-pause=2s", "a"}, 64, `"2s" for flag -pause: out of range: 0s to 1s`},
		{"negative pause", "serve", []string{"-pause=-1ms", "a"}, 64, `"-1ms" for flag -pause: out of range`},
		{"pause without unit", "serve", []string{"-pause=1", "a"}, 64, `"1" for flag -pause: a duration is a number with a unit, such as 500us or 2s`},
		{"no clients", "serve", []string{"-max-clients=0", "a"}, 64, `"0" for flag -max-clients: out of range: 1 or more`},
		{"small queue", "serve", []string{"-sndbuf=1000", "a"}, 64, `"1000" for flag -sndbuf: out of range: 131072 to 1073741823`},
		{"large queue", "serve", []string{"-sndbuf=1073741824", "a"}, 64, `"1073741824" for flag -sndbuf: out of range`},
		{"interval", "serve", []string{"-interval=0s", "a"}, 64, `"0s" for flag -interval: out of range`},
		{"sweep with a mount point", "serve", []string{"-sweep", "a"}, 64, "-sweep takes no mount point"},
		{"not escaped", "serve", []string{"-escaped", `mnt\a`}, 64, "not escaped as systemd-escape --path prints it"},
		{"wait without permission", "waitpermission", []string{"-wait", "/mnt/scoutfs"}, 77, "CAP_SYS_ADMIN"},
		{"empty mount point", "serve", []string{""}, 64, "the mount point is an empty string"},
		{"empty run directory", "serve", []string{"-run-dir=", "a"}, 64, "-run-dir is an empty string"},
		{"unsupported", "unsupported", []string{"/mnt"}, 78, "scoutfs-notify-kmod-v"},
		{"not ScoutFS", "foreign", []string{"/mnt"}, 78, "mount the file system first"},
		{"not mounted", "missing", []string{"/mnt"}, 78, "not a mounted ScoutFS"},
		{"busy", "busy", []string{"/mnt"}, 75, "another reader is attached"},
		{"permission", "permission", []string{"/mnt"}, 77, "CAP_SYS_ADMIN"},
		{"run directory is a file", "serve", []string{"-run-dir=" + file, "/mnt"}, 1, "not a directory"},
		{"run directory of others", "serve", []string{"-run-dir=" + wide, "/mnt"}, 77, "others could replace the socket"},
		{"no parent", "serve", []string{"-run-dir=" + file + "/a/b", "/mnt"}, 1, "make run directory"},
		{"long path", "serve", []string{"-run-dir=" + cfg.runDir + "/" + strings.Repeat("x", 100), "/mnt"}, 1, "choose a shorter run directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.kind != "serve" {
				args = append([]string{"-run-dir=" + cfg.runDir}, args...)
			}
			cmd := daemonCommand(tt.kind, args...)
			out, err := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tt.status {
				t.Errorf("exit status %d, want %d: %v", status, tt.status, err)
			}
			if i := bytes.IndexFunc(out, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("it prints %q", out[i:])
			}
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("no %q in\n%s", tt.want, out)
			}
		})
	}
}

// TestDescriptorsRunOut: without descriptors the daemon refuses new clients and serves
// those it has; when there are descriptors again it accepts new ones.
func TestDescriptorsRunOut(t *testing.T) {
	p := startProcess(t, testConfig(t), nil)
	first := p.mustDial()
	p.order("emit 1") // a client that gets this was accepted
	if err := expect(first, 1, 1); err != nil {
		t.Fatal(err)
	}
	// A new client needs one.
	p.order("descriptors 2")

	var accepted []*notify.Client
	refused, emitted := 0, uint64(1)
	for refused < 3 {
		c, err := p.dial()
		if errors.Is(err, notify.ErrRefused) {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p.order("emit 1")
		emitted++
		if _, err := c.Next(); errors.Is(err, notify.ErrRefused) {
			refused++
			c.Close()
		} else if err != nil {
			t.Fatal(err)
		} else {
			accepted = append(accepted, c)
		}
		if len(accepted) > 3 {
			t.Fatal("descriptors do not run out")
		}
	}
	if len(accepted) == 0 {
		t.Error("no client was accepted")
	}
	if p.log.await("cannot accept clients", "too many open files") == "" {
		t.Error("no log line")
	}

	// The first client has received everything.
	if err := expect(first, 2, emitted); err != nil {
		t.Error(err)
	}
	// Without a descriptor even for checking clients, they are still refused at once.
	p.order("descriptors 0")
	for range 3 {
		c, err := p.dial()
		if err == nil {
			c.SetReadDeadline(time.Now().Add(pauseTime / 2))
			_, err = c.Next()
			c.Close()
		}
		if !errors.Is(err, notify.ErrRefused) {
			t.Errorf("without any descriptor: %v", err)
		}
	}
	// After one has left, there is room again.
	accepted[0].Close()
	p.awaitLine("client leaves")
	p.order("descriptors 2")
	again := p.mustDial()
	p.order("emit 1")
	if r, err := again.Next(); err != nil {
		t.Errorf("after one has left: %+v, %v", r, err)
	}
}

func (p *process) awaitLine(parts ...string) {
	p.t.Helper()
	if p.log.await(parts...) == "" {
		p.t.Fatalf("the daemon ended before it logged %q", parts)
	}
}

// manager returns the service manager's end of NOTIFY_SOCKET.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// receiveStatus waits for a message to the service manager. Only states and signs of
// life may come before it.
func receiveStatus(t *testing.T, conn *net.UnixConn, want string) {
	t.Helper()
	pattern := regexp.MustCompile(`(?s)^` + want + `$`)
	var b [4096]byte
	for {
		n, err := conn.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		if msg := string(b[:n]); pattern.MatchString(msg) {
			return
		} else if !strings.HasPrefix(msg, "STATUS=") && msg != "WATCHDOG=1" {
			t.Fatalf("got %q, want %q", msg, want)
		}
	}
}

// TestWaitServiceManager: to the manager a daemon that waits is ready, and alive.
func TestWaitServiceManager(t *testing.T) {
	cfg := testConfig(t)
	socket := filepath.Join(cfg.runDir, "manager.sock")
	conn := manager(t, socket)
	receive := func(want string) {
		t.Helper()
		receiveStatus(t, conn, want)
	}
	p := launch(t, "wait", cfg, []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=20000"}, "-wait")
	receive(`READY=1\nSTATUS=waiting for a ScoutFS at "/mnt/scoutfs"\nWATCHDOG=1`)
	for range 3 {
		receive(`WATCHDOG=1`)
	}
	p.order("mount 42")
	receive(`STATUS=serving "/mnt/scoutfs": 0 clients, .*\nWATCHDOG=1`)
	p.order("emit 3")
	receive(`STATUS=serving "/mnt/scoutfs": 0 clients, 3 records, .*`)
	for range 3 {
		receive(`WATCHDOG=1`)
	}
	p.order("unmount")
	receive(`STATUS=waiting for a ScoutFS at "/mnt/scoutfs"\nWATCHDOG=1`)
	for range 3 {
		receive(`WATCHDOG=1`)
	}
	p.checkGone()
	p.cmd.Process.Signal(unix.SIGHUP)
	p.awaitLine("SIGHUP changes nothing")
	p.cmd.Process.Signal(unix.SIGUSR2)
	receive(`STOPPING=1`)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestWaitEnds: signals end a daemon that waits or, having waited, serves.
func TestWaitEnds(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGUSR2} {
		for _, serving := range []bool{false, true} {
			p := launch(t, "wait", testConfig(t), nil, "-wait")
			p.awaitLine("waiting for a ScoutFS")
			if serving {
				p.order("mount 42")
				p.awaitLine("msg=serving")
			}
			p.cmd.Process.Signal(signal)
			if status := p.wait(); status != exitOK {
				t.Errorf("%v, serving %v: exit status %d", signal, serving, status)
			}
			if left := files(t, p.dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
}

// TestSignals: the cause of the end says whether the daemon is to be started again.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		signal unix.Signal
		want   error
	}{{unix.SIGTERM, errStopping}, {unix.SIGINT, errStopping}, {unix.SIGUSR2, errRestarting}} {
		log := newLogs()
		ctx, cancel := takeSignals(log.logger())
		unix.Kill(os.Getpid(), unix.SIGHUP)
		log.await("SIGHUP changes nothing")
		if err := ctx.Err(); err != nil {
			t.Errorf("after SIGHUP: %v", err)
		}
		unix.Kill(os.Getpid(), tt.signal)
		<-ctx.Done()
		if err := context.Cause(ctx); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v, want %v", tt.signal, err, tt.want)
		}
		cancel()
	}
}

// TestSweepProcess: -sweep removes what a killed daemon left, and nothing of others.
func TestSweepProcess(t *testing.T) {
	cfg := testConfig(t)
	p := startProcess(t, cfg, nil)
	sweep := func() string {
		t.Helper()
		out, err := daemonCommand("serve", "-run-dir="+cfg.runDir, "-sweep").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return string(out)
	}
	before := files(t, p.dir)
	if out := sweep(); out != "" || !slices.Equal(files(t, p.dir), before) {
		t.Errorf("below a living daemon: %s%v", out, files(t, p.dir))
	}
	p.cmd.Process.Kill()
	p.wait()
	if out := sweep(); !strings.Contains(out, "removed the files of a daemon that was killed") {
		t.Errorf("it says %q", out)
	}
	p.checkGone()
}

func TestServiceManager(t *testing.T) {
	cfg := testConfig(t)
	for _, tt := range []struct{ name, socket string }{
		{"path", filepath.Join(cfg.runDir, "manager.sock")},
		{"abstract", fmt.Sprintf("@scoutfs-notifyd-test-%d", os.Getpid())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := manager(t, tt.socket)
			receive := func(want string) {
				t.Helper()
				receiveStatus(t, conn, want)
			}
			p := startProcess(t, cfg, []string{"NOTIFY_SOCKET=" + tt.socket, "WATCHDOG_USEC=20000"})
			receive(`READY=1\nSTATUS=serving "/mnt/scoutfs": 0 clients, 0 records, 0 dropped by the kernel, 0 lost by clients\nWATCHDOG=1`)
			p.mustDial()
			p.order("emit 3")
			receive(`STATUS=serving "/mnt/scoutfs": 1 clients, 3 records, 0 dropped by the kernel, 0 lost by clients`)
			// Watchdog messages come while the daemon is idle.
			for range 3 {
				receive(`WATCHDOG=1`)
			}
			p.cmd.Process.Signal(unix.SIGTERM)
			receive(`STOPPING=1`)
			if status := p.wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      string
	}{
		{"", "", "0s"},
		{"20000", "", "10ms"},
		{"20000", fmt.Sprint(os.Getpid()), "10ms"},
		{"20000", "1", "0s"},
		{"-1", "", "0s"},
		{"x", "", "0s"},
		{"9223372036854775807", "", "0s"},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := watchdogInterval(); got.String() != tt.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %s", tt.usec, tt.pid, got, tt.want)
		}
	}
}

// TestJournal: lines for the journal have priorities and no times.
func TestJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	journal := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for _, tt := range []struct {
		stream string
		level  slog.Level
		want   string
	}{
		{"", slog.LevelInfo, `^time=\S+ level=INFO msg=hello level=x\n$`},
		{"1:1", slog.LevelInfo, `^time=\S+ level=INFO msg=hello level=x\n$`},
		{journal, slog.LevelDebug, `^<7>level=DEBUG msg=hello level=x\n$`},
		{journal, slog.LevelInfo, `^<6>level=INFO msg=hello `},
		{journal, slog.LevelWarn, `^<4>level=WARN msg=hello `},
		{journal, slog.LevelError, `^<3>level=ERROR msg=hello `},
	} {
		t.Setenv("JOURNAL_STREAM", tt.stream)
		newLogger(w, w, true).Log(context.Background(), tt.level, "hello", "level", "x")
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(tt.want).MatchString(line) {
			t.Errorf("JOURNAL_STREAM=%s: %s", tt.stream, line)
		}
	}
}
