// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var sampleRecords = []notify.Record{
	{Seq: 5, TimeNS: 1700000000123456789, Ino: 42, PID: 7, TID: 7, UID: 1000, GID: 100, OpenFlags: unix.O_RDWR | unix.O_CREAT | 0x8000, Type: notify.TypeOpen},
	{Seq: 6, TimeNS: 1700000000123457000, Ino: 42, Offset: 4096, Length: 100, PID: 7, TID: 8, UID: 0, GID: 0, OpenFlags: 0x8000, Type: notify.TypeRead},
	{Seq: 24, TimeNS: 1700000001000000000, Ino: 1<<64 - 1, Offset: 1 << 63, Length: 1<<64 - 1, PID: 1<<32 - 1, TID: 1, UID: 1<<32 - 1, GID: 1<<32 - 1, OpenFlags: 1<<32 - 1, Type: notify.TypeRead, Flags: 65535},
}

const unmounted = "the stream ended: the file system was unmounted"

func TestTail(t *testing.T) {
	lost := &notify.Lost{First: 7, Last: 23, Count: 17, Cause: notify.LostQueue, Time: fakeNow}
	lostAtEnd := &notify.Lost{First: 25, Last: 30, Count: 6, AtMost: true, Unknown: true, Cause: notify.LostKernel | notify.LostAway, Time: fakeNow}
	idle := &notify.Idle{Seq: 30, Time: fakeNow}
	end := &notify.End{Seq: 30, Reason: notify.EndUnmounted, Time: fakeNow}
	all := append(records(sampleRecords[:2]...), lost, &sampleRecords[2], lostAtEnd, idle, end)
	for _, tt := range []struct {
		name   string
		args   []string
		events []notify.Event
		want   string
		end    string // on stderr, "" for nothing
	}{
		{"nothing", nil, []notify.Event{&notify.End{Seq: 4, Reason: notify.EndRestarting}}, "", "the stream ended: scoutfs-notifyd is restarting"},
		{"text", []string{"-idle", "1h"}, all, `22:13:20.123456 open ino 42 pid 7 uid 1000 gid 100 flags O_RDWR|O_CREAT
22:13:20.123457 read ino 42 offset 4096 length 100 pid 7 tid 8 uid 0 gid 0 flags O_RDONLY
lost 17 records (queue)
22:13:21.000000 read ino 18446744073709551615 offset 9223372036854775808 length 18446744073709551615 pid 4294967295 tid 1 uid 4294967295 gid 4294967295 flags ` + allFlags + `
lost 6 records, and maybe any number besides (kernel+away)
22:13:22.000000 idle, told up to number 30
`, unmounted},
		{"unknown type", nil, []notify.Event{&notify.Record{Seq: 5, Type: 9}, &notify.Record{Seq: 6, Type: 0x8fff}, &notify.End{Seq: 5, Reason: notify.EndUnmounted}},
			"00:00:00.000000 type9 ino 0 pid 0 uid 0 gid 0 flags O_RDONLY\n", unmounted},
		{"loss alone", nil, []notify.Event{&notify.Lost{First: 5, Last: 5, Count: 1, Cause: notify.LostKernel}, &notify.End{Seq: 5, Reason: notify.EndStopping}},
			"lost 1 record (kernel)\n", "the stream ended: scoutfs-notifyd was stopped"},
		{"count", []string{"-count", "1"}, all, `22:13:20.123456 open ino 42 pid 7 uid 1000 gid 100 flags O_RDWR|O_CREAT
`, ""},
		{"count after a loss", []string{"-count", "3"}, all[:4], `22:13:20.123456 open ino 42 pid 7 uid 1000 gid 100 flags O_RDWR|O_CREAT
22:13:20.123457 read ino 42 offset 4096 length 100 pid 7 tid 8 uid 0 gid 0 flags O_RDONLY
lost 17 records (queue)
22:13:21.000000 read ino 18446744073709551615 offset 9223372036854775808 length 18446744073709551615 pid 4294967295 tid 1 uid 4294967295 gid 4294967295 flags ` + allFlags + `
`, ""},
		{"json", []string{"-json"}, all, `{"type":"hello","time_ns":1700000002000000500,"next":5,"fsid":"0123456789abcdef","rid":"fedcba9876543210","device":"0:42","version":2,"time":"2023-11-14T22:13:22.000000500Z","daemon_start":"2023-11-14T22:13:20.000000000Z","reader_start":"2023-11-14T22:13:21.000000000Z"}
{"seq":5,"time_ns":1700000000123456789,"ino":42,"offset":0,"length":0,"pid":7,"tid":7,"uid":1000,"gid":100,"open_flags":32834,"type":"open","flags":0,"time":"2023-11-14T22:13:20.123456789Z","open_flag_names":"O_RDWR|O_CREAT"}
{"seq":6,"time_ns":1700000000123457000,"ino":42,"offset":4096,"length":100,"pid":7,"tid":8,"uid":0,"gid":0,"open_flags":32768,"type":"read","flags":0,"time":"2023-11-14T22:13:20.123457000Z","open_flag_names":"O_RDONLY"}
{"type":"lost","time_ns":1700000002000000500,"first":7,"last":23,"count":17,"at_most":false,"unknown":false,"cause":"queue","time":"2023-11-14T22:13:22.000000500Z"}
{"seq":24,"time_ns":1700000001000000000,"ino":18446744073709551615,"offset":9223372036854775808,"length":18446744073709551615,"pid":4294967295,"tid":1,"uid":4294967295,"gid":4294967295,"open_flags":4294967295,"type":"read","flags":65535,"time":"2023-11-14T22:13:21.000000000Z","open_flag_names":"` + allFlags + `"}
{"type":"lost","time_ns":1700000002000000500,"first":25,"last":30,"count":6,"at_most":true,"unknown":true,"cause":"kernel+away","time":"2023-11-14T22:13:22.000000500Z"}
{"type":"idle","time_ns":1700000002000000500,"seq":30,"time":"2023-11-14T22:13:22.000000500Z"}
{"type":"end","time_ns":1700000002000000500,"seq":30,"reason":"the file system was unmounted","time":"2023-11-14T22:13:22.000000500Z","code":1}
`, unmounted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := fakeDaemon(t, func(c *fakeClient) { c.say(tt.events...) })
			status, stdout, stderr := runCommand(append([]string{"tail"}, append(tt.args, socket)...)...)
			want := ""
			if tt.end != "" {
				want = "scoutfs-notify: tail " + socket + ": " + tt.end + "\n"
			}
			if status != 0 || stderr != want {
				t.Errorf("exit status %d, %s", status, stderr)
			}
			if stdout != tt.want {
				t.Errorf("got\n%s\nwant\n%s", stdout, tt.want)
			}
			for line := range strings.Lines(stdout) {
				var m map[string]any
				if err := json.Unmarshal([]byte(line), &m); err != nil && slices.Contains(tt.args, "-json") {
					t.Errorf("%s: %v", line, err)
				}
			}
		})
	}
}

const allFlags = "O_ACCMODE|O_SYNC|O_TMPFILE|O_APPEND|O_ASYNC|O_CLOEXEC|O_CREAT|O_DIRECT|O_EXCL|O_NOATIME|O_NOCTTY|O_NOFOLLOW|O_NONBLOCK|O_TRUNC|FMODE_EXEC|0xffa0001c"

// TestTailFailures: what went wrong is said, after all that was received.
func TestTailFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		serve  func(c *fakeClient) // before the hello
		status int
		stdout string
		stderr []string // parts of it
	}{
		{"protocol", func(c *fakeClient) {
			c.say(fakeHello)
			c.say(&sampleRecords[0])
			c.Write([]byte("rubbish"))
		}, 1, "22:13:20.123456 open ino 42 ", []string{"not a stream of records"}},
		{"killed", func(c *fakeClient) {
			c.say(fakeHello)
			c.say(&sampleRecords[0])
		}, 1, "22:13:20.123456 open ino 42 ", []string{"unexpected EOF: scoutfs-notifyd was killed, and what it had not sent is lost", "journalctl -u 'scoutfs-notifyd@*'"}},
		{"failed", func(c *fakeClient) {
			c.say(fakeHello)
			c.say(&notify.End{Seq: 4, Reason: notify.EndFailed})
		}, 1, "", []string{"the stream ended: scoutfs-notifyd failed", "journalctl -u 'scoutfs-notifyd@*'"}},
		{"thrown out", func(c *fakeClient) {
			c.say(fakeHello)
			c.say(&notify.End{Seq: 4, Reason: notify.EndProtocol})
		}, 69, "", []string{"refused the connection: the client broke the protocol", "journalctl -u 'scoutfs-notifyd@*'"}},
		{"too many", func(c *fakeClient) { c.say(&notify.End{Reason: notify.EndMaxClients}) },
			69, "", []string{"refused the connection: scoutfs-notifyd has as many clients as it may", "scoutfs-notify stat lists them"}},
		{"not root", func(c *fakeClient) { c.say(&notify.End{Reason: notify.EndCredentials}) },
			69, "", []string{"refused the connection: only the daemon's user, root of the host, may connect", "run this as root of the host"}},
		{"resources", func(c *fakeClient) { c.say(&notify.End{Reason: notify.EndResources}) },
			69, "", []string{"refused the connection: scoutfs-notifyd is out of descriptors or memory", "journalctl -u 'scoutfs-notifyd@*'"}},
		{"without a word", func(*fakeClient) {}, 69, "", []string{"refused the connection", "journalctl -u 'scoutfs-notifyd@*'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(shortTempDir(t), notify.SocketName)
			rawDaemon(t, socket, tt.serve)
			status, stdout, stderr := runCommand("tail", socket)
			if status != tt.status || !strings.HasPrefix(stdout, tt.stdout) || stdout != "" && tt.stdout == "" {
				t.Errorf("exit status %d, output %q", status, stdout)
			}
			for _, part := range tt.stderr {
				if !strings.Contains(stderr, part) {
					t.Errorf("no %q in %q", part, stderr)
				}
			}
		})
	}
}

// TestTailRequest: the flags make the request.
func TestTailRequest(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want notify.Request
	}{
		{nil, notify.Request{}},
		{[]string{"-type", "read", "-user", "root,7", "-user", "8", "-exclude-pid", "1,2", "-ino", "18446744073709551615"}, notify.Request{Filter: notify.Filter{
			Types: []notify.Type{notify.TypeRead}, UIDs: []uint32{0, 7, 8}, PIDs: []uint32{1, 2}, SkipPIDs: true, Inos: []uint64{1<<64 - 1},
		}}},
		{[]string{"-type", "open,read", "-exclude-user", "root", "-pid", "4294967295", "-idle", "1.5005s"}, notify.Request{Idle: 1500 * time.Millisecond, Filter: notify.Filter{
			Types: []notify.Type{notify.TypeOpen, notify.TypeRead}, UIDs: []uint32{0}, SkipUIDs: true, PIDs: []uint32{1<<32 - 1},
		}}},
	} {
		tt.want.Version, tt.want.MaxRecords = notify.Version2, notify.RingRecords
		for _, follow := range []string{"-f=false", "-f", "-follow"} {
			got := make(chan notify.Request, 1)
			socket := fakeDaemon(t, func(c *fakeClient) {
				select {
				case got <- c.req:
				default:
				}
				c.say(&notify.Record{Seq: 5, Type: notify.TypeRead})
			})
			args := append([]string{"tail", "-count", "1", follow}, append(tt.args, socket)...)
			if status, _, stderr := runCommand(args...); status != 0 {
				t.Errorf("%q: exit status %d, %s", args, status, stderr)
			}
			if req := <-got; !reflect.DeepEqual(req, tt.want) {
				t.Errorf("%q asks for %+v, want %+v", args, req, tt.want)
			}
		}
	}
}

// TestTailFollow: with -f it goes on over a restart, a crash and a remount, and tells of
// each.
func TestTailFollow(t *testing.T) {
	const other = 0x77
	// What the daemon says to each connection, the first of which is not refused.
	streams := [][]notify.Event{
		{fakeHello, &notify.Record{Seq: 5, Type: notify.TypeOpen}, &notify.End{Seq: 5, Reason: notify.EndRestarting}},
		{&notify.Hello{Next: 8, RID: fakeHello.RID, FSID: fakeHello.FSID}, &notify.Lost{First: 6, Last: 7, Count: 2, Unknown: true, Cause: notify.LostAway | notify.LostUnattended}},
		{&notify.Hello{RID: other, FSID: fakeHello.FSID}, &notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended}, &notify.Record{Seq: 1, Type: notify.TypeOpen}},
	}
	for _, tt := range []struct {
		flag, want string
	}{
		{"-json=false", `connected: mount fedcba9876543210 of file system 0123456789abcdef, next is number 5
00:00:00.000000 open ino 0 pid 0 uid 0 gid 0 flags O_RDONLY
ended: scoutfs-notifyd is restarting
connected: mount fedcba9876543210 of file system 0123456789abcdef, next is number 8
lost 2 records, and maybe any number besides (away+unattended)
waiting: receive records: unexpected EOF: scoutfs-notifyd was killed
connected: mount 0000000000000077 of file system 0123456789abcdef, next is number not known yet
may have lost any number of records (away+unattended)
00:00:00.000000 open ino 0 pid 0 uid 0 gid 0 flags O_RDONLY
`},
		{"-json", `hello 5
open 5
end 5
hello 8
lost 6
waiting receive records: unexpected EOF: scoutfs-notifyd was killed
hello 0
lost 0
open 1
`},
	} {
		var resumes []notify.Resume
		i := 0
		socket := filepath.Join(shortTempDir(t), notify.SocketName)
		rawDaemon(t, socket, func(c *fakeClient) {
			resumes = append(resumes, c.req.Resume)
			if i < len(streams) {
				c.say(streams[i]...)
			}
			i++
		})
		status, stdout, stderr := runCommand("tail", "-f", "-count", "2", tt.flag, socket)
		if tt.flag == "-json" {
			stdout = outline(t, stdout)
		}
		if status != 0 || stdout != tt.want || stderr != "" {
			t.Errorf("%s: exit status %d, errors %q, got\n%s\nwant\n%s", tt.flag, status, stderr, stdout, tt.want)
		}
		if want := []notify.Resume{{}, {RID: fakeHello.RID, Seq: 5}, {RID: fakeHello.RID, Seq: 7}}; !slices.Equal(resumes, want) {
			t.Errorf("%s: it resumed at %v, want %v", tt.flag, resumes, want)
		}
	}
}

// outline returns the type and the first number of JSON objects.
func outline(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		var o struct {
			Type, Error      string
			Seq, Next, First *uint64
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if n := cmp.Or(o.Seq, o.Next, o.First); n != nil {
			fmt.Fprintln(&b, o.Type, *n)
		} else {
			fmt.Fprintln(&b, o.Type, o.Error)
		}
	}
	return b.String()
}

// TestTailWaiting: a daemon that is not there yet is waited for, which is said once, with
// nothing that a terminal could take for a command.
func TestTailWaiting(t *testing.T) {
	dir := filepath.Join(shortTempDir(t), "a\x1b[2J\u202e")
	mkdir(t, dir)
	socket := filepath.Join(dir, notify.SocketName)
	for _, format := range []string{"-json=false", "-json"} {
		ctx, cancel := context.WithCancel(t.Context())
		env := systemEnvironment()
		r, w := io.Pipe()
		env.stdout, env.stderr = w, io.Discard
		status := make(chan int)
		go func() {
			status <- run(ctx, env, []string{"tail", "-f", format, socket})
			w.Close()
		}()
		in := bufio.NewReader(r)
		line, err := in.ReadString('\n')
		if err != nil || !strings.Contains(line, "waiting") || !strings.Contains(line, "not running") || strings.ContainsAny(line, "\x1b\u202e") {
			t.Errorf("%s: %q, %v", format, line, err)
		}
		cancel()
		go io.Copy(io.Discard, in)
		if got := <-status; got != 0 {
			t.Errorf("%s: exit status %d", format, got)
		}
	}
}

// FuzzTail: whatever a daemon sends, tail prints lines without control characters, and
// objects that are JSON.
func FuzzTail(f *testing.F) {
	var seed []byte
	for _, ev := range append(records(sampleRecords...), fakeHello, &notify.Lost{Count: 7, Cause: 1}, &notify.Idle{}, &notify.End{Reason: notify.EndStopping}) {
		seed, _ = ev.(encoding.BinaryAppender).AppendBinary(seed)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		recs, err := notify.Decode(nil, b)
		if err != nil {
			return
		}
		var text, objects strings.Builder
		printers := []printer{&textPrinter{w: &text, time: times["clock"], follow: true}, newJSONPrinter(&objects, asked{})}
		for i := range recs {
			ev := recs[i].Control()
			if ev == nil {
				ev = &recs[i]
			}
			for _, p := range printers {
				if err := p.print(ev); err != nil {
					t.Fatalf("%+v: %v", ev, err)
				}
			}
		}
		if n := strings.Count(text.String(), "\n"); n != len(recs) {
			t.Errorf("%d lines for %d records: %q", n, len(recs), &text)
		}
		if i := strings.IndexFunc(text.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("it prints %q", text.String()[i:])
		}
		for line := range strings.Lines(objects.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %s", line)
			}
		}
	})
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
			socket := fakeDaemon(t, func(c *fakeClient) {
				c.say(&sampleRecords[0])
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
