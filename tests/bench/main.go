// SPDX-License-Identifier: GPL-2.0-only

// Bench measures what observing accesses costs, beside everything else that a user could
// take for it: fanotify, inotify and eBPF. "make bench" runs it.
//
// It boots real ScoutFS in a machine whose clock counts instructions, so that its figures
// are the same on any host, however busy. The same program runs on the host and, with
// arguments, in the machine.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

const benchPath = "/bin/bench"

func main() {
	version := flag.String("version", "v1.30", "`release` of ScoutFS to measure")
	picture := flag.String("picture", "", "draw the costs into this SVG `file`")
	profile := flag.Bool("profile", false, "also tell who had the processor while the record that was sent latest waited")
	only := flag.String("only", "", "measure the tables that match `regexp`, such as 'by rate'; the first is 'costs'")
	flag.Parse()
	run.Main(func(ctx context.Context) int {
		var err error
		switch {
		case os.Getenv(envRole) != "":
			err = guestMain(flag.Args())
		case flag.NArg() > 0:
			err = errors.New("bench takes no arguments; see -help")
		default:
			err = host(ctx, options{*version, *picture, *only, *profile})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	})
}

// options are of the command line.
type options struct {
	version, picture, only string
	profile                bool
}

// host measures in a machine of one processor that counts instructions, then in one of
// two that do not, and prints the tables.
func host(ctx context.Context, o options) error {
	tables, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	roles := slices.DeleteFunc([]string{roleCounted, roleTwo}, func(role string) bool { return !wanted(role, tables) })
	if len(roles) == 0 {
		return fmt.Errorf("no table matches %q", o.only)
	}
	k, err := vm.Kernel(ctx, vm.KernelNames()[0])
	if err != nil {
		return err
	}
	s, err := repo.Release(o.version)
	if err != nil {
		return err
	}
	tree, err := vm.ScoutFS(ctx, vm.ScoutFSBuild{Version: o.version, Kernel: k, Series: s})
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	results := &results{}
	for _, role := range roles {
		if err := measureIn(ctx, k, tree, role, bin, o, results); err != nil {
			return err
		}
	}
	fmt.Printf("\nScoutFS %s, Linux %s, %s\n\n", o.version, k.Version, time.Now().Format(time.DateOnly))
	results.print(os.Stdout)
	if o.picture == "" {
		return nil
	}
	svg, err := draw(results.costs)
	if err != nil {
		return err
	}
	return os.WriteFile(o.picture, svg, 0o644)
}

// measureIn boots a machine for a role and collects its results.
func measureIn(ctx context.Context, k *vm.KernelTree, tree *vm.ScoutFSTree, role, bin string, o options, results *results) error {
	c := tree.Config(k)
	c.Counted = role == roleCounted
	c.Modules = []string{"libcrc32c"}
	c.Append = "tsc=reliable"
	nice, err := unitNice()
	if err != nil {
		return err
	}
	c.Env = []string{guest.EnvFS + "=" + guest.ScoutFS, envRole + "=" + role, envOnly + "=" + o.only, envNice + "=" + nice}
	if o.profile {
		c.Env = append(c.Env, envProfile+"=1")
	}
	c.Again = guest.MountHangs
	c.Timeout = 30 * time.Minute
	c.Files = map[string]vm.File{
		guest.Module:   {Source: tree.Module},
		"/bin/scoutfs": {Source: tree.Util, Mode: 0o755},
	}
	for path, pkg := range map[string]string{guest.Daemon: "./cmd/scoutfs-notifyd", benchPath: "./tests/bench"} {
		out := filepath.Join(bin, filepath.Base(path))
		if err := vm.BuildProgram(ctx, pkg, out); err != nil {
			return err
		}
		c.Files[path] = vm.File{Source: out, Mode: 0o755}
	}
	logs, err := repo.CacheDir("logs")
	if err != nil {
		return err
	}
	c.Log = filepath.Join(logs, "bench-"+role+".log")
	c.Argv = []string{benchPath}
	c.Output = results
	fmt.Printf("booting a machine (%s), log %s\n", role, c.Log)
	res, err := vm.Boot(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("%w (the machine's log is %s)", err, c.Log)
	case res.Status != 0:
		return fmt.Errorf("measuring failed in the machine with status %d (its log is %s)", res.Status, c.Log)
	}
	return results.err
}

// unitNice returns the unit's Nice=.
func unitNice() (string, error) {
	root, err := repo.Root()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, "packaging/scoutfs-notifyd@.service"))
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), "\nNice=")
	nice, _, _ := strings.Cut(rest, "\n")
	if !ok {
		return "", errors.New("the unit has no Nice=")
	}
	return nice, nil
}

// results are what the machines have printed, each a line of JSON after resultPrefix.
type results struct {
	line  bytes.Buffer
	err   error
	costs []cost
	flows []flow
}

const resultPrefix = "result: "

// result is one of them.
type result struct {
	Cost *cost `json:",omitempty"`
	Flow *flow `json:",omitempty"`
}

// Write takes what a machine prints, and passes on all but the results.
func (r *results) Write(b []byte) (int, error) {
	for _, c := range b {
		if c != '\n' {
			r.line.WriteByte(c)
			continue
		}
		r.take(r.line.String())
		r.line.Reset()
	}
	return len(b), nil
}

func (r *results) take(line string) {
	text, ok := strings.CutPrefix(line, resultPrefix)
	if !ok {
		fmt.Println(line)
		return
	}
	var res result
	if err := json.Unmarshal([]byte(text), &res); err != nil {
		r.err = errors.Join(r.err, fmt.Errorf("read the machine's %q: %w", line, err))
		return
	}
	if res.Cost != nil {
		r.costs = append(r.costs, *res.Cost)
	}
	if res.Flow != nil {
		r.flows = append(r.flows, *res.Flow)
	}
}
