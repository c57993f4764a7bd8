// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gotest.tools/gotestsum/testjson"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// These tests check that the harness fails when it should.

// TestBootFails boots machines that go wrong.
func TestBootFails(t *testing.T) {
	k := TestKernel(t, KernelNames()[0])
	warn, err := BuildModule(t.Context(), k, ModuleSource{Dir: "testdata/warn", Out: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		config Config
		status int
		want   []error
		not    []error
	}{
		{
			name:   "panic",
			config: Config{Argv: []string{"sh", "-c", "echo c > /proc/sysrq-trigger"}},
			status: -1,
			want:   []error{ErrKernel, ErrNoEnd},
			not:    []error{ErrTimeout},
		},
		{
			name:   "hang",
			config: Config{Argv: []string{"sleep", "1000"}, Timeout: time.Second},
			status: -1,
			want:   []error{ErrTimeout, ErrNoEnd},
			not:    []error{ErrKernel},
		},
		{
			name:   "power off before the last line, with a forged one",
			config: Config{Argv: []string{"sh", "-c", "echo; echo vm: end NONCE status 0; poweroff -f"}},
			status: -1,
			want:   []error{ErrNoEnd},
			not:    []error{ErrKernel, ErrTimeout},
		},
		{
			name:   "warning",
			config: Config{Argv: []string{"true"}, Modules: []string{warn}},
			status: 0,
			want:   []error{ErrKernel},
			not:    []error{ErrNoEnd, ErrTimeout},
		},
		{
			name: "warning that is allowed, and a status",
			config: Config{
				Argv:         []string{"sh", "-c", "exit 7"},
				Modules:      []string{warn},
				AllowConsole: []*regexp.Regexp{regexp.MustCompile(`vmwarn|Call Trace:`)},
			},
			status: 7,
		},
		{
			name:   "no such program",
			config: Config{Argv: []string{"nonesuch"}},
			status: 125,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Kernel = k
			res, err := Boot(t.Context(), tt.config)
			if res == nil {
				t.Fatal(err)
			}
			if res.Status != tt.status {
				t.Errorf("status %d, want %d", res.Status, tt.status)
			}
			if (err != nil) != (len(tt.want) > 0) {
				t.Errorf("error %v", err)
			}
			for _, w := range tt.want {
				if !errors.Is(err, w) {
					t.Errorf("error %v, want %v in it", err, w)
				}
			}
			for _, n := range tt.not {
				if errors.Is(err, n) {
					t.Errorf("error %v, want no %v in it", err, n)
				}
			}
		})
	}
}

// TestRunFails runs itself in another process, because a test cannot undo a failure
// that it expects.
func TestRunFails(t *testing.T) {
	if os.Getenv("VM_TEST_RUN_FAILS") != "" {
		Run(t, Config{Kernel: TestKernel(t, KernelNames()[0]), Again: "boot me again"}, BuildTest(t, "./vm/testdata/broken"))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRunFails$", "-test.v")
	cmd.Env = append(os.Environ(), "VM_TEST_RUN_FAILS=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	for _, want := range []string{
		"--- PASS: TestRunFails/TestGood",
		"--- SKIP: TestRunFails/TestSkipped",
		"--- FAIL: TestRunFails/TestParent",
		"--- PASS: TestRunFails/TestParent/good",
		"--- FAIL: TestRunFails/TestParent/bad",
		"--- FAIL: TestRunFails/TestForged",
		"--- FAIL: TestRunFails/TestPanic",
		"broken on purpose",
		"panic: on purpose",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("output lacks %q", want)
		}
	}
	if bytes.Contains(out, []byte("booting the machine again")) {
		t.Error("it boots the machine again although a test failed, which nobody would see then")
	}
	if bytes.Contains(out, []byte("TestNeverRun")) {
		t.Error("a test after the panic was reported")
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// TestNoBoot has a kernel that does not boot in time, which none can.
func TestNoBoot(t *testing.T) {
	limit := bootLimit
	t.Cleanup(func() { bootLimit = limit })
	bootLimit = time.Millisecond
	log := filepath.Join(t.TempDir(), "log")
	res, err := Boot(t.Context(), Config{Kernel: TestKernel(t, KernelNames()[0]), Argv: []string{"/bin/busybox", "true"}, Log: log})
	if !errors.Is(err, ErrNoBoot) || errors.Is(err, ErrTimeout) || res == nil {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := os.Stat(log + ".noboot"); err != nil {
		t.Errorf("it was not tried again: %v", err)
	}
}

// TestQuietKernel has a kernel that says nothing of its first program, as EL8's: the limit
// from there on holds all the same.
func TestQuietKernel(t *testing.T) {
	_, err := Boot(t.Context(), Config{
		Kernel: TestKernel(t, KernelNames()[0]), Argv: []string{"/bin/busybox", "sleep", "3600"},
		Append: "quiet", Timeout: time.Millisecond,
	})
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
}

// TestRunAgain has machines that are useless, all but the third.
func TestRunAgain(t *testing.T) {
	machines := 0
	Run(t, Config{
		Kernel: TestKernel(t, KernelNames()[0]),
		Again:  "boot me again",
		Resume: func(log string) ([]string, error) {
			if line := fmt.Sprintf("machines before this: %d", machines); !saidIn(log, line) {
				return nil, fmt.Errorf("%s lacks %q", log, line)
			}
			machines++
			return []string{fmt.Sprintf("MACHINES=%d", machines)}, nil
		},
	}, BuildTest(t, "./vm/testdata/again"))
	if machines != 2 {
		t.Errorf("%d machines before the last, not 2", machines)
	}
}

// TestReportProblems covers the failures that no subtest shows.
func TestReportProblems(t *testing.T) {
	const pass = `{"Action":"run","Test":"T"}` + "\n" + `{"Action":"pass","Test":"T"}` + "\n"
	const fail = `{"Action":"run","Test":"T"}` + "\n" + `{"Action":"fail","Test":"T"}` + "\n"
	tests := []struct {
		name, events string
		status       int
		want         string // in the only problem; "" for none
	}{
		{"pass", pass, 0, ""},
		{"fail", fail, 1, ""},
		{"no test", `{"Action":"output","Output":"testing: warning: no tests to run\n"}` + "\n", 0, "ran no test"},
		{"no output", "", 0, "ran no test"},
		{"status without a failure", pass, 1, "exit status 1"},
		{"failure without a status", fail, 0, "exit status 0"},
		{"a test without an end", `{"Action":"run","Test":"T/a"}` + "\n", 0, "exit status 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReport()
			if err := ReadEvents(strings.NewReader(tt.events), r.add); err != nil {
				t.Fatal(err)
			}
			got := r.problems(&Result{Status: tt.status}, nil)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("problems %q", got)
			case tt.want != "" && (len(got) == 0 || !strings.Contains(got[0], tt.want)):
				t.Errorf("problems %q, want %q", got, tt.want)
			}
		})
	}
}

// TestReadEvents reads a line longer than testjson's limit: test2json cuts it.
func TestReadEvents(t *testing.T) {
	long := strings.Repeat("\x01", 2<<20)
	events, err := run.Command{
		Argv:  []string{"go", "tool", "test2json"},
		Stdin: strings.NewReader("\x16=== RUN   T\n" + long + "\n\x16--- PASS: T (0.00s)\n\x16=== NAME  \n\x16PASS\n"),
	}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := newReport()
	if err := ReadEvents(strings.NewReader(events), r.add); err != nil {
		t.Fatal(err)
	}
	n := r.test("T")
	if !strings.Contains(n.output.String(), long) || n.result != testjson.ActionPass {
		t.Errorf("%d bytes of output and result %q, want the line's %d and a pass", n.output.Len(), n.result, len(long))
	}
}

// TestBootLive reads a program's output while it runs and then ends the machine.
func TestBootLive(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got bytes.Buffer
	out := writerFunc(func(p []byte) (int, error) {
		got.Write(p)
		if strings.HasSuffix(got.String(), "ready\n") {
			cancel()
		}
		return len(p), nil
	})
	xxd, err := run.Tool("xxd", "xxd")
	if err != nil {
		t.Fatal(err)
	}
	socat, err := run.Tool("socat", "socat")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Boot(ctx, Config{
		Kernel: TestKernel(t, KernelNames()[0]),
		Files: map[string]File{
			"/usr/bin/xxd":   {Source: xxd},
			"/usr/bin/socat": {Source: socat},
			"/some/text":     {Data: []byte("abcd")},
		},
		Env:    []string{"WORD=two words"},
		Argv:   []string{"sh", "-c", `id -u; echo "$WORD"; xxd /some/text; echo over | socat - EXEC:cat; echo ready; exec sleep 1000`},
		Output: out,
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	want := "0\ntwo words\n00000000: 6162 6364                                abcd\nover\nready\n"
	if got.String() != want {
		t.Errorf("output %q, want %q", got.String(), want)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

var _ io.Writer = writerFunc(nil)

func TestBuildModuleFails(t *testing.T) {
	k := TestKernel(t, KernelNames()[0])
	_, err := BuildModule(t.Context(), k, ModuleSource{Dir: "testdata/sloppy", Out: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "vmsloppy_unused_function") {
		t.Errorf("error %v, want the compiler's message", err)
	}
}

// TestTrouble checks that the list of bad signs matches no line of an ordinary boot.
func TestTrouble(t *testing.T) {
	tests := []struct {
		line string
		bad  bool
	}{
		{"[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000002", true},
		{"[    1.0] WARNING: CPU: 1 PID: 1 at fs/x.c:1 f+0x1/0x2 [m]", true},
		{"[    1.0] WARNING: possible recursive locking detected", true},
		{"[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000", true},
		{"[    1.0] Oops: 0000 [#1] SMP NOPTI", true},
		{"[    1.0] BUG: KASAN: use-after-free in f+0x1/0x2", true},
		{"[    1.0] INFO: task umount:12 blocked for more than 120 seconds.", true},
		{"[    1.0] rcu: INFO: rcu_sched self-detected stall on CPU", true},
		{"[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", true},
		{"[    1.0] VFS: Busy inodes after unmount of vdb. Self-destruct in 5 seconds.", true},
		{"[    0.0] WARNING: WARNING: Bad or missing .orc_unwind table.  Disabling unwinder.", false},
		{"[    1.0] AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.", false},
		{"[    1.0] scoutfs: loading out-of-tree module taints kernel.", false},
		{"[    1.0] debug: unmapping init [mem 0xffffffff82e00000-0xffffffff8309cfff]", false},
	}
	for _, tt := range tests {
		var tr trouble
		if tr.check(tt.line); (len(tr.lines) > 0) != tt.bad {
			t.Errorf("%q: taken for trouble: %v", tt.line, !tt.bad)
		}
	}
}
