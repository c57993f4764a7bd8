// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gotest.tools/gotestsum/testjson"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/hotpath"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// A check is what the table has a column for, of each kernel and release.
type check struct {
	name string
	// booted says that it takes a kernel that is built, not only prepared.
	booted bool
	// An error of run means that nothing is known.
	run func(ctx context.Context, m *module) (cell, error)
}

var checks = []check{
	{"compiles", false, compiles},
	{"hooks", false, hooks},
	{"boots", true, goTest("./boot", "^(TestScoutFS|TestCost)$/^%s$")},
	{"systemd", true, goTest("./rpm", "^TestSystemdScoutFS$/^%s$")},
	{"DKMS", true, dkms},
}

// cell is the outcome of a check: a word or two for the table, and a line for each thing
// that was skipped, or one for what failed.
type cell struct {
	text   string
	why    []string
	failed bool
}

var ok = cell{text: "ok"}

func skipped(why string) cell { return cell{text: "skipped", why: []string{why}} }

func failed(text, why string) cell { return cell{text, []string{why}, true} }

func (c cell) String() string {
	if c.failed || c.text == "skipped" {
		return c.text + ": " + strings.Join(c.why, "; ")
	}
	return c.text
}

// table does the checks that are wanted with each series for each kernel, and prints what
// came of it.
func (o *options) table(ctx context.Context, tags []string) error {
	if os.Getenv("SCOUTFS_SRC") == "" {
		return vm.ErrNoSource
	}
	wanted, err := o.checks()
	if err != nil {
		return err
	}
	all, err := toCompile()
	if err != nil {
		return err
	}
	var rows []row
	start := time.Now()
	for _, tag := range tags {
		dir, err := o.kernel(ctx, tag)
		if err != nil {
			return err
		}
		k := &vm.KernelTree{Name: tag, Version: release(tag), Build: dir}
		if o.boot {
			if k, err = vm.OpenKernel(dir); err != nil {
				return err
			}
		}
		for _, s := range all {
			fmt.Fprintf(os.Stderr, "el: after %v: ScoutFS %s for %s\n", time.Since(start).Round(time.Second), s.Version, tag)
			r, err := o.row(ctx, wanted, &module{kernel: k, series: s})
			if err != nil {
				if len(rows) > 0 { // what is known may have taken hours
					printTable(os.Stdout, rows)
				}
				return err
			}
			rows = append(rows, r)
		}
	}
	return printTable(os.Stdout, rows)
}

// checks returns the names of those that were asked for, or nil for all that can be done.
func (o *options) checks() ([]string, error) {
	wanted := strings.FieldsFunc(o.only, func(r rune) bool { return r == ',' || r == ' ' })
	for _, name := range wanted {
		i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("-only %s: there is no such check; they are compiles, hooks, boots, systemd and DKMS", name)
		case checks[i].booted && !o.boot:
			return nil, fmt.Errorf("-only %s: it takes a kernel that is built: -boot", name)
		}
	}
	return wanted, nil
}

// row is a kernel and a release, with an outcome of each check.
type row struct {
	kernel, release string
	cells           []cell
}

// row does the checks of one kernel and one release.
func (o *options) row(ctx context.Context, wanted []string, m *module) (row, error) {
	r := row{kernel: m.kernel.Version, release: m.series.Version}
	supported, err := repo.Kernels(m.series)
	if err != nil {
		return r, err
	}
	for _, c := range checks {
		var why string
		switch {
		case !supported.MatchString(r.kernel):
			why = "upstream does not mean " + r.release + " for this kernel (kernels.txt)"
		case c.booted && !o.boot:
			why = "takes a kernel that is built: BOOT=1"
		case len(wanted) > 0 && !slices.Contains(wanted, c.name):
			why = "only " + strings.Join(wanted, ", ") + " was asked for"
		case len(r.cells) > 0 && r.cells[0].failed:
			why = "it does not compile"
		}
		if why != "" {
			r.cells = append(r.cells, skipped(why))
			continue
		}
		start := time.Now()
		got, err := c.run(ctx, m)
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if err != nil {
			return r, fmt.Errorf("%s of ScoutFS %s for %s: %w", c.name, r.release, r.kernel, err)
		}
		fmt.Fprintf(os.Stderr, "el: ScoutFS %s for %s: %s: %s (%v)\n", r.release, r.kernel, c.name, got, time.Since(start).Round(time.Second))
		r.cells = append(r.cells, got)
	}
	return r, nil
}

// reasons returns a line for each thing that was skipped in a check of a row, or for what
// failed.
func (c cell) reasons(check string, r row) []string {
	head := check + " skipped: "
	if c.failed {
		head = fmt.Sprintf("%s of %s on %s: %s: ", check, r.release, r.kernel, c.text)
	}
	var lines []string
	for _, why := range c.why {
		lines = append(lines, head+why)
	}
	return lines
}

// printTable prints the rows, and below them what was skipped and what failed, each line of
// it once. It returns an error if a check failed.
func printTable(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "kernel\trelease")
	for _, c := range checks {
		fmt.Fprintf(w, "\t%s", c.name)
	}
	fmt.Fprintln(w)
	var reasons []string
	failures := 0
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s", r.kernel, r.release)
		for i, c := range r.cells {
			fmt.Fprintf(w, "\t%s", c.text)
			for _, reason := range c.reasons(checks[i].name, r) {
				if !slices.Contains(reasons, reason) {
					reasons = append(reasons, reason)
				}
			}
			if c.failed {
				failures++
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, reason := range reasons {
		fmt.Fprintln(out, reason)
	}
	if failures > 0 {
		return fmt.Errorf("%d checks failed, see the table", failures)
	}
	return nil
}

// toCompile returns the series in VERSIONS, or all and that for upstream's main.
func toCompile() ([]*series.Series, error) {
	all, err := repo.Series()
	if err != nil || os.Getenv("VERSIONS") != "" {
		return all, err
	}
	dir, err := repo.Patches()
	if err != nil {
		return nil, err
	}
	next, err := series.OpenMain(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	return append(all, next), err
}

// A module is ScoutFS of a release, for a kernel.
type module struct {
	kernel *vm.KernelTree // without Image and Modules if it is only prepared
	series *series.Series
}

// build returns the module, with the series or without.
func (m *module) build(ctx context.Context, s *series.Series) (*vm.ScoutFSTree, error) {
	return vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: m.series.Version, Rev: m.series.Rev(), Kernel: m.kernel, Series: s})
}

// compiles compiles it by upstream's own Makefile with sparse.
func compiles(ctx context.Context, m *module) (cell, error) {
	tree, err := m.build(ctx, m.series)
	if err != nil {
		return failed("no", err.Error()), nil
	}
	magic, err := run.Output(ctx, "modinfo", "-F", "vermagic", tree.Module)
	if err != nil {
		return cell{}, err
	}
	if version, _, _ := strings.Cut(magic, " "); version != m.kernel.Version {
		return failed("wrong version", fmt.Sprintf("its vermagic is %q", strings.TrimSpace(magic))), nil
	}
	return ok, nil
}

// hooks compares the instructions of a read and an open with those without the series.
func hooks(ctx context.Context, m *module) (cell, error) {
	patched, err := m.build(ctx, m.series)
	if err != nil {
		return failed("do not compile", err.Error()), nil
	}
	unpatched, err := m.build(ctx, nil)
	if err != nil {
		return failed("not comparable", "without the series: "+err.Error()), nil
	}
	r, err := hotpath.Compare(ctx, patched.Module, unpatched.Module, "scoutfs_file_read_iter")
	switch {
	case errors.Is(err, hotpath.ErrOther) && m.series.Version == series.Main: // see docs/rebasing.md, "The two read paths of main"
		return skipped("with the hook the compiler gives all of main's read function other registers"), nil
	case err != nil:
		return failed("not comparable", err.Error()), nil
	}
	if err := r.Check(); err != nil {
		return failed("more", err.Error()), nil
	}
	fmt.Fprintf(os.Stderr, "el: a read runs %v in addition to %d instructions, an open %v\n", r.Read.Hot, r.Before, r.Open)
	return ok, nil
}

// goTest returns a check that runs the tests of a package whose names match the pattern
// which, in which %s is the release, on the kernel.
func goTest(pkg, which string) func(ctx context.Context, m *module) (cell, error) {
	return func(ctx context.Context, m *module) (cell, error) {
		root, err := repo.Root()
		if err != nil {
			return cell{}, err
		}
		which := strings.ReplaceAll(which, "%s", m.series.Version)
		cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=3h", "-run="+which, pkg)
		cmd.Dir = filepath.Join(root, "tests")
		cmd.Env = append(run.Environ(), "KERNEL_DIR="+m.kernel.Name, "VERSIONS="+m.series.Version)
		cmd.Stderr = os.Stderr
		run.EndAll(cmd)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return cell{}, err
		}
		if err := cmd.Start(); err != nil {
			return cell{}, err
		}
		now := make(chan string)
		go sayWhere(now)
		r, readErr := readTests(out, func(r *results, test string) {
			now <- fmt.Sprintf("%d tests passed, %d skipped, %d failed; now %s", r.passed, len(r.skipped), len(r.failed), test)
		})
		close(now)
		runErr := cmd.Wait()
		c := r.cell(m.series.Version, cmp.Or(runErr, readErr))
		if c.failed {
			fmt.Fprint(os.Stderr, r.log.String())
		}
		fmt.Fprintf(os.Stderr, "el: %s of %s: %d tests passed, %d skipped\n", which, pkg, r.passed, len(r.skipped))
		return c, nil
	}
}

// sayWhere says twice a minute where a check is, of which it is told, until now is closed.
func sayWhere(now <-chan string) {
	start := time.Now()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	where := "compiling the tests"
	for {
		select {
		case got, ok := <-now:
			if !ok {
				return
			}
			where = got
		case <-tick.C:
			fmt.Fprintf(os.Stderr, "el: after %v: %s\n", time.Since(start).Round(time.Second), where)
		}
	}
}

// results are the ends of tests, of those without tests below them, and of others that
// fail although those do not.
type results struct {
	passed          int
	skipped, failed []string
	log             strings.Builder
	logs            map[string]*strings.Builder // of each test
}

// readTests reads what "go test -json" prints. It calls say with what is known at each thing
// that a test says.
func readTests(in io.Reader, say func(r *results, test string)) (*results, error) {
	r := &results{logs: map[string]*strings.Builder{}}
	parents := map[string]bool{}
	err := vm.ReadEvents(in, func(e testjson.TestEvent) {
		r.log.WriteString(e.Output)
		if e.Test == "" {
			return
		}
		if r.logs[e.Test] == nil {
			r.logs[e.Test] = &strings.Builder{}
		}
		r.logs[e.Test].WriteString(e.Output)
		say(r, e.Test)
		if !e.Action.IsTerminal() {
			return
		}
		switch {
		case e.Action == testjson.ActionFail:
			// A test fails with those below it, or for a reason of its own.
			if !slices.ContainsFunc(r.failed, func(name string) bool { return strings.HasPrefix(name, e.Test+"/") }) {
				r.failed = append(r.failed, e.Test)
			}
		case parents[e.Test]:
		case e.Action == testjson.ActionPass:
			r.passed++
		case e.Action == testjson.ActionSkip:
			r.skipped = append(r.skipped, e.Test)
		}
		for name := e.Test; strings.Contains(name, "/"); {
			name = name[:strings.LastIndex(name, "/")]
			parents[name] = true
		}
	})
	return r, err
}

// cell returns what the tests of a release say of a check, given how go test ended. All of
// them skipped is a check that was skipped.
func (r *results) cell(version string, err error) cell {
	var why []string
	for _, name := range r.skipped {
		line := r.reason(name)
		if _, guest, found := strings.Cut(name, "/"+version+"/"); found {
			name = guest
		}
		why = append(why, name+": "+line)
	}
	switch {
	case len(r.failed) > 0:
		return failed("FAIL", strings.Join(r.failed, ", "))
	case err != nil:
		return failed("FAIL", err.Error())
	case r.passed == 0 && len(r.skipped) == 0:
		return failed("FAIL", "no test ran")
	case r.passed == 0:
		return cell{text: "skipped", why: why}
	case len(r.skipped) > 0:
		return cell{text: fmt.Sprintf("ok, %d of %d tests skipped", len(r.skipped), r.passed+len(r.skipped)), why: why}
	}
	return ok
}

var skipLine = regexp.MustCompile(`(?m)^ *\w+\.go:\d+: (.+)$`)

// reason returns why a test was skipped: the first line that it logged, below one of the
// machine's without a text. Others may be of what it cleaned up.
func (r *results) reason(test string) string {
	line := skipLine.FindStringSubmatch(r.logs[test].String())
	if line == nil {
		return "it does not say why"
	}
	return strings.TrimPrefix(line[1], "skipped: ")
}

// dkms installs the packages by dnf and has dkms build them for the kernel.
func dkms(ctx context.Context, m *module) (cell, error) {
	if m.series.Version == series.Main {
		return skipped("packages are of releases"), nil
	}
	return goTest("./rpm", "^TestScoutFS$")(ctx, m)
}
