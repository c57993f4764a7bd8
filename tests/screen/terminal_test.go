// SPDX-License-Identifier: GPL-2.0-only

// Package screen tries the live screen of top in a terminal: a real pty, and a program that
// understands what a terminal is told.
package screen

import (
	"encoding"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// patience is how long something may take on a busy host.
const patience = 30 * time.Second

var command struct {
	sync.Once
	path string
	err  error
}

// build returns the path of the command.
func build(t *testing.T) string {
	t.Helper()
	command.Do(func() {
		var dir string
		if dir, command.err = os.MkdirTemp("", "scoutfs-notify-screen-"); command.err == nil {
			command.path = filepath.Join(dir, "scoutfs-notify")
			command.err = vm.BuildProgram(t.Context(), "./cmd/scoutfs-notify", command.path)
		}
	})
	if command.err != nil {
		t.Fatal(command.err)
	}
	return command.path
}

func TestMain(m *testing.M) {
	status := m.Run()
	if command.path != "" {
		os.RemoveAll(filepath.Dir(command.path))
	}
	os.Exit(status)
}

// daemon is a stand-in for scoutfs-notifyd with one client.
type daemon struct {
	t      *testing.T
	socket string
	ln     *net.UnixListener
	conn   *net.UnixConn // of the client, once it is connected
	ready  chan struct{}
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, socket: filepath.Join(dir, notify.SocketName)}
	if d.ln, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: d.socket, Net: "unixpacket"}); err != nil {
		t.Fatal(err)
	}
	d.accept()
	t.Cleanup(func() {
		d.ln.Close()
		select {
		case <-d.ready:
			d.conn.Close()
		default:
		}
	})
	return d
}

// accept waits for a client in the background, in place of the one before if there was one.
func (d *daemon) accept() {
	ready := make(chan struct{})
	d.ready = ready
	go func() {
		conn, err := d.ln.AcceptUnix()
		if err != nil {
			return
		}
		var b [notify.RequestSize2 + 1]byte
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
		d.conn = conn
		close(ready)
	}()
}

// say sends events to the client.
func (d *daemon) say(events ...notify.Event) {
	d.t.Helper()
	select {
	case <-d.ready:
	case <-time.After(patience):
		d.t.Fatal("no client has connected")
	}
	for len(events) > 0 {
		n := min(len(events), 256)
		var b []byte
		for _, ev := range events[:n] {
			b, _ = ev.(encoding.BinaryAppender).AppendBinary(b)
		}
		if _, err := d.conn.Write(b); err != nil {
			d.t.Fatal(err)
		}
		events = events[n:]
	}
}

func (d *daemon) hello() {
	d.t.Helper()
	d.say(&notify.Hello{Next: 1, Time: time.Now(), FSID: 1, RID: 2, Version: notify.Version2})
}

// terminal is a terminal in which a program runs.
type terminal struct {
	t    *testing.T
	pty  *os.File
	tty  *os.File // the program's side, kept open so that its settings can be looked at
	cmd  *exec.Cmd
	vt   vt10x.Terminal
	done chan struct{} // closed when the program has ended

	mu  sync.Mutex
	raw []byte // all that was written
}

// open makes a terminal of a size.
func open(t *testing.T, cols, rows int) *terminal {
	t.Helper()
	p, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, pty: p, tty: tty, done: make(chan struct{})}
	term.vt = vt10x.New(vt10x.WithSize(cols, rows), vt10x.WithWriter(p))
	if err := pty.Setsize(p, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	return term
}

// start runs the command in a terminal of a size.
func start(t *testing.T, cols, rows int, env []string, args ...string) *terminal {
	t.Helper()
	term := open(t, cols, rows)
	term.run(env, args...)
	return term
}

// run runs the command in the terminal.
func (term *terminal) run(env []string, args ...string) {
	term.t.Helper()
	term.exec(env, build(term.t), args...)
}

// exec runs a program in the terminal.
func (term *terminal) exec(env []string, program string, args ...string) {
	term.t.Helper()
	term.cmd = exec.CommandContext(term.t.Context(), program, args...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = term.tty, term.tty, term.tty
	term.cmd.Env = append([]string{"TERM=xterm-256color", "LANG=C.UTF-8", "TZ=UTC", "HOME=/", "PATH=" + os.Getenv("PATH")}, env...)
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		term.t.Fatal(err)
	}
	go func() {
		term.cmd.Wait()
		close(term.done)
	}()
	go term.read()
	term.t.Cleanup(func() {
		term.cmd.Process.Kill()
		<-term.done
		term.pty.Close()
		term.tty.Close()
	})
}

// read shows what the program writes.
func (term *terminal) read() {
	buf := make([]byte, 32<<10)
	for {
		n, err := term.pty.Read(buf)
		term.mu.Lock()
		term.raw = append(term.raw, buf[:n]...)
		term.mu.Unlock()
		term.vt.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// screen returns the lines that are shown, without blanks at their ends.
func (term *terminal) screen() []string {
	lines := strings.Split(term.vt.String(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return lines
}

// await waits until the screen is as it should be.
func (term *terminal) await(what string, ok func(lines []string) bool) []string {
	term.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		lines := term.screen()
		if ok(lines) {
			return lines
		}
		if time.Now().After(end) {
			term.t.Fatalf("%s: the screen is\n%s\n(written: %q)", what, strings.Join(lines, "\n"), term.written())
		}
	}
}

func (term *terminal) written() []byte {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.raw
}

// shows waits until all texts are on the screen.
func (term *terminal) shows(texts ...string) []string {
	term.t.Helper()
	return term.await(strings.Join(texts, ", "), func(lines []string) bool {
		all := strings.Join(lines, "\n")
		for _, text := range texts {
			if !strings.Contains(all, text) {
				return false
			}
		}
		return true
	})
}

// typed types keys.
func (term *terminal) typed(keys string) {
	term.t.Helper()
	if _, err := term.pty.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// resize changes the size of the terminal.
func (term *terminal) resize(cols, rows int) {
	term.t.Helper()
	term.vt.Resize(cols, rows)
	if err := pty.Setsize(term.pty, &pty.Winsize{Cols: uint16(cols), Rows: uint16(rows)}); err != nil {
		term.t.Fatal(err)
	}
}

// settings are the terminal's, which a program in raw mode changes.
func (term *terminal) settings() unix.Termios {
	term.t.Helper()
	got, err := unix.IoctlGetTermios(int(term.tty.Fd()), unix.TCGETS)
	if err != nil {
		term.t.Fatal(err)
	}
	return *got
}

// ends waits for the end of the program, and returns its exit status.
func (term *terminal) ends() int {
	term.t.Helper()
	select {
	case <-term.done:
	case <-time.After(patience):
		term.t.Fatalf("it has not ended; the screen is\n%s", strings.Join(term.screen(), "\n"))
	}
	return term.cmd.ProcessState.ExitCode()
}
