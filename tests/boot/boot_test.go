// SPDX-License-Identifier: GPL-2.0-only

// Package boot runs the tests of tests/guest in machines: on the stand-in with
// every kernel, and on real ScoutFS if SCOUTFS_SRC is set.
package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/plant"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// guestTests is a regular expression of the guest's tests to run; empty: all.
var guestTests = os.Getenv("GUEST_TESTS")

// machine returns the common configuration: modules, daemon, command, smoke test.
func machine(t *testing.T, k *vm.KernelTree, patched, unpatched string) vm.Config {
	t.Helper()
	c := vm.Config{
		Kernel:  k,
		Modules: []string{"libcrc32c"},
		Timeout: machineTimeout(t),
		Files: map[string]vm.File{
			guest.Module:    {Source: patched},
			guest.Unpatched: {Source: unpatched},
			guest.Smoke:     {Data: block(t, "smoke test")},
			guest.Night:     {Data: block(t, "each night")},
		},
		Known: knownReports(k),
	}
	if sanitizer(k) == "kasan" {
		c.Memory = 1280 // it needs more, and a scan for leaks takes a minute at 3 GiB
	}
	// They may also be built in, or not there, which the test that needs one says.
	for _, file := range []string{"fs/overlayfs/overlay.ko", "drivers/block/loop.ko", "fs/nfsd/nfsd.ko", "fs/nfs/nfsv4.ko"} {
		if found, err := filepath.Glob(filepath.Join(k.Modules, "kernel", file+"*")); err == nil && found != nil {
			c.LaterModules = append(c.LaterModules, strings.TrimSuffix(filepath.Base(file), ".ko"))
		}
	}
	// the lengths of the long tests, if not the default
	for _, name := range []string{"SOAK", "CHAOS", "RACE", "SEED"} {
		if v := os.Getenv(name); v != "" {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	bin := t.TempDir()
	for _, path := range []string{guest.Daemon, guest.Command, guest.Index} {
		out := filepath.Join(bin, filepath.Base(path))
		if err := vm.BuildProgram(t.Context(), "./cmd/"+filepath.Base(path), out); err != nil {
			t.Fatal(err)
		}
		c.Files[path] = vm.File{Source: out, Mode: 0o755}
	}
	bits32 := filepath.Join(bin, "bits32")
	if err := vm.BuildProgram32(t.Context(), "./tests/guest/bits32", bits32); err != nil {
		t.Fatal(err)
	}
	c.Files[guest.Bits32] = vm.File{Source: bits32, Mode: 0o755}
	for _, name := range []string{"socat", "xxd"} {
		c.Files["/usr/bin/"+name] = vm.File{Source: "/usr/bin/" + name, Mode: 0o755}
	}
	return c
}

// usualTimeout is longer than any machine has taken, even on a busy host. A machine
// that hangs must not use up the time of the next ones.
const usualTimeout = 20 * time.Minute

// machineTimeout returns how long a machine may run: the rest of the test's own time,
// but at most usualTimeout if its tests have their usual lengths.
func machineTimeout(t *testing.T) time.Duration {
	limit := 3 * time.Hour
	if os.Getenv("SOAK") == "" && os.Getenv("CHAOS") == "" && os.Getenv("RACE") == "" {
		limit = usualTimeout
	}
	if end, ok := t.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	return limit
}

// block returns the commands of the README that a comment names, unchanged.
func block(t *testing.T, name string) []byte {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "<!-- "+name+": run by tests/boot as it is typed -->\n\n```sh\n")
	block, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatalf("README.md has no %s", name)
	}
	return []byte(block)
}

func runGuest(t *testing.T, c vm.Config) {
	t.Helper()
	args := []string{"-test.v"}
	if guestTests != "" {
		args = append(args, "-test.run="+guestTests)
	}
	vm.Run(t, c, vm.BuildTest(t, "./guest"), args...)
}

// trustTSC has the kernel take its time from the tsc, as on real machines: it does not
// trust an emulated one, and records then get theirs in another way.
const trustTSC = "tsc=reliable"

func TestStandIn(t *testing.T) {
	for _, name := range vm.KernelNames() {
		t.Run(name, func(t *testing.T) {
			k := vm.TestKernel(t, name)
			m, err := standin.Build(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			c := machine(t, k, m.Patched, m.Unpatched)
			c.Env = append(c.Env, guest.EnvFS+"="+guest.StandIn)
			c.Files["/bin/scoutfs"] = vm.File{Data: []byte(standin.Scoutfs), Mode: 0o755}
			if name != "debian12" { // which leaves it at that
				c.Append = trustTSC
			}
			if os.Getenv(plant.Env) != "" && sanitizer(k) == "kasan" { // the first report is enough
				c.Append += " panic_on_warn=1 softlockup_panic=1"
			}
			runGuest(t, c)
		})
	}
}

// TestCost counts instructions.
func TestCost(t *testing.T) {
	k := vm.TestKernel(t, vm.KernelNames()[0])
	count := func(t *testing.T, c vm.Config) {
		c.Counted = true
		c.Env = append(c.Env, guest.EnvCounted+"=1")
		vm.Run(t, c, vm.BuildTest(t, "./guest"), "-test.v", "-test.run=^TestCost$")
	}
	t.Run("stand-in", func(t *testing.T) {
		m, err := standin.Build(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		c := machine(t, k, m.Patched, m.Unpatched)
		c.Env = append(c.Env, guest.EnvFS+"="+guest.StandIn)
		count(t, c)
	})
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Version, func(t *testing.T) {
			patched, unpatched := vm.TestScoutFS(t, k, s)
			c := machine(t, k, patched.Module, unpatched.Module)
			onScoutFS(&c, patched, s.Version)
			count(t, c)
		})
	}
}

// onScoutFS adds what real ScoutFS needs: its command, disks, for TestRace's second mount
// too, and its name.
func onScoutFS(c *vm.Config, tree *vm.ScoutFSTree, version string) {
	c.Env = append(c.Env, guest.EnvFS+"="+guest.ScoutFS, guest.EnvVersion+"="+version)
	disks := tree.Config(c.Kernel).Disks
	c.Disks = append(disks, disks...)
	c.Files["/bin/scoutfs"] = vm.File{Source: tree.Util, Mode: 0o755}
}

func TestScoutFS(t *testing.T) {
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		t.Run(s.Version, func(t *testing.T) {
			k := vm.TestKernel(t, vm.KernelNames()[0])
			patched, unpatched := vm.TestScoutFS(t, k, s)
			c := machine(t, k, patched.Module, unpatched.Module)
			onScoutFS(&c, patched, s.Version)
			c.Append = trustTSC
			c.Again = guest.MountHangs
			if race := os.Getenv(guest.EnvRace); race != "" {
				length, err := time.ParseDuration(race)
				if err != nil {
					t.Fatalf("%s: %v", guest.EnvRace, err)
				}
				c.Resume = resumeRace(length)
			}
			runGuest(t, c)
		})
	}
}
