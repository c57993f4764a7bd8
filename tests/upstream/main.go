// SPDX-License-Identifier: GPL-2.0-only

// Command upstream runs ScoutFS's own test suite in two machines, one with the
// unpatched and one with the patched module, on several mounts of one file system
// as the suite expects, and prints both results side by side. It fails if a test
// passes without the patches but not with them.
package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

var (
	//go:embed run.sh
	runScript []byte
	// Programs that take the place of the root's own, by their names.
	//go:embed standin-*
	standins embed.FS
)

// leftOut are the tests that cannot run in such a machine, and why.
var leftOut = map[string]string{
	"xfstests":                    "needs the xfstests repository and a build of it",
	"basic-nfs":                   "needs systemd and an NFS server",
	"format-version-forward-back": "checks out and builds old releases, which do not build on these kernels",
}

// suite says what to run and how.
type suite struct {
	version string
	tree    string // run only this built tree, if not ""
	kernel  *vm.KernelTree
	root    string // disk image
	mounts  int
	quorum  int
	cpus    int
	timeout time.Duration
	only    *regexp.Regexp
	full    bool // with upstream's own sizes
	logs    string
}

func main() {
	run.Main(func(ctx context.Context) int {
		if err := upstream(ctx, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "upstream:", err)
			return 1
		}
		return 0
	})
}

func upstream(ctx context.Context, args []string) error {
	s, err := newSuite(ctx, args)
	if err != nil {
		return err
	}
	if s.tree != "" {
		return s.runOne(ctx)
	}
	return s.runBoth(ctx)
}

// newSuite reads the command line and gets what every machine needs.
func newSuite(ctx context.Context, args []string) (*suite, error) {
	s := &suite{}
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	flags.StringVar(&s.version, "version", "v1.30", "the ScoutFS `release` to test")
	flags.StringVar(&s.tree, "tree", "", "only run the suite of this built `tree`")
	only := flags.String("only", "", "only the tests that match this `expression`")
	flags.BoolVar(&s.full, "full", false, "run all tests with upstream's own sizes, see sizes.go")
	kernel := flags.String("kernel", "debian11", "the `kernel`: a name or a folder with a slash in it")
	flags.IntVar(&s.mounts, "mounts", 5, "`number` of mounts")
	flags.IntVar(&s.quorum, "quorum", 3, "`number` of mounts that are quorum members")
	// The emulated processors of two machines on two real ones mostly wait for each
	// other: with two each, the test mmap takes more than twice as long.
	flags.IntVar(&s.cpus, "cpus", 1, "`number` of processors of each machine")
	flags.DurationVar(&s.timeout, "timeout", 4*time.Hour, "the time `limit` of each machine")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		return nil, err
	}
	if s.logs, err = repo.CacheDir("logs"); err != nil {
		return nil, err
	}
	if s.kernel, err = vm.Kernel(ctx, *kernel); err != nil {
		return nil, err
	}
	s.root, err = rootImage(ctx)
	return s, err
}

var errNoMatch = errors.New("no test of the suite matches")

// runOne runs the suite of a tree that is built already.
func (s *suite) runOne(ctx context.Context) error {
	r, err := s.run(ctx, "tree", s.tree)
	if err != nil {
		return err
	}
	if len(r) == 0 {
		return errNoMatch
	}
	s.differences(os.Stdout, r)
	fmt.Printf("\n%s\n", r.count())
	if names := r.names("failed", noEnd, notRun); len(names) > 0 {
		return fmt.Errorf("did not pass: %s; logs in %s", strings.Join(names, ", "), s.logs)
	}
	return nil
}

// runBoth runs the suites of the unpatched and the patched release and compares them.
func (s *suite) runBoth(ctx context.Context) error {
	series, err := repo.Release(s.version)
	if err != nil {
		return err
	}
	build := vm.ScoutFSBuild{Version: s.version, Kernel: s.kernel}
	unpatchedTree, err := vm.ScoutFS(ctx, build)
	if err != nil {
		return err
	}
	build.Series = series
	patchedTree, err := vm.ScoutFS(ctx, build)
	if err != nil {
		return err
	}
	// At the same time, so that other work on the host slows both down.
	var unpatched, patched results
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		unpatched, err = s.run(ctx, s.version+"-unpatched", unpatchedTree.Dir)
		return err
	})
	both.Go(func() (err error) {
		patched, err = s.run(ctx, s.version+"-patched", patchedTree.Dir)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if len(unpatched)+len(patched) == 0 {
		return errNoMatch
	}

	fmt.Printf("\nScoutFS %s, Linux %s, %d mounts of one file system, %d of them quorum members\n\n",
		s.version, s.kernel.Version, s.mounts, s.quorum)
	worse := compare(os.Stdout, unpatched, patched)
	s.differences(os.Stdout, unpatched)
	fmt.Printf("\nunpatched: %s\npatched:   %s\n", unpatched.count(), patched.count())
	if len(worse) > 0 {
		return fmt.Errorf("worse with the patches: %s; logs in %s", strings.Join(worse, ", "), s.logs)
	}
	if names := unpatched.names(noEnd, notRun); len(names) > 0 {
		return fmt.Errorf("cannot compare %s: the unpatched run did not get there; logs in %s", strings.Join(names, ", "), s.logs)
	}
	fmt.Println("no test is worse with the patches")
	return nil
}

// differences writes how a run differed from upstream's own: which tests were left
// out, and which of those that ran were made smaller.
func (s *suite) differences(w io.Writer, r results) {
	fmt.Fprintln(w, "\nleft out:")
	for _, name := range slices.Sorted(maps.Keys(leftOut)) {
		fmt.Fprintf(w, "  %s: %s\n", name, leftOut[name])
	}
	if s.full {
		return
	}
	heading := "\nwith smaller sizes than upstream's, see tests/upstream/sizes.go:\n"
	for _, name := range slices.Sorted(maps.Keys(smaller)) {
		if _, ok := r.find(name); ok {
			fmt.Fprintf(w, "%s  %s\n", heading, name)
			heading = ""
		}
	}
}

// run boots a machine that runs the suite of a built tree, and returns the results.
// Tests that fail, and a machine that does not get to its end, are no error but part
// of the results.
func (s *suite) run(ctx context.Context, name, tree string) (results, error) {
	if _, err := run.Output(ctx, "nice", "make", "-s", "-C", filepath.Join(tree, "tests")); err != nil {
		return nil, fmt.Errorf("build the suite's programs: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(tree, "tests/sequence"))
	if err != nil {
		return nil, err
	}
	order := sequence(string(text), leftOut, s.only)
	if len(order) == 0 { // such as patch 0003's own test without the patches
		fmt.Fprintf(os.Stderr, "upstream: %s: this suite has no test that matches\n", name)
		return nil, nil
	}
	files, err := s.files(tree, order)
	if err != nil {
		return nil, err
	}

	fmt.Fprintf(os.Stderr, "upstream: %s: running %d tests\n", name, len(order))
	out := &watcher{name: name, start: time.Now()}
	log := filepath.Join(s.logs, "upstream-"+name+".log")
	res, err := vm.Boot(ctx, vm.Config{
		Kernel:  s.kernel,
		Argv:    []string{"/bin/sh", "/run.sh"},
		Modules: []string{"libcrc32c", "dm_mod", "loop", "ext4"}, // the last for Images
		Files:   files,
		Disks:   []int64{64 << 30, 64 << 30, 64 << 30, 64 << 30},
		Images:  []string{s.root},
		Env: []string{
			fmt.Sprint("MOUNTS=", s.mounts), fmt.Sprint("QUORUM=", s.quorum), "ROOT=/dev/vde",
			"OPTIONS=" + includes(order),
		},
		Memory:  3072,
		CPUs:    s.cpus,
		Append:  "mitigations=off", // the machine has no secrets to keep
		Timeout: s.timeout,
		Output:  out,
		Log:     log,
	})
	if res == nil || ctx.Err() != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	fmt.Fprintf(os.Stderr, "upstream: %s: the machine was up for %.0f s, log %s\n", name, res.Elapsed.Seconds(), log)
	if err != nil {
		fmt.Fprintf(os.Stderr, "upstream: %s: %v\n", name, err)
	}
	if len(out.all) == 0 {
		return nil, fmt.Errorf("%s: no test ran; see %s", name, log)
	}
	return out.all.complete(order, out.ended), nil
}

// files returns the machine's files: the suite, what runs it, and the programs that
// take the place of the root's own.
func (s *suite) files(tree string, order []string) (map[string]vm.File, error) {
	files, err := suiteFiles(tree)
	if err != nil {
		return nil, err
	}
	if !s.full {
		if err := shrink(files, tree, order); err != nil {
			return nil, err
		}
	}
	files["/run.sh"] = vm.File{Data: runScript, Mode: 0o755}
	programs, err := standins.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, p := range programs {
		data, err := standins.ReadFile(p.Name())
		if err != nil {
			return nil, err
		}
		files["/standin/"+strings.TrimPrefix(p.Name(), "standin-")] = vm.File{Data: data, Mode: 0o755}
	}
	return files, nil
}

// suiteFiles returns what the suite needs of a built tree, by path in the guest.
func suiteFiles(tree string) (map[string]vm.File, error) {
	files := map[string]vm.File{}
	add := func(path string, info fs.FileInfo) {
		mode := fs.FileMode(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		files["/upstream/"+path] = vm.File{Source: filepath.Join(tree, path), Mode: mode}
	}
	for _, path := range []string{"kmod/src/scoutfs.ko", "utils/src/scoutfs", "utils/fenced/scoutfs-fenced"} {
		info, err := os.Stat(filepath.Join(tree, path))
		if err != nil {
			return nil, fmt.Errorf("find what the suite needs: %w", err)
		}
		add(path, info)
	}
	err := filepath.WalkDir(filepath.Join(tree, "tests"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err == nil {
			add(rel, info)
		}
		return err
	})
	return files, err
}

// watcher reads the suite's output as it comes.
type watcher struct {
	name  string
	start time.Time
	rest  []byte
	all   results
	ended bool
}

func (w *watcher) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.rest = rest
		if r, ok := parseResult(string(line)); ok {
			w.all = append(w.all, r)
			fmt.Fprintf(os.Stderr, "upstream: %s: %5.0f s  %-32s %s %s\n", w.name, time.Since(w.start).Seconds(), r.name, r.verdict, r.detail)
		} else if bytes.HasPrefix(line, []byte("[== all tests run: ")) {
			w.ended = true
		}
	}
}
