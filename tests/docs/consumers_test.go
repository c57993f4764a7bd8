// SPDX-License-Identifier: GPL-2.0-only

package docs

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// block returns the only fenced block of a language below a heading of a document.
func block(t *testing.T, text, heading, language string) string {
	t.Helper()
	_, part, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	_, code, ok := strings.Cut(part, "\n```"+language+"\n")
	if !ok {
		t.Fatalf("there is no block of %s below %q", language, heading)
	}
	code, rest, _ := strings.Cut(code, "\n```\n")
	if strings.Contains(rest, "\n```"+language+"\n") {
		t.Fatalf("there is more than one block of %s below %q", language, heading)
	}
	return code + "\n"
}

// buildGo builds a program as a part of the project's module, so that it needs none
// of its own.
func buildGo(t *testing.T, code string) (path string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{
		"Replace": map[string]string{filepath.Join(root(t), "cmd/documented/main.go"): source},
	})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", path, "./cmd/documented")
	cmd.Dir = root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// The README's Go code compiles.
func TestReadmeGo(t *testing.T) {
	t.Parallel()
	code := block(t, read(t, "README.md"), "## Use", "go")
	buildGo(t, `package main

import (
	"context"
	"fmt"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func run(ctx context.Context) error {
`+code+"return nil\n}\n")
}

// quick is the sign of life that the consumers ask for here, instead of one a minute.
const quick = 500 * time.Millisecond

// impatient returns a program that asks for signs of life more often.
func impatient(t *testing.T, code string) string {
	t.Helper()
	const minute = "60000"
	if strings.Count(code, minute) != 1 {
		t.Fatalf("the program does not have %s once", minute)
	}
	return strings.Replace(code, minute, strconv.FormatInt(quick.Milliseconds(), 10), 1)
}

// consumers are the programs of docs/consumers.md.
var consumers = []struct {
	name  string
	idle  time.Duration                                  // which it asks for
	start func(t *testing.T, doc string) (argv []string) // the command line without the socket
	want  string
}{
	{"C", quick, startC, wantPlain},
	{"Python", quick, startPython, wantPlain},
	{"Rust", quick, startRust, wantPlain},
	{"shell", 0, startShell, wantShell},
	{"Go", 0, func(t *testing.T, doc string) []string { return []string{buildGo(t, block(t, doc, "## Go", "go"))} }, wantGo},
}

func startC(t *testing.T, doc string) []string {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("skipped: there is no gcc; on Debian: apt-get install gcc libc6-dev")
	}
	s, err := repo.Newest()
	if err != nil {
		t.Fatal(err)
	}
	// where the package installs them
	dir := t.TempDir()
	err = os.Mkdir(filepath.Join(dir, "scoutfs"), 0o755)
	for name, text := range map[string]string{
		"scoutfs/notify_ioctl.h":  s.Header(),
		"scoutfs/notify_socket.h": read(t, "packaging/include/scoutfs/notify_socket.h"),
		"consumer.c":              impatient(t, block(t, doc, "## C", "c")),
	} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "consumer")
	cmd := exec.CommandContext(t.Context(), cc, "-Wall", "-Wextra", "-Werror", "-O2", "-I", dir, "-o", program, filepath.Join(dir, "consumer.c"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{program}
}

func startPython(t *testing.T, doc string) []string {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("skipped: there is no python3; on Debian: apt-get install python3")
	}
	program := filepath.Join(t.TempDir(), "consumer.py")
	if err := os.WriteFile(program, []byte(impatient(t, block(t, doc, "## Python", "python"))), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{python, program}
}

// startRust takes Debian's compiler, which is as old as the program may need.
func startRust(t *testing.T, doc string) []string {
	const rustc = "/usr/bin/rustc"
	if _, err := os.Stat(rustc); err != nil {
		t.Skip("skipped: there is no rustc; on Debian: apt-get install rustc")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "consumer.rs"), filepath.Join(dir, "consumer")
	if err := os.WriteFile(source, []byte(impatient(t, block(t, doc, "## Rust", "rust"))), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), rustc, "--edition", "2021", "-D", "warnings", "-O", "-o", program, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{program}
}

func startShell(t *testing.T, doc string) []string {
	for _, tool := range []string{"bash", "jq", "shellcheck"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skipped: %v; on Debian: apt-get install bash jq shellcheck", err)
		}
	}
	dir := t.TempDir()
	if err := vm.BuildProgram(t.Context(), "./cmd/scoutfs-notify", filepath.Join(dir, "scoutfs-notify")); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "consumer.sh")
	if err := os.WriteFile(program, []byte(block(t, doc, "## Shell", "bash")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "shellcheck", "--shell=bash", program).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
	return []string{"env", "PATH=" + dir + ":" + os.Getenv("PATH"), "bash", program}
}

const wantPlain = `ended (reason 6)
mount 00000000000000aa
open ino 7 uid 1000
read ino 7 uid 1000 offset 4096 length 100
lost 2 (cause 2)
open ino 7 uid 1000
lost at most 1 (cause 1)
no sign of life
lost 3 (cause 3)
ended (reason 2)
mount 00000000000000aa
lost 7 and maybe more (cause 12)
open ino 7 uid 1000
broke off
mount 00000000000000aa
broke off
mount 00000000000000aa
lost 4 (cause 4)
ended (reason 1)
mount 00000000000000bb
lost 0 and maybe more (cause 12)
open ino 7 uid 1000
ended (reason 3)
`

const wantGo = `waiting: connect to SOCKET: scoutfs-notifyd is not running
mount 00000000000000aa
open ino 7 uid 1000
read ino 7 uid 1000 offset 4096 length 100
lost 2 records (queue)
open ino 7 uid 1000
lost at most 1 record (kernel)
lost 3 records (kernel+queue)
ended: scoutfs-notifyd was stopped
mount 00000000000000aa
lost 7 records, and maybe any number besides (away+unattended)
open ino 7 uid 1000
waiting: receive records: unexpected EOF: scoutfs-notifyd was killed
mount 00000000000000aa
waiting: receive records: unexpected EOF: scoutfs-notifyd was killed
mount 00000000000000aa
lost 4 records (away)
ended: the file system was unmounted
mount 00000000000000bb
may have lost any number of records (away+unattended)
open ino 7 uid 1000
ended: scoutfs-notifyd is restarting
`

const wantShell = `waiting: connect to SOCKET: scoutfs-notifyd is not running
mount 00000000000000aa
open ino 7 uid 1000
read ino 7 uid 1000 offset 4096 length 100
lost 2 (queue)
open ino 7 uid 1000
lost at most 1 (kernel)
lost 3 (kernel+queue)
ended: scoutfs-notifyd was stopped
mount 00000000000000aa
lost 7 and maybe more (away+unattended)
open ino 7 uid 1000
waiting: receive records: unexpected EOF: scoutfs-notifyd was killed
mount 00000000000000aa
waiting: receive records: unexpected EOF: scoutfs-notifyd was killed
mount 00000000000000aa
lost 4 (away)
ended: the file system was unmounted
mount 00000000000000bb
lost 0 and maybe more (away+unattended)
open ino 7 uid 1000
ended: scoutfs-notifyd is restarting
`

// The programs of docs/consumers.md say all that a daemon tells them, over restarts,
// crashes and remounts, and that of a silent one.
func TestConsumers(t *testing.T) {
	t.Parallel()
	doc := read(t, "docs/consumers.md")
	for _, tt := range consumers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			argv := tt.start(t, doc)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()

			for _, path := range wrongPaths(t, tt.idle > 0) {
				wrong := exec.CommandContext(ctx, argv[0], append(slices.Clone(argv[1:]), path)...)
				if out, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(out), path) {
					t.Errorf("with %s in place of the socket: %v, %s", path, err, out)
				}
			}
			// t.TempDir's paths are too long for a socket.
			dir, err := os.MkdirTemp("", "consumer")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, notify.SocketName)
			cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], path)...)
			var out, errs watched
			silent := out.when(func(text string) bool { return strings.Contains(text, "no sign of life\n") })
			whole := out.when(func(text string) bool { return len(text) >= len(strings.ReplaceAll(tt.want, "SOCKET", path)) })
			waits := func(text string) bool { return strings.Contains(text, "waiting") }
			outWaits, errWaits := out.when(waits), errs.when(waits)
			cmd.Stdout, cmd.Stderr = &out, &errs
			// The shell's is a group of processes.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stop := func() {
				cancel()
				cmd.Wait()
			}
			// It must wait for a socket that does not exist yet.
			select {
			case <-outWaits:
			case <-errWaits:
			case <-ctx.Done():
				stop()
				t.Fatalf("it does not say that it waits: %s%s", &out.text, &errs.text)
			}
			d := daemon{idle: tt.idle, silent: silent, stop: func() {
				select {
				case <-whole: // a pipeline's last program can be behind
				case <-ctx.Done():
				}
				stop()
			}}
			if tt.idle == 0 {
				d.silent = nil
			}
			err = d.serve(ctx, path)
			stop()
			if err != nil {
				t.Errorf("%v: %s", err, &errs.text)
			}
			if got := strings.ReplaceAll(out.text.String(), path, "SOCKET"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s\nerrors: %s", got, tt.want, &errs.text)
			}
		})
	}
}

// wrongPaths returns paths with which a program must end: what exists and is no socket, and
// where it takes mount points what does not exist and is not the name of a socket.
func wrongPaths(t *testing.T, socketOnly bool) []string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if socketOnly {
		return []string{file, dir}
	}
	return []string{file, filepath.Join(dir, "missing")}
}

// watched keeps what is written to it, and says when that is as it should be.
type watched struct {
	text  strings.Builder
	waits []func(text string)
}

// when returns what is closed when all that was written is as it should be. It must be called
// before something is.
func (w *watched) when(ok func(text string) bool) <-chan struct{} {
	c := make(chan struct{})
	var once sync.Once
	w.waits = append(w.waits, func(text string) {
		if ok(text) {
			once.Do(func() { close(c) })
		}
	})
	return c
}

func (w *watched) Write(b []byte) (int, error) {
	w.text.Write(b)
	for _, wait := range w.waits {
		wait(w.text.String())
	}
	return len(b), nil
}

// daemon acts as one that refuses its first client, loses records in all ways, is silent
// for a while, stopped, killed, and serves another mount in the end.
type daemon struct {
	idle   time.Duration   // that its clients must ask for
	silent <-chan struct{} // it is, until this is closed, unless nil
	stop   func()          // stops the program
}

// stream is what the daemon sends to one connection.
type stream struct {
	resume  notify.Resume // that the client must ask for
	packets [][]notify.Event
}

var streams = func() []stream {
	const a, b = 0xaa, 0xbb
	open := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, Ino: 7, UID: 1000, Type: notify.TypeOpen}
	}
	readOf := func(seq uint64) notify.Event {
		return &notify.Record{Seq: seq, Ino: 7, UID: 1000, Offset: 4096, Length: 100, Type: notify.TypeRead}
	}
	hello := func(rid notify.ID, next uint64) notify.Event {
		return &notify.Hello{Next: next, RID: rid, FSID: 1, Version: notify.Version2}
	}
	lost := func(first, last uint64, cause notify.Cause) *notify.Lost {
		return &notify.Lost{First: first, Last: last, Count: last - first + 1, Cause: cause}
	}
	end := func(seq uint64, why notify.Reason) notify.Event { return &notify.End{Seq: seq, Reason: why} }
	atMost := lost(9, 9, notify.LostKernel)
	atMost.AtMost = true
	restart := lost(13, 19, notify.LostAway|notify.LostUnattended)
	restart.Unknown = true
	remount := &notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended}
	return []stream{
		{notify.Resume{}, [][]notify.Event{{end(0, notify.EndMaxClients)}}},
		{notify.Resume{}, [][]notify.Event{
			{open(1)}, // before the request
			{hello(a, 3), open(3), readOf(4), lost(5, 6, notify.LostQueue)}, {open(7)},
			{&notify.Record{Seq: 8, Type: 99}, &notify.Record{Seq: 77, Type: 0x8fff}, atMost},
			nil, // silence
			{&notify.Idle{Seq: 9}, lost(10, 12, notify.LostKernel|notify.LostQueue), end(12, notify.EndStopping)},
		}},
		{notify.Resume{RID: a, Seq: 12}, [][]notify.Event{{hello(a, 20), restart, open(20)}}},
		// The daemon is killed before it says what was missed.
		{notify.Resume{RID: a, Seq: 20}, [][]notify.Event{{hello(a, 23)}}},
		{notify.Resume{RID: a, Seq: 20}, [][]notify.Event{{hello(a, 25)}, {lost(21, 24, notify.LostAway)}, {end(24, notify.EndUnmounted)}}},
		{notify.Resume{RID: a, Seq: 24}, [][]notify.Event{{hello(b, 1), remount}, {open(1), end(1, notify.EndRestarting)}}},
		{notify.Resume{RID: b, Seq: 1}, nil},
	}
}()

func (d *daemon) serve(ctx context.Context, path string) error {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return err
	}
	defer ln.Close()
	if end, ok := ctx.Deadline(); ok {
		ln.SetDeadline(end)
	}
	// The last one shows that the program has received all of the one before.
	for i, s := range streams {
		conn, err := ln.AcceptUnix()
		if err != nil {
			return fmt.Errorf("the program did not connect for stream %d: %w", i, err)
		}
		err = d.stream(ctx, conn, s)
		if i == len(streams)-1 {
			d.stop() // or it would say that this one broke off
		}
		conn.Close()
		if err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

func (d *daemon) stream(ctx context.Context, conn *net.UnixConn, s stream) error {
	var buf [notify.RequestSize2 + 1]byte
	n, err := conn.Read(buf[:])
	if err != nil {
		return err
	}
	var req notify.Request
	if err := req.UnmarshalBinary(buf[:n]); err != nil {
		return err
	}
	want := notify.Request{Version: notify.Version2, MaxRecords: notify.RingRecords, Idle: d.idle, Resume: s.resume}
	if !reflect.DeepEqual(req, want) {
		return fmt.Errorf("the request is %+v, want %+v", req, want)
	}
	for _, events := range s.packets {
		if events == nil && d.silent != nil {
			select {
			case <-d.silent:
			case <-ctx.Done():
				return errors.New("the program does not notice that nothing comes")
			}
		}
		var b []byte
		for _, ev := range events {
			if b, err = ev.(encoding.BinaryAppender).AppendBinary(b); err != nil {
				return err
			}
		}
		// An empty packet would look like the end.
		if len(b) > 0 {
			if _, err := conn.Write(b); err != nil {
				return err
			}
		}
	}
	return nil
}
