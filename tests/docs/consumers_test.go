// SPDX-License-Identifier: GPL-2.0-only

package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
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
	"fmt"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
	}
}

func run() error {
`+code+"}\n")
}

// The programs of docs/consumers.md receive records, tell losses from restarts, and
// reconnect.
func TestConsumers(t *testing.T) {
	t.Parallel()
	doc := read(t, "docs/consumers.md")
	for _, tt := range []struct {
		name  string
		start func(t *testing.T) []string // returns the command line without the socket
	}{
		{"C", func(t *testing.T) []string {
			cc, err := exec.LookPath("gcc")
			if err != nil {
				t.Skip("there is no gcc; on Debian: apt-get install gcc libc6-dev")
			}
			s, err := repo.Newest()
			if err != nil {
				t.Fatal(err)
			}
			// where the package installs it
			dir := t.TempDir()
			err = os.Mkdir(filepath.Join(dir, "scoutfs"), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "scoutfs/notify_ioctl.h"), []byte(s.Header()), 0o644)
			}
			source := filepath.Join(dir, "consumer.c")
			if err == nil {
				err = os.WriteFile(source, []byte(block(t, doc, "## C", "c")), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(dir, "consumer")
			cmd := exec.CommandContext(t.Context(), cc, "-Wall", "-Wextra", "-Werror", "-O2", "-I", dir, "-o", program, source)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{program}
		}},
		{"Python", func(t *testing.T) []string {
			python, err := exec.LookPath("python3")
			if err != nil {
				t.Skip("there is no python3; on Debian: apt-get install python3")
			}
			program := filepath.Join(t.TempDir(), "consumer.py")
			if err := os.WriteFile(program, []byte(block(t, doc, "## Python", "python")), 0o644); err != nil {
				t.Fatal(err)
			}
			return []string{python, program}
		}},
		{"Go", func(t *testing.T) []string {
			return []string{buildGo(t, block(t, doc, "## Go", "go"))}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			argv := tt.start(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()

			// t.TempDir's paths are too long for a socket.
			dir, err := os.MkdirTemp("", "consumer")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, notify.SocketName)
			cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], path)...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			// It must wait for a socket that does not exist yet.
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			err = serve(ctx, path)
			cancel()
			cmd.Wait()
			if err != nil {
				t.Errorf("%v: %s", err, &errs)
			}
			const want = `open ino 7 uid 1000
read ino 7 uid 1000 offset 4096 length 100
lost 2
open ino 7 uid 1000
open ino 7 uid 1000
connected again, some may be missing
open ino 7 uid 1000
mounted anew
open ino 7 uid 1000
`
			if out.String() != want {
				t.Errorf("got\n%s\nwant\n%s\nerrors: %s", &out, want, &errs)
			}
		})
	}
}

// serve acts as a daemon that refuses its first client, is restarted, and then serves
// another mount.
func serve(ctx context.Context, path string) error {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return err
	}
	defer ln.Close()
	if end, ok := ctx.Deadline(); ok {
		ln.SetDeadline(end)
	}
	open := func(seq uint64) notify.Record {
		return notify.Record{Seq: seq, Ino: 7, UID: 1000, Type: notify.TypeOpen}
	}
	readOf := func(seq uint64) notify.Record {
		return notify.Record{Seq: seq, Ino: 7, UID: 1000, Offset: 4096, Length: 100, Type: notify.TypeRead}
	}
	for _, packets := range [][][]notify.Record{
		nil,
		{{open(1), readOf(2)}, {open(5)}, {{Seq: 6, Type: 99}}, {open(7)}},
		{{open(9)}},
		{{open(1)}},
	} {
		conn, err := ln.AcceptUnix()
		if err != nil {
			return err
		}
		if packets == nil {
			conn.Close() // with the request unread
			continue
		}
		var buf [notify.RequestSize2 + 1]byte
		n, err := conn.Read(buf[:])
		if err != nil {
			return err
		}
		var req notify.Request
		if err := req.UnmarshalBinary(buf[:n]); err != nil {
			return err
		}
		for _, records := range packets {
			var b []byte
			for i := range records {
				b, _ = records[i].AppendBinary(b)
			}
			if _, err := conn.Write(b); err != nil {
				return err
			}
		}
		conn.Close()
	}
	// The program reconnects after the last stream's end, so it has received all of it.
	conn, err := ln.AcceptUnix()
	if err != nil {
		return errors.Join(errors.New("the program did not reconnect"), err)
	}
	return conn.Close()
}
