// SPDX-License-Identifier: GPL-2.0-only

// Matrix runs every check on real ScoutFS for each supported version and ends
// in a table, check by version. "make test-scoutfs" runs it.
//
// SCOUTFS_SRC names the source. VERSIONS narrows the versions.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	good, err := matrix(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// results are the outcomes, in the order in which the checks first came up.
type results struct {
	checks []string
	cells  map[string]map[string]string // check -> version -> outcome
}

func (r *results) set(check, version, outcome string) {
	if r.cells[check] == nil {
		r.checks = append(r.checks, check)
		r.cells[check] = make(map[string]string)
	}
	r.cells[check][version] = outcome
}

func matrix(ctx context.Context) (good bool, err error) {
	src := os.Getenv("SCOUTFS_SRC")
	if src == "" {
		return false, vm.ErrNoSource
	}
	if src, err = filepath.Abs(src); err != nil {
		return false, err
	}
	all, err := repo.Series()
	if err != nil {
		return false, err
	}
	root, err := repo.Root()
	if err != nil {
		return false, err
	}
	k, err := vm.Kernel(ctx, vm.KernelNames()[0])
	if err != nil {
		return false, err
	}

	r := &results{cells: make(map[string]map[string]string)}
	start := time.Now()
	var versions []string
	for _, s := range all {
		v := s.Version
		versions = append(versions, v)
		fmt.Printf("== ScoutFS %s, after %v\n", v, time.Since(start).Round(time.Second))
		check := func(name string, do func() error) bool {
			outcome := "ok"
			if err := do(); err != nil {
				outcome = "FAIL"
				fmt.Printf("%s: %s: %v\n", v, name, err)
			}
			r.set(name, v, outcome)
			return outcome == "ok"
		}
		check("git am", func() error {
			return apply(ctx, src, v, func(dir string) *exec.Cmd {
				return exec.CommandContext(ctx, "git", append([]string{"-C", dir, "am", "--quiet"}, s.Paths()...)...)
			})
		})
		check("apply.sh (--3way)", func() error {
			return apply(ctx, src, v, func(dir string) *exec.Cmd {
				return exec.CommandContext(ctx, filepath.Join(root, "apply.sh"), dir)
			})
		})
		if !check("upstream's build, silent", func() error {
			for _, apply := range []*series.Series{s, nil} {
				if _, err := vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: v, Kernel: k, Series: apply}); err != nil {
					return err
				}
			}
			return nil
		}) {
			continue
		}
		for _, pkg := range []string{"./hotpath", "./boot"} {
			goTest(ctx, root, pkg, v, r)
		}
		if ctx.Err() != nil {
			break
		}
	}
	// Hours may be in the table: it is printed however they ended.
	good = r.print(os.Stdout, versions, k.Version, time.Since(start))
	if ctx.Err() != nil {
		return false, fmt.Errorf("run the checks: %w", context.Cause(ctx))
	}
	return good, nil
}

// apply runs what applies a series to a fresh clone of a version.
func apply(ctx context.Context, src, version string, applies func(dir string) *exec.Cmd) error {
	dir, err := os.MkdirTemp("", "scoutfs-apply-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "git", "clone", "--quiet", "--shared", "--no-checkout", src, dir),
		exec.CommandContext(ctx, "git", "-C", dir, "checkout", "--quiet", "--detach", "refs/tags/"+version),
		applies(dir),
	} {
		// git am makes commits: they need a name
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return nil
}

// event is a line of "go test -json".
type event struct{ Action, Test, Output string }

// goTest runs the tests of one version in a package of the tests module and puts
// their outcomes into the table. What keeps them from running is a failed check
// as well.
func goTest(ctx context.Context, root, pkg, version string, r *results) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", "60m", "-run", "^TestScoutFS$/^"+version+"$", pkg)
	cmd.Dir = filepath.Join(root, "tests")
	cmd.Env = append(os.Environ(), "VERSIONS="+version)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.record(pkg, version, strings.NewReader(""), func() error { return err })
		return
	}
	r.record(pkg, version, out, cmd.Wait)
}

// record takes what "go test -json" wrote, and how it ended. A test in the machine
// is a check of its own. All else that fails is the check of the package's name.
func (r *results) record(pkg, version string, out io.Reader, wait func() error) {
	check := strings.TrimPrefix(pkg, "./")
	name := "TestScoutFS/" + version
	outcomes := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "skipped"}
	var log strings.Builder
	ran, failed, told := 0, false, false
	in := bufio.NewReader(out)
	for {
		line, rerr := in.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			log.WriteString(e.Output)
			outcome, ended := outcomes[e.Action]
			failed = failed || e.Action == "fail"
			guest, inMachine := strings.CutPrefix(e.Test, name+"/")
			row := ""
			switch {
			case !ended:
			case inMachine && !strings.Contains(guest, "/"):
				row = guest
			case e.Test == name && (pkg != "./boot" || e.Action == "fail"):
				row = check
			}
			if row != "" {
				r.set(row, version, outcome)
				ran++
				told = told || e.Action == "fail"
			}
		}
		if rerr != nil {
			break
		}
	}
	err := wait()
	if failed || err != nil {
		fmt.Print(log.String())
	}
	if ran == 0 {
		err = errors.Join(errors.New("none ran"), err)
	}
	if (failed || err != nil) && !told {
		fmt.Printf("%s: %s: run the tests: %v\n", version, check, err)
		r.set(check, version, "FAIL")
	}
}

// print prints the table and says whether it is all good.
func (r *results) print(out io.Writer, versions []string, kernel string, took time.Duration) bool {
	fmt.Fprintf(out, "\nScoutFS with its series on Linux %s:\n\n", kernel)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\n", strings.Join(versions, "\t"))
	passed, failed := 0, 0
	for _, check := range r.checks {
		fmt.Fprint(w, check)
		for _, v := range versions {
			outcome := r.cells[check][v]
			switch outcome {
			case "ok":
				passed++
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
	fmt.Fprintf(out, "\n%d passed, %d failed\n", passed, failed)
	fmt.Fprintf(out, "took %v\n", took.Round(time.Second))
	return failed == 0
}
