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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/hotpath"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/kbuild"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// A check is what the table has a column for, of each kernel and release.
type check struct {
	name string
	// run returns "", or what is wrong: a word or two for the table, a colon and the rest.
	// An error means that nothing is known.
	run     func(m *module, ctx context.Context) (problem string, err error)
	skipped string // why there is no run
}

var checks = []check{
	{"compiles", (*module).compiles, ""},
	{"hooks", (*module).hooks, ""},
	{"boots", nil, "a kernel that is only prepared cannot: make kernel-el EL=..., then make test-scoutfs KERNEL_DIR=..."},
	{"DKMS", nil, "the same"},
}

// ok and skipped are cells of the table; any other is what is wrong.
const ok, skipped = "ok", "skipped"

// table does the checks that are wanted with each series for each kernel, and prints what
// came of it.
func (o *options) table(ctx context.Context, tags []string) error {
	source := os.Getenv("SCOUTFS_SRC")
	if source == "" {
		return errors.New("set SCOUTFS_SRC to a ScoutFS checkout or bare repository with its tags")
	}
	if o.only != "" && !slices.ContainsFunc(checks, func(c check) bool { return c.name == o.only && c.run != nil }) {
		return fmt.Errorf("-only %s: there is no such check, only compiles and hooks", o.only)
	}
	all, err := toCompile()
	if err != nil {
		return err
	}
	var rows []row
	for _, tag := range tags {
		tree, err := o.kernel(ctx, tag)
		if err != nil {
			return err
		}
		for _, s := range all {
			r, err := o.row(ctx, source, tree, tag, s)
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
	}
	return printTable(os.Stdout, rows)
}

// row is a kernel and a release, with an outcome of each check.
type row struct {
	kernel, release string
	cells           []cell
}

// cell is ok, skipped, or a word or two for what is wrong; why has the rest of it.
type cell struct{ text, why string }

// row does the checks of one kernel and one release.
func (o *options) row(ctx context.Context, source, tree, tag string, s *series.Series) (row, error) {
	r := row{kernel: release(tag), release: s.Version}
	supported, err := repo.Kernels(s)
	if err != nil {
		return r, err
	}
	m := &module{source: source, tree: tree, tag: tag, series: s}
	defer m.remove()
	for _, c := range checks {
		switch {
		case !supported.MatchString(r.kernel):
			r.cells = append(r.cells, cell{skipped, "upstream does not mean " + s.Version + " for this kernel (kernels.txt)"})
			continue
		case c.run == nil:
			r.cells = append(r.cells, cell{skipped, c.skipped})
			continue
		case o.only != "" && o.only != c.name:
			r.cells = append(r.cells, cell{skipped, "only " + o.only + " was asked for"})
			continue
		}
		problem, err := c.run(m, ctx)
		if err != nil {
			return r, fmt.Errorf("%s of ScoutFS %s for %s: %w", c.name, s.Version, tag, err)
		}
		got := cell{text: ok}
		if problem != "" {
			got.text, got.why, _ = strings.Cut(problem, ": ")
		}
		fmt.Fprintf(os.Stderr, "el: ScoutFS %s for %s: %s: %s\n", s.Version, tag, c.name, cmp.Or(problem, ok))
		r.cells = append(r.cells, got)
	}
	return r, nil
}

// printTable prints the rows, and below them why a cell is not ok, once for each reason. It
// returns an error if a check failed.
func printTable(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "kernel\trelease")
	for _, c := range checks {
		fmt.Fprintf(w, "\t%s", c.name)
	}
	fmt.Fprintln(w)
	var reasons []string
	failed := 0
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s", r.kernel, r.release)
		for i, c := range r.cells {
			fmt.Fprintf(w, "\t%s", c.text)
			reason := fmt.Sprintf("%s skipped: %s", checks[i].name, c.why)
			switch {
			case c.text == ok:
				continue
			case c.text != skipped:
				failed++
				reason = fmt.Sprintf("%s of %s on %s: %s: %s", checks[i].name, r.release, r.kernel, c.text, c.why)
			}
			if !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
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
	if failed > 0 {
		return fmt.Errorf("%d checks failed, see the table", failed)
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

// A module is ScoutFS of a release, for a kernel. Its trees are made when they are needed.
type module struct {
	source, tree, tag string
	series            *series.Series
	dirs              map[bool]string // trees, by whether the series is applied
}

func (m *module) remove() {
	for _, dir := range m.dirs {
		os.RemoveAll(dir)
	}
}

// checkout returns a tree of the release, patched or not.
func (m *module) checkout(ctx context.Context, patched bool) (string, error) {
	if dir := m.dirs[patched]; dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "el-")
	if err != nil {
		return "", err
	}
	if m.dirs == nil {
		m.dirs = map[bool]string{}
	}
	m.dirs[patched] = dir
	env := []string{"GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost"}
	commands := [][]string{
		{"git", "clone", "--quiet", "--shared", "--no-checkout", m.source, "."},
		{"git", "checkout", "--quiet", "--detach", m.series.Rev()},
	}
	if patched {
		commands = append(commands, append([]string{"git", "am", "--quiet"}, m.series.Paths()...))
	}
	for _, argv := range commands {
		if _, err := (run.Command{Dir: dir, Env: env, Argv: argv}).Output(ctx); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// compiles compiles it by upstream's own Makefile with sparse. Without the kernel's
// symbols the module cannot be loaded: that takes a kernel that is built.
func (m *module) compiles(ctx context.Context) (problem string, err error) {
	dir, err := m.checkout(ctx, true)
	if err != nil {
		return "", err
	}
	out, err := run.Command{Argv: []string{"nice", "make", "-C", filepath.Join(dir, "kmod"), "-j" + strconv.Itoa(kbuild.Jobs()),
		"SK_KSRC=" + m.tree, "KBUILD_MODPOST_WARN=1"}}.Combined(ctx)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	complaints := complaints(out)
	if err != nil {
		if len(complaints) == 0 {
			complaints = []string{err.Error()}
		}
		return "no: " + complaints[0], nil
	}
	magic, err := run.Output(ctx, "modinfo", "-F", "vermagic", filepath.Join(dir, "kmod/src/scoutfs.ko"))
	if err != nil {
		return "", err
	}
	switch version, _, _ := strings.Cut(magic, " "); {
	case version != release(m.tag):
		return fmt.Sprintf("wrong version: its vermagic is %q", strings.TrimSpace(magic)), nil
	case len(complaints) > 0:
		return fmt.Sprintf("%d warnings: %s", len(complaints), complaints[0]), nil
	}
	return "", nil
}

// hooks compares the instructions of a read and an open with those without the series.
func (m *module) hooks(ctx context.Context) (problem string, err error) {
	objects := map[bool]string{}
	for patched, names := range map[bool][]string{true: {"file.o", "notify.o"}, false: {"file.o"}} {
		dir, err := m.checkout(ctx, patched)
		if err != nil {
			return "", err
		}
		objects[patched] = filepath.Join(dir, "kmod/src")
		out, err := run.Command{Argv: append([]string{"make", "-C", m.tree, "M=" + objects[patched], "CONFIG_SCOUTFS_FS=m",
			"SCOUTFS_GIT_DESCRIBE=el", "RPM_GITHASH=el"}, names...)}.Combined(ctx)
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err != nil {
			return "do not compile: " + strings.Join(append(complaints(out), err.Error()), "; "), nil
		}
	}
	r, err := hotpath.Compare(ctx, filepath.Join(objects[true], "file.o"), filepath.Join(objects[false], "file.o"),
		"scoutfs_file_read_iter", filepath.Join(objects[true], "notify.o"))
	switch {
	case errors.Is(err, hotpath.ErrOther) && m.series.Version == series.Main: // see docs/rebasing.md, "The two read paths of main"
		return skipped + ": with the hook the compiler gives all of main's read function other registers", nil
	case err != nil:
		return "not comparable: " + err.Error(), nil
	}
	if err := r.Check(); err != nil {
		return "more: " + err.Error(), nil
	}
	fmt.Fprintf(os.Stderr, "el: a read runs %v in addition to %d instructions, an open %v\n", r.Read.Hot, r.Before, r.Open)
	return "", nil
}

// complaints returns the warnings and errors in what make printed, but for those that the
// symbols of a kernel that is not built are missing, and that of EL8's objtool about sections
// for which newer assemblers make no symbol.
func complaints(out string) []string {
	return slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool {
		lower := strings.ToLower(l)
		return !strings.Contains(lower, "warning:") && !strings.Contains(lower, "error:") ||
			strings.Contains(l, "undefined!") || strings.Contains(l, "Symbol version dump") || strings.Contains(l, "unresolved symbol") ||
			strings.Contains(l, "objtool: missing symbol for section")
	})
}
