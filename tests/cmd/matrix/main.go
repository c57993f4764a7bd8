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
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
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
	versions, err := standin.Versions()
	if err != nil {
		return false, err
	}
	root, err := vm.Root()
	if err != nil {
		return false, err
	}
	k, err := vm.Kernel(ctx, vm.KernelNames()[0])
	if err != nil {
		return false, err
	}

	r := &results{cells: make(map[string]map[string]string)}
	start := time.Now()
	for _, v := range versions {
		fmt.Printf("== ScoutFS %s, after %v\n", v, time.Since(start).Round(time.Second))
		series := filepath.Join(root, "patches", v)
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
				patches, _ := filepath.Glob(filepath.Join(series, "*.patch"))
				return exec.CommandContext(ctx, "git", append([]string{"-C", dir, "am", "--quiet"}, patches...)...)
			})
		})
		check("apply.sh (--3way)", func() error {
			return apply(ctx, src, v, func(dir string) *exec.Cmd {
				return exec.CommandContext(ctx, filepath.Join(root, "apply.sh"), dir)
			})
		})
		if !check("upstream's build, silent", func() error {
			for _, patches := range []string{series, ""} {
				if _, err := vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: v, Kernel: k, Patches: patches}); err != nil {
					return err
				}
			}
			return nil
		}) {
			continue
		}
		for _, pkg := range []string{"./hotpath", "./boot"} {
			if err := goTest(ctx, root, pkg, v, r); err != nil {
				return false, err
			}
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	return r.print(versions, k.Version, time.Since(start)), nil
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

// goTest runs the tests of one version in a package of the tests module. A test
// in the machine is a check of its own.
func goTest(ctx context.Context, root, pkg, version string, r *results) error {
	name := "TestScoutFS/" + version
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout", "60m", "-run", "^TestScoutFS$/^"+version+"$", pkg)
	cmd.Dir = filepath.Join(root, "tests")
	cmd.Env = append(os.Environ(), "VERSIONS="+version)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	outcomes := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "skipped"}
	var log strings.Builder
	ran, failed := 0, false
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil {
			continue
		}
		log.WriteString(e.Output)
		outcome, ok := outcomes[e.Action]
		if !ok {
			continue
		}
		failed = failed || e.Action == "fail"
		switch guest, inMachine := strings.CutPrefix(e.Test, name+"/"); {
		case inMachine && !strings.Contains(guest, "/"):
			r.set(guest, version, outcome)
			ran++
		case e.Test == name && (pkg != "./boot" || e.Action == "fail"):
			r.set(strings.TrimPrefix(pkg, "./"), version, outcome)
			ran++
		}
	}
	err = cmd.Wait()
	if failed || err != nil {
		fmt.Print(log.String())
	}
	if ran == 0 {
		return errors.Join(fmt.Errorf("run the tests of %s for %s: none ran", pkg, version), err)
	}
	return nil
}

// print prints the table and says whether it is all good.
func (r *results) print(versions []string, kernel string, took time.Duration) bool {
	fmt.Printf("\nScoutFS with its series on Linux %s:\n\n", kernel)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
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
	fmt.Printf("\n%d passed, %d failed\n", passed, failed)
	fmt.Printf("took %v\n", took.Round(time.Second))
	return failed == 0
}
