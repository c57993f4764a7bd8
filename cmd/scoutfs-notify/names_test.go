// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"git.anomalous.dev/alphacentri/scoutfs-notify/cmd/scoutfs-notify/recording"
	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// namedAccess is an access with the names that a recording has of it, "" for none.
type namedAccess struct {
	rec                        notify.Record
	path, command, user, group string
	unlinked                   bool
}

// recordNamed makes a recording.
func recordNamed(t *testing.T, all []namedAccess, also ...notify.Event) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a")
	w, err := recording.Append(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range all {
		w.Name(recording.Path, n.rec.Ino, n.path)
		w.Name(recording.Command, uint64(n.rec.PID), n.command)
		w.Name(recording.User, uint64(n.rec.UID), n.user)
		w.Name(recording.Group, uint64(n.rec.GID), n.group)
		if n.unlinked {
			w.Name(recording.Unlinked, n.rec.Ino, "unlinked")
		}
		check(w.Write(&n.rec))
	}
	for _, ev := range also {
		check(w.Write(ev))
	}
	check(w.Close())
	return path
}

// everyByte has each that a name can have but the last, which is for paths only.
var everyByte = func() string {
	var b []byte
	for c := 1; c < 256; c++ {
		if c != '/' {
			b = append(b, byte(c))
		}
	}
	return string(b)
}()

func sampleNamed() []namedAccess {
	at := func(seq uint64) uint64 { return 1700000000e9 + seq*1e9 }
	return []namedAccess{
		{rec: notify.Record{Seq: 1, TimeNS: at(0), Ino: 1025, PID: 7, TID: 7, UID: 1000, GID: 100, Type: notify.TypeOpen, OpenFlags: 0x8000},
			path: "projects/a b/data", command: "my cat", user: "ann", group: "users"},
		{rec: notify.Record{Seq: 2, TimeNS: at(1), Ino: 1025, Offset: 4096, Length: 100, PID: 7, TID: 7, UID: 1000, GID: 100, Type: notify.TypeRead, OpenFlags: 0x8000},
			path: "projects/a b/data", command: "my cat", user: "ann", group: "users"},
		{rec: notify.Record{Seq: 3, TimeNS: at(12), Ino: 1026, Offset: 0, Length: 4096, PID: 8, TID: 9, UID: 0, GID: 0, Type: notify.TypeRead, OpenFlags: 0x8000},
			path: "projectsx/\u202etxt.exe\n00:00:00.000000 open ino 1", command: "dd\x1b[2J", user: "root", group: "root"},
		{rec: notify.Record{Seq: 4, TimeNS: at(13), Ino: 1027, Length: 1, PID: 10, TID: 10, UID: 5, GID: 5, Type: notify.TypeRead, OpenFlags: 0x8000}, unlinked: true},
		{rec: notify.Record{Seq: 5, TimeNS: at(14), Ino: 1028, Length: 2, PID: 11, TID: 11, UID: 5, GID: 5, Type: notify.TypeRead, OpenFlags: 0x8000}},
		{rec: notify.Record{Seq: 6, TimeNS: at(15), Ino: 1029, Length: 3, PID: 12, TID: 12, UID: 5, GID: 5, Type: notify.TypeRead, OpenFlags: 0x8000},
			path: "b/" + everyByte, command: everyByte, user: everyByte, group: everyByte},
	}
}

func TestTailNames(t *testing.T) {
	file := recordNamed(t, sampleNamed(), &notify.Lost{First: 7, Last: 9, Count: 3, Cause: notify.LostQueue})
	every := printable(everyByte)
	all := `22:13:20.000000 open ino 1025 pid 7 uid 1000 gid 100 flags O_RDONLY user ann group users command my\x20cat path: projects/a b/data
22:13:21.000000 read ino 1025 offset 4096 length 100 pid 7 uid 1000 gid 100 flags O_RDONLY user ann group users command my\x20cat path: projects/a b/data
22:13:32.000000 read ino 1026 offset 0 length 4096 pid 8 tid 9 uid 0 gid 0 flags O_RDONLY user root group root command dd\x1b[2J path: projectsx/\xe2\x80\xaetxt.exe\x0a00:00:00.000000 open ino 1
22:13:33.000000 read ino 1027 offset 0 length 1 pid 10 uid 5 gid 5 flags O_RDONLY unlinked
22:13:34.000000 read ino 1028 offset 0 length 2 pid 11 uid 5 gid 5 flags O_RDONLY path unknown
22:13:35.000000 read ino 1029 offset 0 length 3 pid 12 uid 5 gid 5 flags O_RDONLY user ` + word(everyByte) + " group " + word(everyByte) + " command " + word(everyByte) + " path: b/" + every + "\n"
	lines := strings.SplitAfter(all, "\n")
	const lost = "lost 3 records (queue)\n"
	for _, tt := range []struct {
		name   string
		args   []string
		want   string
		stderr string
	}{
		{"all", []string{"-names", "-paths"}, all + lost, ""},
		{"under", []string{"-names", "-paths", "-under", "/projects/"}, lines[0] + lines[1] + "lost at most 3 records (queue)\n",
			"scoutfs-notify: tail: left out: 2 accesses of files of which it is not known where they are\n"},
		{"under one of two", []string{"-names", "-paths", "-under", "projects/a b", "-under", "b"}, lines[0] + lines[1] + lines[5] + "lost at most 3 records (queue)\n",
			"scoutfs-notify: tail: left out: 2 accesses of files of which it is not known where they are\n"},
		{"command", []string{"-names", "-paths", "-comm", "my cat"}, lines[0] + lines[1] + "lost at most 3 records (queue)\n",
			"scoutfs-notify: tail: left out: 2 accesses of processes whose names are not known\n"},
		{"other commands", []string{"-names", "-paths", "-exclude-comm", "my cat"}, strings.Join(lines[2:], "") + "lost at most 3 records (queue)\n",
			"scoutfs-notify: tail: not left out: 2 accesses of processes whose names are not known\n"},
		{"user", []string{"-names", "-paths", "-user", "root,1000", "-type", "read"}, lines[1] + lines[2] + "lost at most 3 records (queue)\n", ""},
		{"since", []string{"-names", "-paths", "-since", "5"}, lines[4] + lines[5] + lost, ""},
		{"last", []string{"-names", "-paths", "-n", "2"}, lines[4] + lines[5] + lost, ""},
		{"more than all", []string{"-names", "-paths", "-n", "100"}, all + lost, ""},
		{"last of some", []string{"-names", "-paths", "-n", "1", "-ino", "1025"}, lines[1] + "lost at most 3 records (queue)\n", ""},
		{"every", []string{"-paths", "-every", "10s"}, `22:13:30.000000 sum  ino 1025 opens 1 reads 1 bytes 100 first 4096 last 4195 path: projects/a b/data
22:13:40.000000 sum  ino 1026 opens 0 reads 1 bytes 4096 first 0 last 4095 path: projectsx/\xe2\x80\xaetxt.exe\x0a00:00:00.000000 open ino 1
22:13:40.000000 sum  ino 1029 opens 0 reads 1 bytes 3 first 0 last 2 path: b/` + every + `
22:13:40.000000 sum  ino 1028 opens 0 reads 1 bytes 2 first 0 last 1 path unknown
22:13:40.000000 sum  ino 1027 opens 0 reads 1 bytes 1 first 0 last 0 unlinked
`, ""},
		{"times", []string{"-time", "unix", "-count", "1"}, "1700000000.000000000 open ino 1025 pid 7 uid 1000 gid 100 flags O_RDONLY\n", ""},
		{"dates", []string{"-time", "date", "-count", "1"}, "2023-11-14 22:13:20.000000 open ino 1025 pid 7 uid 1000 gid 100 flags O_RDONLY\n", ""},
		{"iso", []string{"-time", "iso", "-count", "1"}, "2023-11-14T22:13:20.000000000Z open ino 1025 pid 7 uid 1000 gid 100 flags O_RDONLY\n", ""},
		{"for xargs", []string{"-0"}, "projects/a b/data\x00projects/a b/data\x00projectsx/\u202etxt.exe\n00:00:00.000000 open ino 1\x00b/" + everyByte + "\x00", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, stdout, stderr := runCommand(append([]string{"tail", file}, tt.args...)...)
			got := stdout
			if tt.name == "every" { // a loss comes when it is known
				got = strings.Replace(got, lost, "", 1)
			}
			if status != 0 || got != tt.want || stderr != tt.stderr {
				t.Errorf("exit status %d, errors %q, got\n%s\nwant\n%s", status, stderr, stdout, tt.want)
			}
		})
	}
}

// Names are in the objects, and come back as they were, whatever bytes they have.
func TestTailJSONNames(t *testing.T) {
	file := recordNamed(t, sampleNamed())
	_, stdout, _ := runCommand("tail", "-json", "-paths", "-names", file)
	if i := strings.IndexFunc(stdout, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("it prints %q", stdout[i:])
	}
	type object struct {
		Path, User, Group, Command *string
		PathB64                    []byte `json:"path_b64"`
		PathError                  string `json:"path_error"`
	}
	lines := slices.Collect(strings.Lines(stdout))
	if len(lines) != len(sampleNamed()) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, n := range sampleNamed() {
		var o object
		if err := json.Unmarshal([]byte(lines[i]), &o); err != nil {
			t.Fatal(err)
		}
		switch {
		case n.unlinked:
			if o.Path != nil || o.PathB64 != nil || o.PathError != "unlinked" || o.User != nil || o.Command != nil {
				t.Errorf("%s", lines[i])
			}
		case n.path == "":
			if o.Path != nil || o.PathB64 != nil || o.PathError != "unknown" {
				t.Errorf("%s", lines[i])
			}
		case strings.Contains(n.path, "\xff"):
			if string(o.PathB64) != n.path || o.Path == nil {
				t.Errorf("%s", lines[i])
			}
		default:
			if o.PathB64 != nil || *o.Path != n.path || *o.User != n.user || *o.Group != n.group || *o.Command != n.command {
				t.Errorf("%s", lines[i])
			}
		}
	}
	_, stdout, _ = runCommand("tail", "-json", "-paths", "-every", "1h", file)
	if !strings.HasPrefix(stdout, `{"type":"sum","time":"2023-11-14T23:13:20.000000000Z","ino":1026,"opens":0,"reads":1,"bytes":4096,"first":0,"last":4095,"path":"projectsx/\u202etxt`) {
		t.Errorf("sums: %s", stdout)
	}
}

// onTerminal runs a command on a terminal of some columns.
func onTerminal(width int, colours bool, args ...string) string {
	var out bytes.Buffer
	env := systemEnvironment()
	env.stdout, env.stderr = &out, &out
	env.width, env.colours = func() int { return width }, colours
	run(context.Background(), env, args)
	return out.String()
}

// No line is wider than the terminal, whatever names there are, and what fits is shown.
func TestColumns(t *testing.T) {
	wide := sampleNamed()
	wide[0].path = strings.Repeat("深い/", 100) + "ファイル"
	wide[0].rec.Offset, wide[0].rec.Length = 1<<63, 1<<63
	file := recordNamed(t, wide, &notify.Lost{Unknown: true, Count: 1 << 40, Cause: 0xffff, First: 7, Last: 7 + 1<<40})
	for _, args := range [][]string{{}, {"-paths"}, {"-time", "iso", "-paths"}, {"-every", "10s", "-paths"}} {
		for width := 1; width < 150; width += 1 + width/40 {
			text := onTerminal(width, width%2 == 0, append([]string{"tail", file}, args...)...)
			for line := range strings.Lines(text) {
				if n := ansi.StringWidth(strings.TrimSuffix(line, "\n")); n > width {
					t.Fatalf("%q: %d columns on a terminal of %d: %q", args, n, width, line)
				}
			}
		}
	}
	const want = `TIME            TYPE     PID COMMAND    USER         OFFSET  LENGTH INODE
22:13:20.000000 open       7 my cat     ann                         1025
22:13:21.000000 read       7 my cat     ann            4096     100 1025
22:13:32.000000 read       8 dd\x1b[2J  root              0    4096 1026
22:13:33.000000 read      10            5                 0       1 1027
22:13:34.000000 read      11            5                 0       2 1028
`
	file = recordNamed(t, sampleNamed()[:5])
	if got := onTerminal(80, false, "tail", file); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	const wantPaths = `TIME            TYPE     PID COMMAND     LENGTH FILE
22:13:20.000000 open       7 my cat             projects/a b/data
22:13:21.000000 read       7 my cat         100 projects/a b/data
22:13:32.000000 read       8 dd\x1b[2J     4096 …00:00:00.000000 open ino 1
22:13:33.000000 read      10                  1 1027 (unlinked)
22:13:34.000000 read      11                  2 1028 (path unknown)
`
	if got := onTerminal(75, false, "tail", "-paths", file); got != wantPaths {
		t.Errorf("got\n%s\nwant\n%s", got, wantPaths)
	}
	if got := onTerminal(80, true, "tail", file); !strings.Contains(got, green+"open"+normal) {
		t.Errorf("no colours: %q", got)
	}
}

// NO_COLOR and a terminal without colours are heeded.
func TestColours(t *testing.T) {
	for _, tt := range []struct {
		noColor, term string
		want          bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		if got := systemEnvironment().colours; got != tt.want {
			t.Errorf("NO_COLOR=%s TERM=%s: %v", tt.noColor, tt.term, got)
		}
	}
}

// -since asks for what was missed since a number of this mount.
func TestTailSince(t *testing.T) {
	lost := &notify.Lost{First: 3, Last: 4, Count: 2, Cause: notify.LostAway, Time: fakeNow}
	var probes int
	var resume notify.Resume
	socket := filepath.Join(shortTempDir(t), notify.SocketName)
	rawDaemon(t, socket, func(c *fakeClient) {
		if c.req.Probe {
			probes++
			c.say(fakeHello, &notify.End{Seq: 4, Reason: notify.EndProbe})
			return
		}
		resume = c.req.Resume
		c.say(fakeHello, lost, opened(5))
	})
	status, stdout, stderr := runCommand("tail", "-since", "3", "-count", "1", socket)
	if status != 0 || !strings.HasPrefix(stdout, "lost 2 records (away)\n") || probes != 1 || resume != (notify.Resume{RID: fakeHello.RID, Seq: 2}) {
		t.Errorf("exit status %d, %d probes, %+v, %s%s", status, probes, resume, stdout, stderr)
	}
}

// A folder of a mount is that mount and what is below the folder; of another file system
// it is an error.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	env := systemEnvironment()
	env.mountOf = func(path string) (notify.MountPoint, error) {
		m := notify.MountPoint{Path: "/", Type: "ext4"}
		if path == dir || strings.HasPrefix(path, dir+"/") {
			m = notify.MountPoint{Path: dir, Type: notify.FSType, Device: notify.Device{Major: 7}}
		}
		return m, nil
	}
	sub, link := filepath.Join(dir, "sub"), filepath.Join(t.TempDir(), "link")
	mkdir(t, sub)
	if err := os.Symlink(sub, link); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{dir: "", sub: sub, link: sub, "/": "", dir + "/./sub/": sub} {
		if got := folderOf(env, arg); got != want {
			t.Errorf("%s: %q, want %q", arg, got, want)
		}
	}
	// Of another file system than what the daemon serves.
	socket := fakeDaemon(t, func(c *fakeClient) { c.say(opened(5)) })
	status, _, stderr := runCommand("tail", "-under", dir, socket)
	if status != 1 || !strings.Contains(stderr, "it is another file system") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

// Lines of -every are bounded in number, and nothing is missing from their sums.
func TestSummaryBound(t *testing.T) {
	var out bytes.Buffer
	p := &textPrinter{w: &out, time: times["clock"]}
	s := &summary{p: p, every: 1e9, files: make(map[uint64]*fileSum)}
	const files = maxSums + 1000
	for i := range uint64(files) {
		if err := s.print(&notify.Record{Seq: i, TimeNS: 1, Ino: i + 1, Length: 10, Type: notify.TypeRead}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(out.String()) {
		_, rest, _ := strings.Cut(line, " bytes ")
		var n int
		fmt.Sscan(rest, &n)
		total += n
	}
	if lines := strings.Count(out.String(), "\n"); lines != maxSums+1 || total != 10*files {
		t.Errorf("%d lines, %d bytes", lines, total)
	}
}
