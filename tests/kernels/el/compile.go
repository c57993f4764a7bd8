// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/kbuild"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

// table compiles the module with each series for each kernel, and prints what came of it.
func (o *options) table(ctx context.Context, tags []string) error {
	source := os.Getenv("SCOUTFS_SRC")
	if source == "" {
		return errors.New("set SCOUTFS_SRC to a ScoutFS checkout or bare repository with its tags")
	}
	all, err := toCompile()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "kernel")
	for _, s := range all {
		fmt.Fprintf(w, "\t%s", s.Version)
	}
	fmt.Fprintln(w)
	for _, tag := range tags {
		tree, err := o.kernel(ctx, tag)
		if err != nil {
			return err
		}
		fmt.Fprint(w, release(tag))
		for _, s := range all {
			outcome, err := compile(ctx, source, tree, tag, s)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "el: ScoutFS %s for %s: %s\n", s.Version, tag, outcome)
			short, _, _ := strings.Cut(outcome, ":")
			fmt.Fprintf(w, "\t%s", short)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
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

// compile compiles a release with its series, by upstream's own Makefile with sparse, and
// returns "ok", or what is wrong after a colon. Without the kernel's symbols the module
// cannot be loaded: that takes a kernel that is built.
func compile(ctx context.Context, source, tree, tag string, s *series.Series) (string, error) {
	dir, err := os.MkdirTemp("", "el-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	env := []string{"GIT_COMMITTER_NAME=scoutfs-notify", "GIT_COMMITTER_EMAIL=scoutfs-notify@localhost"}
	for _, argv := range [][]string{
		{"git", "clone", "--quiet", "--shared", "--no-checkout", source, "."},
		{"git", "checkout", "--quiet", "--detach", s.Rev()},
		append([]string{"git", "am", "--quiet"}, s.Paths()...),
	} {
		if _, err := (run.Command{Dir: dir, Env: env, Argv: argv}).Output(ctx); err != nil {
			return "", err
		}
	}
	out, err := run.Command{Argv: []string{"nice", "make", "-C", filepath.Join(dir, "kmod"), "-j" + strconv.Itoa(kbuild.Jobs()),
		"SK_KSRC=" + tree, "KBUILD_MODPOST_WARN=1"}}.Combined(ctx)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	complaints := complaints(out)
	if err != nil {
		if len(complaints) == 0 {
			complaints = []string{err.Error()}
		}
		return "does not compile: " + complaints[0], nil
	}
	magic, err := run.Output(ctx, "modinfo", "-F", "vermagic", filepath.Join(dir, "kmod/src/scoutfs.ko"))
	if err != nil {
		return "", err
	}
	switch version, _, _ := strings.Cut(magic, " "); {
	case version != release(tag):
		return fmt.Sprintf("wrong version: its vermagic is %q", strings.TrimSpace(magic)), nil
	case len(complaints) > 0:
		return fmt.Sprintf("%d warnings: %s", len(complaints), complaints[0]), nil
	}
	return "ok", nil
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
