// SPDX-License-Identifier: GPL-2.0-only

// Sanitize builds kernels with sanitizers, and runs the tests of tests/guest on them:
// "make sanitize". docs/testing.md describes what it finds and how.
//
//	sanitize [-kernel kasan] [-race 2m] [-test regexp]
//	sanitize -plant all|BUG
//	sanitize -print kasan
//
// The environment's VERSIONS, with SCOUTFS_SRC, names releases of ScoutFS to run on
// instead of the stand-in.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/plant"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
)

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", strings.Join(kernels, ","), "kernels to run on, separated by commas")
	flag.DurationVar(&o.race, "race", 2*time.Minute, "how long TestRace runs")
	flag.StringVar(&o.test, "test", "", "tests of tests/guest to run, a regular expression; all if empty")
	flag.StringVar(&o.plant, "plant", "", "bug to plant, or all: it has to be found")
	flag.StringVar(&o.print, "print", "", "print the folder of this kernel, for KERNEL_DIR, and do nothing else")
	flag.Parse()
	run.Main(func(ctx context.Context) int {
		if err := o.check(); err != nil {
			fmt.Fprintln(os.Stderr, "sanitize:", err)
			return 2
		}
		if err := o.run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "sanitize:", err)
			return 1
		}
		return 0
	})
}

type options struct {
	kernel, test, plant, print string
	race                       time.Duration
}

func (o *options) check() error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	for _, k := range o.kernels() {
		if !slices.Contains(kernels, k) {
			return fmt.Errorf("-kernel %s: no such kernel; there are %s", k, strings.Join(kernels, ", "))
		}
	}
	if o.race <= 0 {
		return fmt.Errorf("-race %v: must be above 0", o.race)
	}
	if o.plant != "" && o.plant != "all" {
		_, err := plant.Named(o.plant)
		return err
	}
	return nil
}

func (o *options) kernels() []string { return strings.Split(o.kernel, ",") }

func (o *options) run(ctx context.Context) error {
	if o.print != "" {
		dir, err := buildKernel(ctx, o.print)
		if err == nil {
			fmt.Println(dir)
		}
		return err
	}
	if o.plant != "" {
		return o.runPlanted(ctx)
	}
	var failed []error
	for _, k := range o.kernels() {
		dir, err := buildKernel(ctx, k)
		if err != nil {
			return err
		}
		start, result := time.Now(), "good"
		if err := o.goTest(ctx, dir, "", os.Stdout); err != nil {
			failed = append(failed, fmt.Errorf("on %s: %w", k, err))
			result = "FAILED"
		}
		fmt.Printf("sanitize: %s: %s after %v\n", k, result, time.Since(start).Round(time.Second))
	}
	return errors.Join(failed...)
}

// goTest boots a machine with a kernel and runs the tests in it, all or only those that
// the user asks for.
func (o *options) goTest(ctx context.Context, kernelDir, bug string, out io.Writer) error {
	root, err := repo.Root()
	if err != nil {
		return err
	}
	hosts := "^TestStandIn$"
	if os.Getenv("VERSIONS") != "" {
		hosts = "^(TestScoutFS|TestUpstream)$"
		if o.test != "" {
			hosts = "^TestScoutFS$"
		}
	}
	test := o.test
	if bug != "" {
		hosts, test = "^TestStandIn$", "^TestRace$"
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout=12h", "-run="+hosts, "./boot")
	cmd.Dir = filepath.Join(root, "tests")
	cmd.Env = append(run.Environ(), "KERNEL_DIR="+kernelDir, "RACE="+o.race.String(), "GUEST_TESTS="+test, plant.Env+"="+bug)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	run.EndAll(cmd)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("run %s of tests/boot: %w", hosts, err)
	}
	return nil
}

// tries is how often a planted bug is raced, for RACE each time, until it is found. KCSAN
// looks at few of all accesses, and sees less the busier the host is.
const tries = 3

// runPlanted plants each bug and wants a report that is about it.
func (o *options) runPlanted(ctx context.Context) error {
	var missed []string
	for _, b := range plant.Bugs {
		if o.plant != "all" && o.plant != b.Name {
			continue
		}
		dir, err := buildKernel(ctx, b.Kernel)
		if err != nil {
			return err
		}
		start := time.Now()
		var found []byte
		for try := 1; found == nil && try <= tries; try++ {
			var out bytes.Buffer
			err = o.goTest(ctx, dir, b.Name, &out)
			if ctx.Err() != nil {
				return err
			}
			if found = b.Finds.Find(out.Bytes()); err == nil || found == nil {
				found = nil
				fmt.Printf("%s\nsanitize: %s on %s: not found in %v, try %d of %d\n", out.Bytes(), b.Name, b.Kernel, time.Since(start).Round(time.Second), try, tries)
			}
		}
		if found == nil {
			missed = append(missed, b.Name)
			fmt.Printf("sanitize: %s on %s: NOT FOUND\n", b.Name, b.Kernel)
			continue
		}
		fmt.Printf("sanitize: %s on %s: found in %v: %s\n", b.Name, b.Kernel, time.Since(start).Round(time.Second), found)
	}
	if len(missed) > 0 {
		return fmt.Errorf("planted and not found: %s", strings.Join(missed, ", "))
	}
	return nil
}
