// SPDX-License-Identifier: GPL-2.0-only

// Command upstream runs ScoutFS's own test suite in a machine, on the unpatched
// and on the patched module, with several mounts of one file system as the suite
// is meant to, and prints both results side by side. A test that passes without
// the patches and not with them makes it fail.
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
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
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
	"format-version-forward-back": "checks out and builds old releases, which no longer build on these kernels",
}

// suite says what to run and how.
type suite struct {
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	s := suite{}
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	version := flags.String("version", "v1.30", "the ScoutFS `release` to test")
	tree := flags.String("tree", "", "only run the suite of this built `tree`")
	only := flags.String("only", "", "only the tests that match this `expression`")
	flags.BoolVar(&s.full, "full", false, "run all tests with upstream's own sizes, see sizes.go")
	kernel := flags.String("kernel", "debian11", "the `kernel`: a name or a folder with a slash in it")
	flags.IntVar(&s.mounts, "mounts", 5, "`number` of mounts")
	flags.IntVar(&s.quorum, "quorum", 3, "`number` of mounts that are quorum members")
	// Emulated processors of two machines on two real ones mostly wait for one
	// another: with two each, mmap takes twice its time and more.
	flags.IntVar(&s.cpus, "cpus", 1, "`number` of processors of each machine")
	flags.DurationVar(&s.timeout, "timeout", 4*time.Hour, "the time `limit` of each machine")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if s.logs, err = repo.CacheDir("logs"); err != nil {
		return err
	}
	if s.kernel, err = vm.Kernel(ctx, *kernel); err != nil {
		return err
	}
	if s.root, err = rootImage(ctx); err != nil {
		return err
	}
	if *tree != "" {
		r, err := s.run(ctx, "tree", *tree)
		if err != nil {
			return err
		}
		s.differences(os.Stdout, r)
		fmt.Printf("\n%s\n", r.count())
		if names := r.names("failed", noEnd, notRun); len(names) > 0 {
			return fmt.Errorf("did not pass: %s; logs in %s", strings.Join(names, ", "), s.logs)
		}
		return nil
	}

	series, err := repo.Release(*version)
	if err != nil {
		return err
	}
	build := vm.ScoutFSBuild{Version: *version, Kernel: s.kernel}
	unpatchedTree, err := vm.ScoutFS(ctx, build)
	if err != nil {
		return err
	}
	build.Series = series
	patchedTree, err := vm.ScoutFS(ctx, build)
	if err != nil {
		return err
	}
	// At the same time: what the host's other work slows down is slowed in both.
	var unpatched, patched results
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		unpatched, err = s.run(ctx, *version+"-unpatched", unpatchedTree.Dir)
		return err
	})
	both.Go(func() (err error) {
		patched, err = s.run(ctx, *version+"-patched", patchedTree.Dir)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}

	fmt.Printf("\nScoutFS %s, Linux %s, %d mounts of one file system, %d of them quorum members\n\n",
		*version, s.kernel.Version, s.mounts, s.quorum)
	worse := compare(os.Stdout, unpatched, patched)
	s.differences(os.Stdout, unpatched)
	fmt.Printf("\nunpatched: %s\npatched:   %s\n", unpatched.count(), patched.count())
	if len(worse) > 0 {
		return fmt.Errorf("worse with the patches: %s; logs in %s", strings.Join(worse, ", "), s.logs)
	}
	if names := unpatched.names(noEnd, notRun); len(names) > 0 {
		return fmt.Errorf("the unpatched run is no measure of %s: it did not get there; logs in %s", strings.Join(names, ", "), s.logs)
	}
	fmt.Println("no test is worse with the patches")
	return nil
}

// differences writes how a run differed from upstream's own: what was left out and
// which of its tests were made smaller.
func (s *suite) differences(w io.Writer, r results) {
	fmt.Fprintln(w, "\nleft out:")
	for _, name := range sortedKeys(leftOut) {
		fmt.Fprintf(w, "  %s: %s\n", name, leftOut[name])
	}
	if s.full {
		return
	}
	heading := "\nwith smaller sizes than upstream's, see tests/upstream/sizes.go:\n"
	for _, name := range sortedKeys(smaller) {
		if _, ok := r.find(name); ok {
			fmt.Fprintf(w, "%s  %s\n", heading, name)
			heading = ""
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// run boots a machine that runs the suite of a built tree, and returns the
// results. That tests fail, or that the machine does not get to its end, is no
// error: it is in the results.
func (s *suite) run(ctx context.Context, name, tree string) (results, error) {
	if out, err := exec.CommandContext(ctx, "nice", "make", "-s", "-C", filepath.Join(tree, "tests")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the suite's programs: %w\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(tree, "tests/sequence"))
	if err != nil {
		return nil, err
	}
	order := sequence(string(text), leftOut, s.only)
	if len(order) == 0 {
		return nil, errors.New("no test of the suite matches")
	}
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

	fmt.Fprintf(os.Stderr, "upstream: %s: running %d tests\n", name, len(order))
	out := &watcher{name: name, start: time.Now()}
	log := filepath.Join(s.logs, "upstream-"+name+".log")
	res, err := vm.Boot(ctx, vm.Config{
		Kernel:  s.kernel,
		Argv:    []string{"/bin/sh", "/run.sh"},
		Modules: []string{"libcrc32c", "dm_mod", "loop"},
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

// watcher reads what the suite prints as it comes.
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
