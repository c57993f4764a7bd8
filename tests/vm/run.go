// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/gotestsum/testjson"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// GuestTest is where Run puts the test binary in the machine.
const GuestTest = "/usr/bin/guest.test"

// BuildTest compiles the tests of a package for the guest, without cgo, and returns
// the binary's path. pkg is relative to the tests module, such as "./guest".
func BuildTest(tb testing.TB, pkg string) string {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "guest.test")
	if err := goBuild(tb.Context(), "amd64", "./tests/"+strings.TrimPrefix(pkg, "./"), out, "test", "-c"); err != nil {
		tb.Fatal(err)
	}
	return out
}

// reserve is the time that a host test keeps to report a machine's end, and that a
// guest's test binary keeps to report its own.
const reserve = 10 * time.Second

// Run boots a machine that runs a compiled Go test binary, the path binary on the
// host, with args such as "-test.run=X". Each test in the machine becomes a subtest
// of t. Run fails t if [Boot] returns an error, if no test ran, or if the exit
// status contradicts the results. It sets Config's Argv and Output. Without a Log
// in Config, the log goes to the cache's folder logs; a failure names its path.
func Run(t *testing.T, c Config, binary string, args ...string) {
	t.Helper()
	if c.Log == "" {
		dir, err := repo.CacheDir("logs")
		if err != nil {
			t.Fatal(err)
		}
		c.Log = filepath.Join(dir, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name())+".log")
	}
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-reserve))
		defer cancel()
	}
	env, most := c.Env, 2
	if c.Resume != nil {
		most = 100
	}
	report, res, err := bootTest(ctx, c, binary, args)
	for again := 1; again <= most && c.Again != "" && ctx.Err() == nil && saidIn(c.Log, c.Again); again++ {
		if report != nil && report.root.ended(testjson.ActionFail) {
			break // which the next machine would not show
		}
		earlier := fmt.Sprintf("%s.%d", c.Log, again)
		if e := os.Rename(c.Log, earlier); e != nil {
			t.Fatal(e)
		}
		t.Logf("%q: booting the machine again; the last one's log: %s", c.Again, earlier)
		c.resume(t, env, earlier)
		report, res, err = bootTest(ctx, c, binary, args)
	}
	if res != nil {
		t.Logf("kernel %s (%s), machine up for %.1f s, log %s", c.Kernel.Name, c.Kernel.Version, res.Elapsed.Seconds(), c.Log)
	}
	if err != nil {
		t.Errorf("machine: %v\nlog: %s", err, c.Log)
	}
	if report == nil {
		return
	}
	report.replay(t)
	for _, p := range report.problems(res, err) {
		t.Errorf("guest: %s; log: %s", p, c.Log)
	}
	if t.Failed() {
		t.Logf("the end of %s:\n%s", c.Log, tail(c.Log, 60))
	}
}

// resume adds to env what the next machine needs to go on where the last one, with that
// log, stopped.
func (c *Config) resume(t *testing.T, env []string, log string) {
	t.Helper()
	if c.Resume == nil {
		return
	}
	more, err := c.Resume(log)
	if err != nil {
		t.Fatal(err)
	}
	c.Env = append(slices.Clip(env), more...)
}

// saidIn says whether a machine's log has a line.
func saidIn(log, line string) bool {
	text, err := os.ReadFile(log)
	return err == nil && strings.Contains(string(text), "| "+line+"\n")
}

// bootTest is Run without a testing.T.
func bootTest(ctx context.Context, c Config, binary string, args []string) (*report, *Result, error) {
	files := map[string]File{GuestTest: {Source: binary, Mode: 0o755}}
	for name, f := range c.Files {
		files[name] = f
	}
	c.Files = files
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Minute
	}
	// The binary's own limit is shorter: it then prints where its tests hang.
	limit := c.Timeout
	if end, ok := ctx.Deadline(); ok && time.Until(end) < limit {
		limit = time.Until(end)
	}
	c.Argv = []string{GuestTest, "-test.v=test2json", "-test.paniconexit0"}
	if limit > 3*reserve {
		c.Argv = append(c.Argv, "-test.timeout="+(limit-reserve).String())
	}
	c.Argv = append(c.Argv, args...)

	// Go's own tool knows the format best.
	conv := exec.Command("go", "tool", "test2json")
	in, err := conv.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := conv.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	conv.Stderr = os.Stderr
	if err := conv.Start(); err != nil {
		return nil, nil, fmt.Errorf("start go tool test2json: %w", err)
	}
	rep := newReport()
	parsed := make(chan error, 1)
	go func() { parsed <- ReadEvents(out, rep.add) }()
	c.Output = in
	res, err := Boot(ctx, c)
	err = errors.Join(err, in.Close(), <-parsed)
	if e := conv.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("go tool test2json: %w", e))
	}
	return rep, res, err
}

// report holds the results of a guest's tests.
type report struct {
	root  *node
	tests int             // how many started
	stray strings.Builder // output outside of tests
}

// node is a test of the guest.
type node struct {
	name   string
	result testjson.Action // "" if it started and did not end
	seen   bool
	output strings.Builder
	kids   []*node
}

func newReport() *report { return &report{root: &node{}} }

// child returns a test below n, adding it if there is none of that name.
func (n *node) child(name string) *node {
	for _, k := range n.kids {
		if k.name == name {
			return k
		}
	}
	k := &node{name: name}
	n.kids = append(n.kids, k)
	return k
}

func (r *report) test(name string) *node {
	n := r.root
	for part := range strings.SplitSeq(name, "/") {
		n = n.child(part)
	}
	return n
}

// add takes in an event of test2json.
func (r *report) add(e testjson.TestEvent) {
	if e.Test == "" {
		r.stray.WriteString(e.Output)
		return
	}
	n := r.test(e.Test)
	if !n.seen {
		n.seen = true
		r.tests++
	}
	switch {
	case e.Action.IsTerminal():
		n.result = e.Action
	case e.Action == testjson.ActionOutput && !strings.HasPrefix(strings.TrimLeft(e.Output, " "), "=== "):
		n.output.WriteString(e.Output)
	}
}

// ReadEvents calls handle for each event that "go test -json" or test2json writes,
// and skips any other line. It reads in to its end even after an error, so that the
// writer never blocks.
func ReadEvents(in io.Reader, handle func(testjson.TestEvent)) error {
	_, err := testjson.ScanTestOutput(testjson.ScanConfig{
		Stdout: in, Handler: eventHandler(handle), IgnoreNonJSONOutputLines: true,
	})
	if err != nil {
		err = fmt.Errorf("read the tests' events: %w", err)
	}
	_, drainErr := io.Copy(io.Discard, in)
	return errors.Join(err, drainErr)
}

type eventHandler func(testjson.TestEvent)

func (h eventHandler) Event(e testjson.TestEvent, _ *testjson.Execution) error {
	// testjson makes up a failure, with a negative time, of each test without an end.
	if e.Elapsed >= 0 {
		h(e)
	}
	return nil
}

func (eventHandler) Err(string) error { return nil }

// failed says whether n or a test below it failed or did not end.
func (n *node) failed() bool {
	if n.seen && n.result != testjson.ActionPass && n.result != testjson.ActionSkip {
		return true
	}
	for _, k := range n.kids {
		if k.failed() {
			return true
		}
	}
	return false
}

// ended says whether n or a test below it ended with a result.
func (n *node) ended(result testjson.Action) bool {
	return n.result == result || slices.ContainsFunc(n.kids, func(k *node) bool { return k.ended(result) })
}

// problems returns the failures that no subtest shows. err is Boot's.
func (r *report) problems(res *Result, err error) []string {
	var p []string
	if r.tests == 0 {
		p = append(p, "ran no test")
	}
	if err == nil && res.Status != 0 && !r.root.failed() {
		p = append(p, fmt.Sprintf("exit status %d though no test failed", res.Status))
	}
	if err == nil && res.Status == 0 && r.root.failed() {
		p = append(p, "exit status 0 though a test failed")
	}
	if len(p) > 0 && r.stray.Len() > 0 {
		p = append(p, "output outside of tests:\n"+r.stray.String())
	}
	return p
}

// replay repeats the results as subtests of t.
func (r *report) replay(t *testing.T) {
	for _, k := range r.root.kids {
		k.replay(t)
	}
}

func (n *node) replay(t *testing.T) {
	t.Run(n.name, func(t *testing.T) {
		if out := strings.TrimRight(n.output.String(), "\n"); out != "" {
			t.Log("\n" + out)
		}
		for _, k := range n.kids {
			k.replay(t)
		}
		switch {
		case !n.seen || n.result == testjson.ActionPass:
		case n.result == testjson.ActionSkip:
			t.SkipNow()
		case n.result == testjson.ActionFail:
			t.Fail()
		default:
			t.Error("started in the guest and did not end")
		}
	})
}

// tail returns the last n lines of a file.
func tail(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
