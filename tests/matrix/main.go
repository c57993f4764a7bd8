// SPDX-License-Identifier: GPL-2.0-only

// Matrix runs every check on real ScoutFS for each supported version and prints
// a table of checks by version. "make test-scoutfs" runs it.
//
// SCOUTFS_SRC names the source. VERSIONS limits the versions.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"gotest.tools/gotestsum/testjson"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func main() {
	run.Main(func(ctx context.Context) int {
		good, err := matrix(ctx)
		if err != nil {
			fmt.Fprintln(os.Stderr, "matrix:", err)
			return 2
		}
		if !good {
			return 1
		}
		return 0
	})
}

// results are the outcomes, the checks in the order they first came up.
type results struct {
	checks []string
	cells  map[string]map[string]string // check -> version -> outcome
}

func (r *results) set(check, version, outcome string) {
	if r.cells[check] == nil {
		r.checks = append(r.checks, check)
		r.cells[check] = make(map[string]string)
	}
	if outcome == outcomes[testjson.ActionSkip] && r.cells[check][version] != "" {
		return // done in another machine
	}
	r.cells[check][version] = outcome
}

// matrix runs the checks and prints the table. It is good if every check of every
// version passed.
func matrix(ctx context.Context) (good bool, err error) {
	c := checker{results: results{cells: make(map[string]map[string]string)}}
	if c.src = os.Getenv("SCOUTFS_SRC"); c.src == "" {
		return false, vm.ErrNoSource
	}
	if c.src, err = filepath.Abs(c.src); err != nil {
		return false, err
	}
	all, err := repo.Series()
	if err != nil {
		return false, err
	}
	if c.root, err = repo.Root(); err != nil {
		return false, err
	}
	if c.kernel, err = vm.Kernel(ctx, vm.KernelNames()[0]); err != nil {
		return false, err
	}

	start := time.Now()
	var versions []string
	for _, s := range all {
		versions = append(versions, s.Version)
		fmt.Printf("== ScoutFS %s, after %v\n", s.Version, time.Since(start).Round(time.Second))
		c.version(ctx, s)
		if ctx.Err() != nil {
			break
		}
	}
	// The table may hold hours of work: print it even if the run was interrupted.
	good = c.print(os.Stdout, versions, c.kernel.Version, time.Since(start))
	if ctx.Err() != nil {
		return false, fmt.Errorf("run the checks: %w", context.Cause(ctx))
	}
	return good, nil
}

// checker runs the checks and collects their outcomes.
type checker struct {
	src    string // ScoutFS's repository
	root   string // this repository
	kernel *vm.KernelTree
	results
}

// version runs all checks on one version. Without a build there is nothing to test.
func (c *checker) version(ctx context.Context, s *series.Series) {
	c.check("git am", s.Version, c.apply(ctx, s.Rev(), append([]string{"git", "am", "--quiet"}, s.Paths()...)...))
	if s.Version != series.Main { // which apply.sh does not know, as it is no release
		c.check("apply.sh (--3way)", s.Version, c.apply(ctx, s.Rev(), filepath.Join(c.root, "apply.sh"), "."))
	}
	if !c.check("upstream's build, silent", s.Version, c.build(ctx, s)) {
		return
	}
	for _, pkg := range []string{"./hotpath", "./boot"} {
		c.goTest(ctx, c.root, pkg, s.Version)
	}
}

// check puts a check's outcome into the table and says whether it passed.
func (c *checker) check(name, version string, err error) bool {
	if err != nil {
		fmt.Printf("%s: %s: %v\n", version, name, err)
		c.set(name, version, "FAIL")
		return false
	}
	c.set(name, version, "ok")
	return true
}

// apply runs a command that applies a series in a fresh clone at a revision.
func (c *checker) apply(ctx context.Context, rev string, argv ...string) error {
	dir, err := os.MkdirTemp("", "scoutfs-apply-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, argv := range [][]string{
		{"git", "clone", "--quiet", "--shared", "--no-checkout", c.src, "."},
		{"git", "checkout", "--quiet", "--detach", rev},
		argv,
	} {
		// git am commits, and needs a name for that.
		env := []string{"GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost"}
		if _, err := (run.Command{Dir: dir, Env: env, Argv: argv}).Output(ctx); err != nil {
			return err
		}
	}
	return nil
}

// build builds a version with its series and without.
func (c *checker) build(ctx context.Context, s *series.Series) error {
	for _, apply := range []*series.Series{s, nil} {
		if _, err := vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: s.Version, Rev: s.Rev(), Kernel: c.kernel, Series: apply}); err != nil {
			return err
		}
	}
	return nil
}

// goTest runs one version's tests in a package of the tests module of the
// repository at root, and puts their outcomes into the table.
func (r *results) goTest(ctx context.Context, root, pkg, version string) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", "60m",
		"-run", "^(TestScoutFS|TestCost)$/^"+version+"$", pkg)
	cmd.Dir = filepath.Join(root, "tests")
	cmd.Env = append(os.Environ(), "VERSIONS="+version)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	run.EndAll(cmd)
	err := cmd.Run()
	r.record(pkg, version, &out, err)
}

var outcomes = map[testjson.Action]string{
	testjson.ActionPass: "ok", testjson.ActionFail: "FAIL", testjson.ActionSkip: "skipped",
}

// record puts into the table what "go test -json" wrote. Each test in the machine is
// a check of its own. Any other failure, err among them, fails the check named after
// the package.
func (r *results) record(pkg, version string, out io.Reader, err error) {
	var log strings.Builder
	ran, failed, told := false, false, false
	readErr := vm.ReadEvents(out, func(e testjson.TestEvent) {
		log.WriteString(e.Output)
		if !e.Action.IsTerminal() {
			return
		}
		fail := e.Action == testjson.ActionFail
		failed = failed || fail
		if check := checkOf(pkg, version, e); check != "" {
			r.set(check, version, outcomes[e.Action])
			ran, told = true, told || fail
		}
	})
	err = errors.Join(err, readErr)
	if failed || err != nil {
		fmt.Print(log.String())
	}
	if !ran {
		err = errors.Join(errors.New("no test ran"), err)
	}
	if (failed || err != nil) && !told {
		check := strings.TrimPrefix(pkg, "./")
		fmt.Printf("%s: %s: run the tests: %v\n", version, check, err)
		r.set(check, version, "FAIL")
	}
}

// checkOf returns the check that a test's end decides, or "".
func checkOf(pkg, version string, e testjson.TestEvent) string {
	for _, test := range []string{"TestScoutFS/", "TestCost/"} {
		name := test + version
		if guest, ok := strings.CutPrefix(e.Test, name+"/"); ok && !strings.Contains(guest, "/") {
			return guest
		}
		// Boot's own tests pass when those in the machine do: they are the checks.
		if e.Test == name && (pkg != "./boot" || e.Action == testjson.ActionFail) {
			return strings.TrimPrefix(pkg, "./")
		}
	}
	return ""
}

// print prints the table and says whether all that was not skipped passed.
func (r *results) print(out io.Writer, versions []string, kernel string, took time.Duration) bool {
	fmt.Fprintf(out, "\nScoutFS with its series on Linux %s:\n\n", kernel)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\n", strings.Join(versions, "\t"))
	passed, skipped, failed := 0, 0, 0
	for _, check := range r.checks {
		fmt.Fprint(w, check)
		for _, v := range versions {
			outcome := r.cells[check][v]
			switch outcome {
			case "ok":
				passed++
			case outcomes[testjson.ActionSkip]:
				skipped++
			case "":
				outcome = "not run"
				fallthrough
			default:
				failed++
			}
			fmt.Fprintf(w, "\t%s", outcome)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintf(out, "\n%d passed, %d skipped, %d failed\n", passed, skipped, failed)
	fmt.Fprintf(out, "took %v\n", took.Round(time.Second))
	return failed == 0
}
