// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var sampleRecords = []notify.Record{
	{Seq: 5, TimeNS: 1700000000123456789, Ino: 42, PID: 7, TID: 7, UID: 1000, GID: 100, OpenFlags: unix.O_RDWR | unix.O_CREAT | 0x8000, Type: notify.TypeOpen},
	{Seq: 6, TimeNS: 1700000000123457000, Ino: 42, Offset: 4096, Length: 100, PID: 7, TID: 8, UID: 0, GID: 0, OpenFlags: 0x8000, Type: notify.TypeRead},
	{Seq: 24, TimeNS: 1700000001000000000, Ino: 1<<64 - 1, Offset: 1 << 63, Length: 1<<64 - 1, PID: 1<<32 - 1, TID: 1, UID: 1<<32 - 1, GID: 1<<32 - 1, OpenFlags: 1<<32 - 1, Type: notify.TypeRead, Flags: 65535},
	{Seq: 26, TimeNS: 0, Type: 9},
}

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		recs []notify.Record
		want string
	}{
		{"nothing", nil, nil, ""},
		{"text", nil, sampleRecords[:3], `22:13:20.123456 open ino 42 pid 7 uid 1000 gid 100 flags O_RDWR|O_CREAT
22:13:20.123457 read ino 42 offset 4096 length 100 pid 7 tid 8 uid 0 gid 0 flags O_RDONLY
lost 17 records
22:13:21.000000 read ino 18446744073709551615 offset 9223372036854775808 length 18446744073709551615 pid 4294967295 tid 1 uid 4294967295 gid 4294967295 flags ` + allFlags + "\n"},
		{"one lost", nil, sampleRecords[2:], `22:13:21.000000 read ino 18446744073709551615 offset 9223372036854775808 length 18446744073709551615 pid 4294967295 tid 1 uid 4294967295 gid 4294967295 flags ` + allFlags + `
lost 1 record
00:00:00.000000 type9 ino 0 pid 0 uid 0 gid 0 flags O_RDONLY
`},
		{"count", []string{"-n", "1"}, sampleRecords, `22:13:20.123456 open ino 42 pid 7 uid 1000 gid 100 flags O_RDWR|O_CREAT
`},
		{"json", []string{"-json"}, sampleRecords[1:], `{"seq":6,"time_ns":1700000000123457000,"ino":42,"offset":4096,"length":100,"pid":7,"tid":8,"uid":0,"gid":0,"open_flags":32768,"type":"read","flags":0,"time":"2023-11-14T22:13:20.123457Z"}
{"type":"lost","count":17,"seq":7}
{"seq":24,"time_ns":1700000001000000000,"ino":18446744073709551615,"offset":9223372036854775808,"length":18446744073709551615,"pid":4294967295,"tid":1,"uid":4294967295,"gid":4294967295,"open_flags":4294967295,"type":"read","flags":65535,"time":"2023-11-14T22:13:21Z"}
{"type":"lost","count":1,"seq":25}
{"seq":26,"time_ns":0,"ino":0,"offset":0,"length":0,"pid":0,"tid":0,"uid":0,"gid":0,"open_flags":0,"type":"type9","flags":0,"time":"1970-01-01T00:00:00Z"}
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := fakeDaemon(t, func(conn *net.UnixConn) {
				// No records would be an empty packet, which ends the stream.
				if len(tt.recs) > 0 {
					sendAll(conn, tt.recs...)
				}
			})
			args := append([]string{"tail"}, append(tt.args, socket)...)
			status, stdout, stderr := runCommand(args...)
			// The end of the stream is reported; reaching -n is not.
			end := "scoutfs-notify: tail " + socket + ": the stream ended: the file system was unmounted, or scoutfs-notifyd was stopped or restarted\n"
			if tt.name == "count" {
				end = ""
			}
			if status != 0 || stderr != end {
				t.Errorf("exit status %d, %s", status, stderr)
			}
			if stdout != tt.want {
				t.Errorf("got\n%s\nwant\n%s", stdout, tt.want)
			}
			if len(tt.args) == 1 {
				for line := range strings.Lines(stdout) {
					var m map[string]any
					if err := json.Unmarshal([]byte(line), &m); err != nil {
						t.Errorf("%s: %v", line, err)
					}
				}
			}
		})
	}
}

const allFlags = "O_ACCMODE|O_SYNC|O_TMPFILE|O_APPEND|O_ASYNC|O_CLOEXEC|O_CREAT|O_DIRECT|O_EXCL|O_NOATIME|O_NOCTTY|O_NOFOLLOW|O_NONBLOCK|O_TRUNC|FMODE_EXEC|0xffa0001c"

func TestTailProtocolError(t *testing.T) {
	socket := fakeDaemon(t, func(conn *net.UnixConn) {
		sendAll(conn, sampleRecords[0])
		conn.Write([]byte("rubbish"))
	})
	status, stdout, stderr := runCommand("tail", socket)
	if status != 1 || !strings.HasPrefix(stdout, "22:13:20.123456 open ino 42") || !strings.Contains(stderr, "not a stream of records") {
		t.Errorf("exit status %d, output %q, errors %q", status, stdout, stderr)
	}
}

func TestTailRefused(t *testing.T) {
	dir := fakeDaemonRefusing(t)
	status, _, stderr := runCommand("tail", dir)
	if status != 1 || !strings.Contains(stderr, "refused the connection") || !strings.Contains(stderr, "journalctl -u 'scoutfs-notifyd@*'") {
		t.Errorf("exit status %d, errors %q", status, stderr)
	}
}

// fakeDaemonRefusing closes connections without reading the request.
func fakeDaemonRefusing(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: dir + "/" + notify.SocketName, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return ln.Addr().String()
}

// TestTailProcess runs tail as a process: lines come out while the stream is idle, and
// it exits with 0 on a signal or a closed pipe.
func TestTailProcess(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(cmd *os.Process, stdout io.Closer)
	}{
		{"interrupt", func(p *os.Process, _ io.Closer) { p.Signal(os.Interrupt) }},
		{"terminate", func(p *os.Process, _ io.Closer) { p.Signal(unix.SIGTERM) }},
		{"closed pipe", func(_ *os.Process, stdout io.Closer) { stdout.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			release := make(chan struct{})
			socket := fakeDaemon(t, func(conn *net.UnixConn) {
				sendAll(conn, sampleRecords[0])
				<-release
			})
			defer close(release)
			cmd := commandLine("tail", socket)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil || !strings.Contains(line, "open ino 42") {
				t.Errorf("got %q, %v", line, err)
			}
			tt.end(cmd.Process, stdout)
			if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
				t.Errorf("%v, errors %q", err, &stderr)
			}
		})
	}
}

func TestFlagNames(t *testing.T) {
	for _, tt := range []struct {
		flags uint32
		want  string
	}{
		{0, "O_RDONLY"},
		{largefile, "O_RDONLY"},
		{unix.O_WRONLY | unix.O_APPEND, "O_WRONLY|O_APPEND"},
		{unix.O_RDWR | unix.O_SYNC, "O_RDWR|O_SYNC"},
		{unix.O_RDWR | unix.O_DSYNC, "O_RDWR|O_DSYNC"},
		{unix.O_TMPFILE | unix.O_RDWR, "O_RDWR|O_TMPFILE"},
		{unix.O_DIRECTORY, "O_RDONLY|O_DIRECTORY"},
		{0x20, "O_RDONLY|FMODE_EXEC"},
		{3 | 1<<31, "O_ACCMODE|0x80000000"},
	} {
		if got := flagNames(tt.flags); got != tt.want {
			t.Errorf("%#x: %s, want %s", tt.flags, got, tt.want)
		}
	}
}
