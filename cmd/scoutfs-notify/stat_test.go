// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

var statMount = notify.Mount{FSID: 0x0123456789abcdef, RID: 0xfedcba9876543210, Device: notify.Device{Minor: 42}}

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
	root := shortTempDir(t)
	w := &statWorld{mount: filepath.Join(root, "mnt")}
	w.env = &environment{
		stdout: &w.out, stderr: &w.errs, patience: time.Minute,
		statfs: func(ctx context.Context, dir string) (notify.Mount, error) {
			if dir == w.mount {
				return statMount, nil
			}
			return notify.StatfsContext(ctx, dir)
		},
		runDir: filepath.Join(root, "run"), sysfs: filepath.Join(root, "sys"), proc: "/proc",
		modules: filepath.Join(root, "module"), kernels: filepath.Join(root, "kernels"),
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

// daemonState writes a daemon's state.
func (w *statWorld) daemonState(t *testing.T, change func(st *notify.State)) {
	t.Helper()
	start := time.Unix(1700000000, 0)
	st := &notify.State{
		Version: "1.2.3", MountPoint: "/mnt/scoutfs", FSID: statMount.FSID, RID: statMount.RID, Device: statMount.Device, PID: 4241,
		Start: start, Attached: start.Add(time.Second), Updated: start.Add(time.Minute), Socket: w.socket, Protocol: 2,
		Records: 1000, LastSeq: 1017, KernelDropped: 17, Batches: 30, FullBatches: 2,
		SentRecords: 1900, SentPackets: 950, LostRecords: 100, LostEpisodes: 1, QueueLimit: 67108864, QueueCuts: 3,
		MaxClients: 64, Accepted: 5, Refused: notify.Refusals{MaxClients: 1, Credentials: 3, Resources: 4, Protocol: 2},
		Clients: []notify.ClientState{
			{ID: 1, PID: 4242, Since: start, Protocol: 2, Filtered: true, PerPacket: 1024, Records: 1000, Packets: 50},
			{ID: 5, PID: 4243, Since: start, Protocol: 1, PerPacket: 1, Records: 900, Packets: 900, Lost: 100, Behind: true},
		},
	}
	if change != nil {
		change(st)
	}
	b, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(w.socket), notify.StateName), string(b))
}

// answers starts a daemon that answers questions who it is.
func (w *statWorld) answers(t *testing.T, change func(h *notify.Hello)) {
	t.Helper()
	h := *fakeHello
	if change != nil {
		change(&h)
	}
	rawDaemon(t, w.socket, func(c *fakeClient) {
		if !c.req.Probe {
			t.Error("stat asks for more than who it is")
		}
		c.say(&h, &notify.End{Seq: h.Next, Reason: notify.EndProbe})
	})
}

// refuses starts a daemon that turns everybody away.
func (w *statWorld) refuses(t *testing.T, why notify.Reason) {
	t.Helper()
	rawDaemon(t, w.socket, func(c *fakeClient) { c.say(&notify.End{Reason: why}) })
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

// Parts of what stat prints.
const (
	statSystem  = "file system  0123456789abcdef, mounted as fedcba9876543210, device 0:42\n"
	statFigures = `process      4241 for /mnt/scoutfs since 2023-11-14 22:13:20, version 1.2.3, protocol 2
records      1000 from the kernel since 2023-11-14 22:13:21, the last is number 1017; 17 dropped there
batches      30, 2 of them full
sent         1900 records in 950 packets; 100 lost (episodes: 1)
queues       67108864 bytes in all at most; cut short for that: 3
clients      2 of 64; 5 accepted so far
refused      1 too many, 3 not root, 4 for want of resources, 2 for breaking the protocol
`
	statKernel  = "kernel       1000 emitted, 17 dropped, since the mount; readers so far: 1\n" + statModule
	statNone    = "kernel       no notify counters: the module has no notify support, or the file system is not mounted\n" + statModule
	statModule  = "module       none\nnext boot    not known: there is no kernel here\n"
	statClients = `
  CLIENT        PID  SINCE               PROTOCOL PER PACKET FILTER           SENT           LOST
       1       4242  2023-11-14 22:13:20        2       1024 yes              1000              0
       5       4243  2023-11-14 22:13:20        1          1 no                900            100  behind
`
)

func TestStat(t *testing.T) {
	other := notify.Mount{FSID: statMount.FSID, RID: statMount.RID + 1}
	counted := func(t *testing.T, w *statWorld) {
		w.counters(t, "f.012345.r.fedcbb", other, 1, 2, 3)
		w.counters(t, "f.012345.r.fedcba", statMount, 1000, 17, 1)
	}
	for _, tt := range []struct {
		name    string
		setup   func(t *testing.T, w *statWorld)
		socket  bool // it is the argument
		status  int
		running string // in JSON
		want    string
	}{
		{"running", func(t *testing.T, w *statWorld) {
			w.daemonState(t, nil)
			w.answers(t, nil)
			counted(t, w)
		}, false, 0, "true", statSystem + "daemon       running, as of 2023-11-14 22:14:20\n" + statFigures + statKernel + statClients},
		{"running, by its socket", func(t *testing.T, w *statWorld) {
			w.daemonState(t, nil)
			w.answers(t, nil)
			counted(t, w)
		}, true, 0, "true", statSystem + "daemon       running, as of 2023-11-14 22:14:20\n" + statFigures + statKernel + statClients},
		{"running, without a state", func(t *testing.T, w *statWorld) {
			w.answers(t, nil)
			counted(t, w)
		}, false, 0, "true", statSystem + "daemon       running since 2023-11-14 22:13:20, but has written no state: LOG\n" + statKernel},
		{"not running", func(t *testing.T, w *statWorld) {
			w.counters(t, "f.012345.r.fedcba", statMount, 0, 0, 0)
		}, false, 1, "false", statSystem + "daemon       not running: HINT\nkernel       0 emitted, 0 dropped, since the mount; readers so far: 0\n" + statModule},
		{"killed, no notify support", func(t *testing.T, w *statWorld) {
			w.daemonState(t, nil)
			staleSocket(t, w.socket)
			w.counters(t, "f.012345.r.fedcba", statMount)
		}, false, 1, "false", statSystem + "daemon       not running: HINT\n" + statNone},
		{"killed, and mounted anew", func(t *testing.T, w *statWorld) {
			w.daemonState(t, func(st *notify.State) { st.RID++; st.Device.Minor++ })
			staleSocket(t, w.socket)
			counted(t, w)
		}, false, 1, "false", statSystem + "daemon       not running: HINT\n" + statKernel},
		{"stopped", func(t *testing.T, w *statWorld) {
			w.daemonState(t, nil)
			w.env.patience = 10 * time.Millisecond
			release := make(chan struct{})
			rawDaemon(t, w.socket, func(*fakeClient) { <-release })
			t.Cleanup(func() { close(release) }) // before the daemon's own
			counted(t, w)
		}, false, 1, "false", statSystem + "daemon       does not answer within 10ms, as of 2023-11-14 22:14:20: LOG\n" + statFigures + statKernel + statClients},
		{"root of a container", func(t *testing.T, w *statWorld) {
			w.daemonState(t, nil)
			w.refuses(t, notify.EndCredentials)
			counted(t, w)
		}, false, 0, "null", statSystem + "daemon       as of 2023-11-14 22:14:20; only root can ask whether it still runs\n" + statFigures + statKernel + statClients},
		{"may not ask, without a state", func(t *testing.T, w *statWorld) {
			w.refuses(t, notify.EndCredentials)
		}, false, 0, "null", statSystem + "daemon       not known: only root can ask, and it has written no state\n" + statNone},
		{"socket, not running", func(*testing.T, *statWorld) {}, true, 1, "false", "daemon       not running: HINT\n" + statNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newStatWorld(t)
			tt.setup(t, w)
			arg := w.mount
			if tt.socket {
				arg = w.socket
			}
			status := run(t.Context(), w.env, []string{"stat", arg})
			want := strings.NewReplacer("HINT", startHint(w.env, arg), "LOG", logHint(w.env, arg)).Replace(tt.want)
			if got := w.out.String(); got != want || status != tt.status || w.errs.Len() > 0 {
				t.Errorf("exit status %d, errors %q, got\n%s\nwant\n%s", status, &w.errs, got, want)
			}
			w.out.Reset()
			status = run(t.Context(), w.env, []string{"stat", "-json", arg})
			if want := `"running": ` + tt.running + ","; status != tt.status || w.errs.Len() > 0 || !strings.Contains(w.out.String(), want) {
				t.Errorf("exit status %d, errors %q, no %q in\n%s", status, &w.errs, want, &w.out)
			}
		})
	}
}

// staleSocket makes a socket as a daemon that was killed leaves it.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

// TestStatUser: another user than root is shown the last state, and that only root can
// ask.
func TestStatUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: it takes root to become another user")
	}
	w := newStatWorld(t)
	w.daemonState(t, nil)
	rawDaemon(t, w.socket, func(*fakeClient) { t.Error("a user who is not root was let in") })
	for _, dir := range []string{filepath.Dir(w.mount), w.mount, w.env.runDir, filepath.Dir(w.socket)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{notify.StateName: 0o644, notify.SocketName: 0o600} {
		if err := os.Chmod(filepath.Join(filepath.Dir(w.socket), name), mode); err != nil {
			t.Fatal(err)
		}
	}
	// The test's own program may be where only root finds it.
	program := filepath.Join(filepath.Dir(w.mount), "program")
	if err := os.Link(os.Args[0], program); err != nil {
		b, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "stat", w.socket)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	for _, part := range []string{"; only root can ask whether it still runs\n", "records      1000 from the kernel"} {
		if err != nil || !strings.Contains(string(out), part) {
			t.Errorf("%v, no %q in\n%s", err, part, out)
		}
	}
}

// TestStatOtherMount: what does not fit to the mount that was asked for is said, and no
// figure of another's is shown.
func TestStatOtherMount(t *testing.T) {
	for name, tt := range map[string]struct {
		state func(st *notify.State)
		hello func(h *notify.Hello)
		want  string
	}{
		"second mount":       {func(st *notify.State) { st.Device.Minor, st.RID = 43, 7 }, func(h *notify.Hello) { h.Device.Minor, h.RID = 43, 7 }, "that on device 0:43, not that on device 0:42"},
		"other file system":  {nil, func(h *notify.Hello) { h.FSID = 7 }, "file system 0000000000000007, not 0123456789abcdef"},
		"mounted anew":       {nil, func(h *notify.Hello) { h.RID = 7 }, "0000000000000007, not fedcba9876543210"},
		"state of another":   {func(st *notify.State) { st.RID = 7 }, nil, "0000000000000007, not fedcba9876543210"},
		"state of other dev": {func(st *notify.State) { st.Device.Minor = 43 }, nil, "that on device 0:43, not that on device 0:42"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStatWorld(t)
			w.daemonState(t, tt.state)
			w.answers(t, tt.hello)
			for _, format := range []string{"-json", "-json=false"} {
				status := run(t.Context(), w.env, []string{"stat", format, w.mount})
				if status != 69 || w.out.Len() > 0 || !strings.Contains(w.errs.String(), "scoutfs-notifyd serves another mount: "+tt.want+": ") {
					t.Errorf("exit status %d, output %q, errors %q", status, &w.out, &w.errs)
				}
			}
		})
	}
}

func TestStatJSON(t *testing.T) {
	w := newStatWorld(t)
	w.daemonState(t, nil)
	w.answers(t, nil)
	w.counters(t, "f.012345.r.fedcba", statMount, 1000, 17, 1)
	// By mount point and by socket.
	for _, arg := range []string{w.mount, w.socket} {
		w.out.Reset()
		if status := run(t.Context(), w.env, []string{"stat", "-json", arg}); status != 0 || w.errs.Len() > 0 {
			t.Errorf("%s: exit status %d, errors %q", arg, status, &w.errs)
		}
		var got struct {
			FSID, RID, Device string
			Running           bool
			Daemon            struct {
				Records uint64
				Clients []map[string]any
			}
			Kernel map[string]uint64
		}
		if err := json.Unmarshal(w.out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.FSID != "0123456789abcdef" || got.RID != "fedcba9876543210" || got.Device != "0:42" || !got.Running || got.Daemon.Records != 1000 ||
			len(got.Daemon.Clients) != 2 || got.Daemon.Clients[1]["lost"] != 100.0 || got.Kernel["emitted"] != 1000 {
			t.Errorf("%s: got\n%s", arg, &w.out)
		}
	}
	w = newStatWorld(t)
	run(t.Context(), w.env, []string{"stat", "-json", w.mount})
	want := `{
  "fsid": "0123456789abcdef",
  "rid": "fedcba9876543210",
  "device": "0:42",
  "running": false,
  "daemon": null,
  "kernel": null,
  "module": {
    "loaded": "",
    "kernels": []
  }
}
`
	if w.out.String() != want {
		t.Errorf("got %s", &w.out)
	}
}

// TestStatTouchesNothing: stat does not open the mount point of a running daemon, which
// could then not be unmounted. The mount point here does not even exist: it is on the
// device of the root directory.
func TestStatTouchesNothing(t *testing.T) {
	root, err := notify.MountOf("/")
	if err != nil {
		t.Fatal(err)
	}
	w := newStatWorld(t)
	w.daemonState(t, func(st *notify.State) { st.Device = root.Device })
	w.answers(t, func(h *notify.Hello) { h.Device = root.Device })
	w.env.statfs = func(_ context.Context, dir string) (notify.Mount, error) {
		t.Errorf("the file system at %s was opened", dir)
		return notify.Mount{}, notify.ErrNotScoutFS
	}
	if status := run(t.Context(), w.env, []string{"stat", "/nonexistent/mount"}); status != 0 {
		t.Errorf("exit status %d, errors %q", status, &w.errs)
	}
}

func TestStatErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		setup  func(t *testing.T, w *statWorld) (arg string)
		status int
		want   string
	}{
		{"other file system", func(t *testing.T, w *statWorld) string { return w.env.runDir }, 69, "not a mounted ScoutFS"},
		{"no such", func(t *testing.T, w *statWorld) string { return w.mount + "/none" }, 66, "no such file"},
		{"a file", func(t *testing.T, w *statWorld) string {
			write(t, w.mount+"/file", "")
			return w.mount + "/file"
		}, 66, "neither a directory of a mounted ScoutFS nor a socket"},
		{"bad state", func(t *testing.T, w *statWorld) string {
			write(t, filepath.Join(filepath.Dir(w.socket), notify.StateName), `{"pid": "x"`)
			return w.mount
		}, 1, "state.json"},
		{"bad counter", func(t *testing.T, w *statWorld) string {
			w.counters(t, "a", statMount, 1, 1, 1)
			write(t, filepath.Join(w.env.sysfs, "a", "counters", "notify_emitted"), "many\n")
			return w.mount
		}, 1, "notify_emitted"},
		{"no resources", func(t *testing.T, w *statWorld) string {
			w.refuses(t, notify.EndResources)
			return w.mount
		}, 69, "out of descriptors or memory: see journalctl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newStatWorld(t)
			arg := tt.setup(t, w)
			if status := run(context.Background(), w.env, []string{"stat", arg}); status != tt.status || !strings.Contains(w.errs.String(), tt.want) {
				t.Errorf("exit status %d, errors %q", status, &w.errs)
			}
		})
	}
}

// A mount point is somebody's choice of bytes.
func TestStatPrintable(t *testing.T) {
	w := newStatWorld(t)
	yes := true
	st := &status{Running: &yes, Daemon: &notify.State{MountPoint: "/mnt/\x1b[2J\u202e\xff"}}
	if err := st.print(w.env, w.mount); err != nil {
		t.Fatal(err)
	}
	if want := `for /mnt/\x1b[2J\xe2\x80\xae\xff since`; !strings.Contains(w.out.String(), want) {
		t.Errorf("no %q in\n%s", want, &w.out)
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
	w.daemonState(t, nil)
	w.answers(t, nil)
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
