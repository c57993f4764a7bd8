// SPDX-License-Identifier: GPL-2.0-only

package screen

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hinshun/vt10x"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// reads are reads of n files from a number on, the later ones of more bytes.
func reads(seq *uint64, first, n uint64) []notify.Event {
	all := make([]notify.Event, n)
	for i := range n {
		*seq++
		all[i] = &notify.Record{
			Type: notify.TypeRead, Seq: *seq, Ino: first + i, Length: 1024 * (i + 1), PID: 4194304, UID: 4242, TimeNS: uint64(time.Now().UnixNano()),
		}
	}
	return all
}

// calm leaves out of a screen what is different each time: the socket and the time.
func calm(lines []string) string {
	s := strings.Join(lines, "\n")
	s = regexp.MustCompile(`/tmp/\S*`).ReplaceAllString(s, "SOCKET")
	s = regexp.MustCompile(` +first 1h0m0s under way, up \d+s +\d\d:\d\d:\d\d`).ReplaceAllString(s, " UNDER WAY")
	return regexp.MustCompile(` *\b\d+\.\d( ([KM]i)?B)?`).ReplaceAllString(s, " N")
}

// The screen in the first interval, and what keys make of it.
func TestScreen(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	term := start(t, 100, 12, nil, "top", "-interval", "1h", d.socket)
	d.hello()
	seq := uint64(0)
	d.say(reads(&seq, 100, 9)...)
	d.say(&notify.Lost{First: seq + 1, Last: seq + 17, Count: 17, Cause: notify.LostQueue, Time: time.Now()})
	want := `scoutfs-notify top SOCKET UNDER WAY
 N opens/s N reads/s N/s
lost 17 records (queue)
 1 Files   2 Directories   3 Users   4 Processes   5 Commands                              9 of them
FILE                                                 OPENS/S    READS/S     BYTES/S HISTORY
inode 108 N N N
inode 107 N N N
inode 106 N N N
inode 105 N N N
inode 104 N N N

?:help  q:quit  space:pause  tab:next  s:sort by bytes  t:total  /:filter`
	term.await("the first interval", func(lines []string) bool { return strings.TrimSpace(calm(lines)) == want })
	term.typed("4")
	term.shows("COMMAND", "PID", "   4194304 4242")
	term.typed("t")
	term.shows("0 opens  9 reads  45.0 KiB")
	term.typed("/4194305\r")
	term.shows("0 of 1", "filter: 4194305")
	term.typed("\x1b")
	term.shows("1 of them")
	term.typed("?")
	term.shows("the next of them")
	term.typed("q") // closes the help
	term.shows("1 of them")
	term.typed("q")
	if status := term.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// It fits when the terminal gets another size, however small or large.
func TestResize(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	term := start(t, 80, 24, nil, "top", "-interval", "1h", d.socket)
	d.hello()
	seq := uint64(0)
	d.say(reads(&seq, 1000, 200)...)
	term.shows("inode 1199", "inode 1183")
	for _, size := range []struct {
		cols, rows int
		last       string // inode that is shown
		footer     bool
	}{
		{250, 70, "inode 1137", true}, {60, 14, "inode 1193", true}, {30, 6, "inode 1197", false}, {80, 24, "inode 1183", true}, {12, 3, "inode 1199", false},
		{132, 43, "inode 1164", true},
	} {
		term.resize(size.cols, size.rows)
		lines := term.await(fmt.Sprintf("%d by %d", size.cols, size.rows), func(lines []string) bool {
			all := strings.Join(lines, "\n")
			return strings.Contains(all, size.last) && strings.Contains(all, "?:help") == size.footer
		})
		if n := strings.Count(strings.Join(lines, "\n"), "inode 1199"); n != 1 {
			t.Errorf("%d by %d: the first row is there %d times:\n%s", size.cols, size.rows, n, strings.Join(lines, "\n"))
		}
	}
}

// However it ends, the terminal is as it was: its settings, what was on it, its cursor.
func TestEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		end    func(d *daemon, term *terminal)
		status int
		says   string
	}{
		{"ctrl-C", func(_ *daemon, term *terminal) { term.typed("\x03") }, 0, ""},
		{"q", func(_ *daemon, term *terminal) { term.typed("q") }, 0, ""},
		{"SIGTERM", func(_ *daemon, term *terminal) { term.cmd.Process.Signal(syscall.SIGTERM) }, 0, ""},
		{"SIGINT", func(_ *daemon, term *terminal) { term.cmd.Process.Signal(syscall.SIGINT) }, 0, ""},
		{"unmount", func(d *daemon, _ *terminal) { d.say(&notify.End{Reason: notify.EndUnmounted}) }, 0, "the stream ended: "},
		{"killed daemon", func(d *daemon, _ *terminal) { d.conn.Close() }, 1, "was killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			term := open(t, 80, 24)
			term.vt.Write([]byte("what was there\r\n"))
			before := term.settings()
			term.run(nil, "top", d.socket)
			d.hello()
			term.shows("?:help")
			if term.settings() == before || term.vt.Mode()&vt10x.ModeAltScreen == 0 {
				t.Error("the screen is not a live one: this test tries nothing")
			}
			tt.end(d, term)
			if status := term.ends(); status != tt.status {
				t.Errorf("exit status %d", status)
			}
			if tt.says != "" {
				term.shows(tt.says)
			}
			term.shows("what was there")
			term.await("the old screen", func([]string) bool {
				return term.vt.Mode()&vt10x.ModeAltScreen == 0 && term.vt.CursorVisible()
			})
			if got := term.settings(); got != before {
				t.Errorf("the settings were %+v and are %+v", before, got)
			}
		})
	}
}

// Whatever stops it, the shell gets its terminal, and with fg the screen comes back.
func TestSuspend(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash, whose job control this needs")
	}
	send := func(sig syscall.Signal) func(*terminal) {
		return func(term *terminal) {
			term.t.Helper()
			if err := syscall.Kill(child(term.t, term.cmd.Process.Pid), sig); err != nil {
				term.t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name string
		stop func(*terminal)
		left bool // it leaves the screen as it was
	}{
		{"ctrl-Z", func(term *terminal) { term.typed("\x1a") }, true},
		{"SIGTSTP", send(syscall.SIGTSTP), true},
		{"SIGSTOP", send(syscall.SIGSTOP), false}, // cannot be caught
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			term := open(t, 132, 24)
			term.exec([]string{"PS1=prompt$ "}, bash, "--norc", "--noprofile", "-i")
			term.shows("prompt$")
			term.typed(build(t) + " top -interval 1h " + d.socket + "\n")
			d.hello()
			seq := uint64(0)
			d.say(reads(&seq, 500, 1)...)
			term.shows("inode 500", "?:help")
			tt.stop(term)
			term.shows("Stopped", "prompt$")
			if alt := term.vt.Mode()&vt10x.ModeAltScreen != 0; alt == tt.left {
				t.Errorf("on the live screen: %v", alt)
			}
			term.typed("echo $((6*7))\n")
			term.shows("\n42")
			d.say(reads(&seq, 600, 1)...)
			term.typed("fg\n")
			term.await("the rows and no more", func(lines []string) bool {
				all := strings.Join(lines, "\n")
				return strings.Contains(all, "inode 500") && strings.Contains(all, "inode 600") && strings.Contains(all, "?:help") && !strings.Contains(all, "\n42")
			})
			term.typed("q")
			term.await("the shell's screen", func(lines []string) bool {
				return strings.Contains(strings.Join(lines, "\n"), "prompt$") && term.vt.Mode()&vt10x.ModeAltScreen == 0
			})
			term.typed("exit $?\n")
			if status := term.ends(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// child returns the only child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// Where no shell could have it go on, it goes on by itself.
func TestSuspendAlone(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	term := start(t, 80, 24, nil, "top", "-interval", "1h", d.socket)
	d.hello()
	seq := uint64(0)
	d.say(reads(&seq, 500, 1)...)
	term.shows("inode 500", "?:help")
	term.typed("\x1a")
	term.await("that it left the screen", func([]string) bool { return bytes.Contains(term.written(), []byte("\x1b[?1049l")) })
	term.shows("inode 500", "?:help")
	term.typed("q")
	if status := term.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// With -f it says what it waits for, and goes on.
func TestFollow(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	term := start(t, 120, 24, nil, "top", "-f", "-interval", "50ms", "-total", d.socket)
	d.hello()
	seq := uint64(0)
	d.say(reads(&seq, 500, 1)...)
	term.shows("inode 500")
	before := d.conn
	d.accept()
	end, _ := (&notify.End{Seq: seq, Reason: notify.EndUnmounted}).AppendBinary(nil)
	if _, err := before.Write(end); err != nil {
		t.Fatal(err)
	}
	before.Close()
	term.shows("waiting: the file system was unmounted; lost nothing", "inode 500")
	d.hello()
	d.say(&notify.Lost{Unknown: true, Cause: notify.LostAway | notify.LostUnattended, Time: time.Now()})
	again := uint64(0)
	d.say(reads(&again, 600, 1)...)
	term.await("the next stream", func(lines []string) bool {
		all := strings.Join(lines, "\n")
		return strings.Contains(all, "inode 500") && strings.Contains(all, "inode 600") &&
			strings.Contains(all, "may have lost any number of records (away+unattended)") && !strings.Contains(all, "waiting:")
	})
	term.typed("q")
	if status := term.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// Where there can be no live screen there are tables, one after the other.
func TestPlain(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"dumb": {"TERM=dumb"}, "none": {"TERM="}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			term := start(t, 80, 24, env, "top", "-interval", "50ms", d.socket)
			d.hello()
			seq := uint64(0)
			d.say(reads(&seq, 500, 1)...)
			term.shows("the first table comes in 50ms", "inode 500")
			term.typed("\x03")
			if status := term.ends(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if bytes.ContainsRune(term.written(), 0x1b) {
				t.Errorf("it moves the cursor: %q", term.written())
			}
		})
	}
}

// NO_COLOR is minded: what stands out does so without a colour.
func TestNoColor(t *testing.T) {
	t.Parallel()
	color := regexp.MustCompile(`\x1b\[(?:[0-9;]*;)?(?:3[0-7]|9[0-7])(?:;[0-9;]*)?m`)
	for _, tt := range []struct {
		env  []string
		want bool
	}{{nil, true}, {[]string{"NO_COLOR=1"}, false}} {
		d := newDaemon(t)
		term := start(t, 80, 24, tt.env, "top", d.socket)
		d.hello()
		term.shows("lost nothing", "?:help")
		if got := color.Match(term.written()); got != tt.want {
			t.Errorf("%v: colours: %v, in %q", tt.env, got, term.written())
		}
	}
}

// However many files there are and however long it runs, it does not grow. SCREEN=10m
// does so for longer.
func TestGrowth(t *testing.T) {
	length := 12 * time.Second
	if s := os.Getenv("SCREEN"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("SCREEN: %v", err)
		}
	}
	const files = 100_000
	d := newDaemon(t)
	// Its collector at work often, so that what is measured is what it holds.
	term := start(t, 120, 40, []string{"GOGC=10"}, "top", "-interval", "1s", d.socket)
	d.hello()
	seq, rounds := uint64(0), 0
	round := func() {
		d.say(reads(&seq, 1000, files)...)
		rounds++
	}
	begin := time.Now()
	// Peaks are compared: between two collections any single moment is a matter of luck.
	for time.Since(begin) < length/3 || rounds < 3 {
		round()
	}
	full := peak(t, term.cmd.Process.Pid)
	for time.Since(begin) < length {
		round()
	}
	end := peak(t, term.cmd.Process.Pid)
	t.Logf("%d records of %d files in %v: at most %d MiB, in the first third at most %d MiB", seq, files, time.Since(begin).Round(time.Second), end>>20, full>>20)
	if end > full+full/4 {
		t.Errorf("it grows: at most %d MiB, in the first third at most %d MiB", end>>20, full>>20)
	}
	term.shows("lost nothing", "and more, for which there is no room:")
}

// peak is the most memory that a process has had resident, in bytes (VmHWM of
// proc_pid_status(5)).
func peak(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^VmHWM:\s*(\d+) kB$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmHWM in\n%s", text)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
