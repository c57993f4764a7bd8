// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var statMount = notify.Mount{FSID: 0x0123456789abcdef, RID: 0xfedcba9876543210}

// statWorld is a system with one mount.
type statWorld struct {
	env    *environment
	mount  string
	socket string
	out    bytes.Buffer
	errs   bytes.Buffer
}

func newStatWorld(t *testing.T) *statWorld {
	t.Helper()
	root := t.TempDir()
	w := &statWorld{mount: filepath.Join(root, "mnt")}
	w.env = &environment{
		stdout: &w.out, stderr: &w.errs,
		statfs: func(ctx context.Context, dir string) (notify.Mount, error) {
			if dir == w.mount {
				return statMount, nil
			}
			return notify.StatfsContext(ctx, dir)
		},
		runDir: filepath.Join(root, "run"), sysfs: filepath.Join(root, "sys"), proc: "/proc",
	}
	w.socket = filepath.Join(w.env.runDir, statMount.FSID.String(), notify.SocketName)
	mkdir(t, w.mount)
	mkdir(t, filepath.Dir(w.socket))
	return w
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// daemonState writes a daemon's state, and holds its lock if alive is set.
func (w *statWorld) daemonState(t *testing.T, alive bool) {
	t.Helper()
	start := time.Unix(1700000000, 0)
	st := &notify.State{
		Version: "1.2.3", MountPoint: "/mnt/scoutfs", FSID: statMount.FSID, RID: statMount.RID, PID: os.Getpid(),
		Start: start, Updated: start, Socket: w.socket,
		Records: 1000, LastSeq: 1017, KernelDropped: 17, Batches: 30, FullBatches: 2,
		SentRecords: 1900, SentPackets: 950, LostRecords: 100, LostEpisodes: 1,
		MaxClients: 64, Accepted: 5, Refused: notify.Refusals{MaxClients: 1, Protocol: 2},
		Clients: []notify.ClientState{
			{ID: 1, PID: 4242, Since: start, PerPacket: 1024, Records: 1000, Packets: 50},
			{ID: 5, PID: 4243, Since: start, PerPacket: 1, Records: 900, Packets: 900, Lost: 100, Behind: true},
		},
	}
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(w.socket)
	write(t, filepath.Join(dir, notify.StateName), string(b))
	f, err := os.Create(filepath.Join(dir, notify.LockName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if alive {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
}

// counters makes a mount's directory in sysfs.
func (w *statWorld) counters(t *testing.T, name string, m notify.Mount, values ...int) {
	t.Helper()
	dir := filepath.Join(w.env.sysfs, name)
	write(t, filepath.Join(dir, "fsid"), m.FSID.String()+"\n")
	write(t, filepath.Join(dir, "rid"), m.RID.String()+"\n")
	for i, v := range values {
		file := []string{"notify_emitted", "notify_dropped_ring_full", "notify_reader_attached"}[i]
		write(t, filepath.Join(dir, "counters", file), fmt.Sprintf("%d\n", v))
	}
}

func TestStat(t *testing.T) {
	other := notify.Mount{FSID: statMount.FSID, RID: statMount.RID + 1}
	for _, tt := range []struct {
		name   string
		setup  func(t *testing.T, w *statWorld)
		args   func(w *statWorld) []string
		status int
		want   string
	}{
		{"running", func(t *testing.T, w *statWorld) {
			w.daemonState(t, true)
			w.counters(t, "f.012345.r.fedcbb", other, 1, 2, 3)
			w.counters(t, "f.012345.r.fedcba", statMount, 1000, 17, 1)
		}, func(w *statWorld) []string { return []string{w.mount} }, 0, `file system  0123456789abcdef, mounted as fedcba9876543210
daemon       running: process PID for /mnt/scoutfs since 2023-11-14 22:13:20, version 1.2.3
records      1000 from the kernel, the last is number 1017; 17 dropped there
batches      30, 2 of them full
sent         1900 records in 950 packets; 100 lost (episodes: 1)
clients      2 of 64; 5 accepted and 3 refused so far
kernel       1000 emitted, 17 dropped, since the mount; readers so far: 1

  CLIENT        PID  SINCE               PER PACKET           SENT           LOST
       1       4242  2023-11-14 22:13:20       1024           1000              0
       5       4243  2023-11-14 22:13:20          1            900            100  behind
`},
		{"not running", func(t *testing.T, w *statWorld) {
			w.counters(t, "f.012345.r.fedcba", statMount, 0, 0, 0)
		}, func(w *statWorld) []string { return []string{w.mount} }, 1, `file system  0123456789abcdef, mounted as fedcba9876543210
daemon       not running: HINT
kernel       0 emitted, 0 dropped, since the mount; readers so far: 0
`},
		{"killed, no notify support", func(t *testing.T, w *statWorld) {
			w.daemonState(t, false)
			w.counters(t, "f.012345.r.fedcba", statMount)
		}, func(w *statWorld) []string { return []string{w.mount} }, 1, `file system  0123456789abcdef, mounted as fedcba9876543210
daemon       not running: HINT
kernel       no notify counters: the module has no notify support, or the file system is not mounted
`},
		{"socket, not running", func(*testing.T, *statWorld) {}, func(w *statWorld) []string { return []string{w.socket} }, 1,
			`daemon       not running: HINT
kernel       no notify counters: the module has no notify support, or the file system is not mounted
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newStatWorld(t)
			tt.setup(t, w)
			status := run(context.Background(), w.env, append([]string{"stat"}, tt.args(w)...))
			want := strings.NewReplacer("PID for", fmt.Sprintf("%d for", os.Getpid()), "HINT", startHint(w.env, tt.args(w)[0])).Replace(tt.want)
			if got := w.out.String(); got != want || status != tt.status || w.errs.Len() > 0 {
				t.Errorf("exit status %d, errors %q, got\n%s\nwant\n%s", status, &w.errs, got, want)
			}
		})
	}
}

func TestStatJSON(t *testing.T) {
	w := newStatWorld(t)
	w.daemonState(t, true)
	w.counters(t, "f.012345.r.fedcba", statMount, 1000, 17, 1)
	// By mount point and by socket.
	for _, arg := range []string{w.mount, w.socket} {
		w.out.Reset()
		if status := run(context.Background(), w.env, []string{"stat", "-json", arg}); status != 0 || w.errs.Len() > 0 {
			t.Errorf("%s: exit status %d, errors %q", arg, status, &w.errs)
		}
		var got struct {
			FSID, RID string
			Running   bool
			Daemon    struct {
				Records uint64
				Clients []map[string]any
			}
			Kernel map[string]uint64
		}
		if err := json.Unmarshal(w.out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.FSID != "0123456789abcdef" || got.RID != "fedcba9876543210" || !got.Running || got.Daemon.Records != 1000 ||
			len(got.Daemon.Clients) != 2 || got.Daemon.Clients[1]["lost"] != 100.0 || got.Kernel["emitted"] != 1000 {
			t.Errorf("%s: got\n%s", arg, &w.out)
		}
	}
	w = newStatWorld(t)
	run(context.Background(), w.env, []string{"stat", "-json", w.mount})
	want := `{
  "fsid": "0123456789abcdef",
  "rid": "fedcba9876543210",
  "running": false,
  "daemon": null,
  "kernel": null
}
`
	if w.out.String() != want {
		t.Errorf("got %s", &w.out)
	}
}

// TestStatTouchesNothing: stat does not open the mount point of a running daemon, which
// could then not be unmounted.
func TestStatTouchesNothing(t *testing.T) {
	w := newStatWorld(t)
	w.daemonState(t, true)
	w.env.statfs = func(_ context.Context, dir string) (notify.Mount, error) {
		t.Errorf("the file system at %s was opened", dir)
		return notify.Mount{}, notify.ErrNotScoutFS
	}
	if status := run(context.Background(), w.env, []string{"stat", "/mnt/scoutfs"}); status != 0 {
		t.Errorf("exit status %d, errors %q", status, &w.errs)
	}
}

func TestStatErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, w *statWorld) (arg string)
		want  string
	}{
		{"other file system", func(t *testing.T, w *statWorld) string { return w.env.runDir }, "not a mounted ScoutFS"},
		{"no such", func(t *testing.T, w *statWorld) string { return w.mount + "/none" }, "no such file"},
		{"a file", func(t *testing.T, w *statWorld) string {
			write(t, w.mount+"/file", "")
			return w.mount + "/file"
		}, "neither a directory of a mounted ScoutFS nor a socket"},
		{"bad state", func(t *testing.T, w *statWorld) string {
			write(t, filepath.Join(filepath.Dir(w.socket), notify.StateName), `{"pid": "x"`)
			return w.mount
		}, "state.json"},
		{"bad counter", func(t *testing.T, w *statWorld) string {
			w.counters(t, "a", statMount, 1, 1, 1)
			write(t, filepath.Join(w.env.sysfs, "a", "counters", "notify_emitted"), "many\n")
			return w.mount
		}, "notify_emitted"},
		{"no locks", func(t *testing.T, w *statWorld) string {
			w.daemonState(t, true)
			w.env.proc = w.mount
			return w.mount
		}, "locks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newStatWorld(t)
			arg := tt.setup(t, w)
			if status := run(context.Background(), w.env, []string{"stat", arg}); status != 1 || !strings.Contains(w.errs.String(), tt.want) {
				t.Errorf("exit status %d, errors %q", status, &w.errs)
			}
		})
	}
}

const someLocks = `1: POSIX  ADVISORY  WRITE 708 08:01:1234 0 EOF
2: FLOCK  ADVISORY  WRITE 4242 00:18:1234 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4243 00:18:1234 0 EOF
3: FLOCK  ADVISORY  WRITE 4244
4: FLOCK  ADVISORY  WRITE 4245 1234 0 EOF
`

func TestFindLock(t *testing.T) {
	for _, tt := range []struct {
		pid  int
		ino  uint64
		want bool
	}{
		{4242, 1234, true},
		{4242, 123, false},
		{4243, 1234, false}, // waits for it
		{708, 1234, false},  // of another kind
		{4244, 1234, false},
		{4245, 1234, false},
	} {
		if got, err := findLock(strings.NewReader(someLocks), tt.pid, tt.ino); got != tt.want || err != nil {
			t.Errorf("process %d, inode %d: %v, %v", tt.pid, tt.ino, got, err)
		}
	}
}

func FuzzFindLock(f *testing.F) {
	f.Add([]byte(someLocks))
	f.Add([]byte("1: FLOCK ADVISORY WRITE 1 ::1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		held, err := findLock(bytes.NewReader(b), 4242, 1234)
		if held && (err != nil || !bytes.Contains(b, []byte("4242")) || !bytes.Contains(b, []byte(":1234"))) {
			t.Errorf("held, %v", err)
		}
	})
}

// A mount point is somebody's choice of bytes.
func TestStatPrintable(t *testing.T) {
	var b strings.Builder
	st := &status{Running: true, Daemon: &notify.State{MountPoint: "/mnt/\x1b[2J\u202e\xff"}}
	if err := st.print(&b, ""); err != nil {
		t.Fatal(err)
	}
	if want := `for /mnt/\x1b[2J\xe2\x80\xae\xff since`; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in\n%s", want, &b)
	}
}

// TestPrintableJSON: what is printed means the same and has nothing that a terminal
// could take for a command.
func TestPrintableJSON(t *testing.T) {
	const text = "/mnt/Größe 文件\x1b[2J\u202e\u009b1m\x7f\u200b\U000e0041\u2028\"\\<\n"
	var b strings.Builder
	e := json.NewEncoder(printableJSON{&b})
	e.SetIndent("", "  ")
	if err := e.Encode(map[string]string{text: text}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("it prints %q", b.String()[i:])
	}
	if !strings.Contains(b.String(), "Größe 文件") {
		t.Errorf("it escapes too much: %s", b.String())
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil || got[text] != text {
		t.Errorf("it became %q, %v", got, err)
	}
}

// TestStatJSONPrintable: stat -json shows a strange mount point so.
func TestStatJSONPrintable(t *testing.T) {
	w := newStatWorld(t)
	w.daemonState(t, true)
	file := filepath.Join(filepath.Dir(w.socket), notify.StateName)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const strange = "/mnt/\u009b2J\u202e\x7f"
	write(t, file, strings.Replace(string(b), "/mnt/scoutfs", strange, 1))
	if status := run(t.Context(), w.env, []string{"stat", "-json", w.mount}); status != 0 {
		t.Errorf("exit status %d: %s", status, &w.errs)
	}
	if want := `"mount_point": "/mnt/\u009b2J\u202e\u007f"`; !strings.Contains(w.out.String(), want) {
		t.Errorf("no %s in\n%s", want, &w.out)
	}
}
