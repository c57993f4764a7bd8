// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	supported "git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// TestScoutFS builds all packages of the real versions and installs them as the
// README says, one after the other, for the kernel that they compile for.
func TestScoutFS(t *testing.T) {
	source := os.Getenv("SCOUTFS_SRC")
	if source == "" {
		t.Skip(vm.ErrNoSource)
	}
	others := packages(t)
	versions, err := supported.Versions()
	if err != nil {
		t.Fatal(err)
	}
	if source, err = filepath.Abs(source); err != nil {
		t.Fatal(err)
	}
	repo, err := vm.Root()
	if err != nil {
		t.Fatal(err)
	}
	dist := filepath.Join(runDir(t), "dist")
	cmd := exec.CommandContext(t.Context(), filepath.Join(buildOnce.dir, "build"), "packages")
	cmd.Dir = repo
	cmd.Env = append(os.Environ(), "SCOUTFS_SRC="+source, "DIST_DIR="+dist)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build packages: %v\n%s", err, out)
	}

	const from = "/path/to/dist" // as the README has it
	m := newMachine(t, append(others, bind{Source: dist, Target: from})...)
	k := addKernel(m, kernel(t, "debian11"))
	dnf := func(args ...string) string {
		m.t.Helper()
		return m.run(append([]string{"dnf", "-y", "--releasever=9",
			"--repofrompath", "others," + workDir + "/others",
			"--repofrompath", "scoutfs-notify," + from, "--nogpgcheck"}, args...)...)
	}
	dnf("install", "names-of-debian")
	release := 0
	for i, v := range versions {
		pkg := "scoutfs-notify-kmod-" + v
		if i == 0 {
			dnf("install", pkg, "scoutfs-notifyd")
			release = releaseOf(t, m, pkg)
		} else {
			dnf("swap", "scoutfs-notify-kmod-"+versions[i-1], pkg)
		}
		check(m, pkg, release, k)
	}
	equal(t, "rpm -V", lines(m.sh("rpm -V scoutfs-notifyd")), nil)
	dnf("remove", "scoutfs-notifyd", "scoutfs-notify-kmod-"+versions[len(versions)-1])
	check(m, "", 0)
}

// releaseOf returns N of an installed package.
func releaseOf(t *testing.T, m *machine, pkg string) int {
	t.Helper()
	n, err := strconv.Atoi(m.run("rpm", "-q", "--qf", "%{RELEASE}", pkg))
	if err != nil {
		t.Fatalf("the release of %s: %v", pkg, err)
	}
	return n
}

// addKernel gives a machine a kernel of tests/vm instead of those that it has, and
// returns its release: the headers, and of the modules what DKMS and modprobe
// look for.
func addKernel(m *machine, k *vm.KernelTree) string {
	m.t.Helper()
	m.jail.Mounts = append(m.jail.Mounts,
		bind{Source: k.Modules, Target: "/kernel"},
		bind{Source: k.Build, Target: "/usr/src/kernels/" + k.Version})
	m.sh(`rm -r /lib/modules/*
dir=/lib/modules/` + k.Version + `
mkdir -p $dir/kernel
cp /kernel/modules.order /kernel/modules.builtin* $dir/
cp -r /kernel/kernel/lib /kernel/kernel/crypto $dir/kernel/
ln -s /usr/src/kernels/` + k.Version + ` $dir/build
depmod ` + k.Version)
	return k.Version
}

// kernel returns a kernel of tests/vm.
func kernel(t *testing.T, name string) *vm.KernelTree {
	t.Helper()
	k, err := vm.Kernel(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
