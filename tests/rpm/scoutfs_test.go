// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// TestScoutFS builds all packages of the real versions and installs them as in the
// README, one after the other, for a kernel that they support.
func TestScoutFS(t *testing.T) {
	source := os.Getenv("SCOUTFS_SRC")
	if source == "" {
		t.Skip(vm.ErrNoSource)
	}
	others := packages(t)
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, s := range all {
		versions = append(versions, s.Version)
	}
	if source, err = filepath.Abs(source); err != nil {
		t.Fatal(err)
	}
	dist := buildPackages(t, versions, "SCOUTFS_SRC="+source)
	m := newMachine(t, append(others, bind{Source: dist, Target: distDir})...)
	const usual = "debian11"
	installAsREADME(m, versions, addKernel(m, kernel(t, usual)))
	if vm.KernelOr(usual) == usual { // the root in which apt runs has Debian's kernel
		installDebAsREADME(t, dist, versions)
	}
}

// TestREADME does the same with the stand-in's versions and the root's kernels.
func TestREADME(t *testing.T) {
	t.Parallel()
	others := packages(t)
	versions := []string{"v9.1", "v9.2"}
	dist := buildPackages(t, versions, "SCOUTFS_SRC="+buildOnce.dir+"/upstream", "PATCHES_DIR="+buildOnce.dir+"/series1")
	// Both versions and the daemon, for two architectures and as source.
	names := strings.Fields(host(t, dist, "sh", "-c", "ls *.rpm *.deb"))
	if len(names) != 10 {
		t.Errorf("%d packages instead of 10: %v", len(names), names)
	}
	others = append(others, bind{Source: dist, Target: distDir})
	m := newMachine(t, others...)
	installAsREADME(m, versions, kernels(m)...)
	installDebAsREADME(t, dist, versions)

	// From a node with the stock module. Its kernels are fakes, for which it compiles fast.
	m = newMachine(t, others...)
	fakeKernels(m)
	m.sh("rpm -i --nodeps /opt/stock/noarch/kmod-scoutfs*.rpm")
	equal(t, "stock modules", describes(m), []string{"v9.1", "v9.1"})
	installAsREADME(m, versions, kernels(m)...)
}

// describes returns what the kernels' modules say of themselves.
func describes(m *machine) []string {
	m.t.Helper()
	return lines(m.sh("for kernel in $(ls /lib/modules); do modinfo -k $kernel -F git_describe scoutfs; done"))
}

// distDir is the path of dist/ in a machine.
const distDir = "/srv/dist"

// buildPackages does what "make packages" does, and returns its dist/.
func buildPackages(t *testing.T, versions []string, env ...string) string {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	dist, err := os.MkdirTemp(runDir(t), "dist-")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(buildOnce.dir, "build"), append([]string{"all"}, versions...)...)
	cmd.Dir = repo
	cmd.Env = append(append(os.Environ(), "DIST_DIR="+dist), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build packages: %v\n%s", err, out)
	}
	return dist
}

// readme is the README's way to install: the version of its example, the file for dnf,
// with distDir for the path, the commands that install and those that start the daemon.
type readme struct{ version, repo, install, enable string }

var (
	readmeBlockRE   = regexp.MustCompile("(?ms)^```sh\n(dnf .*?)^```$")
	readmeRepoRE    = regexp.MustCompile("(?ms)^```ini\n(.*?)^```$")
	readmeVersionRE = regexp.MustCompile(`scoutfs-notify-kmod-(v[0-9.]+)`)
	readmePathRE    = regexp.MustCompile(`(?m)^(baseurl=file://).*`)
)

// readREADME extracts the commands from the README.
func readREADME(t *testing.T) readme {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repo, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Install\n")
	if !ok {
		t.Fatal("README.md has no section Install")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := readmeBlockRE.FindAllStringSubmatch(section, -1)
	repos := readmeRepoRE.FindAllStringSubmatch(section, -1)
	if len(blocks) != 1 || len(repos) != 1 {
		t.Fatalf("README.md has %d blocks that begin with dnf and %d for dnf's list, not one each:\n%s", len(blocks), len(repos), section)
	}
	commands := blocks[0][1]
	versions := readmeVersionRE.FindAllStringSubmatch(commands, -1)
	i := strings.Index(commands, "\nsystemctl ") + 1
	file := readmePathRE.ReplaceAllString(repos[0][1], "${1}"+distDir)
	if len(versions) != 1 || strings.Count(file, distDir) != 1 || i == 0 {
		t.Fatalf("README.md does not install one module from one folder and start the daemon:\n%s", commands)
	}
	return readme{version: versions[0][1], repo: file, install: commands[:i], enable: commands[i:]}
}

// installAsREADME runs the README's commands that install, then swaps from version to
// version and removes all. There is no systemd to start the daemon; tests/rpm/guest
// runs those commands.
func installAsREADME(m *machine, versions []string, inKernels ...string) {
	t := m.t
	t.Helper()
	r := readREADME(t)
	installed := r.version
	if !slices.Contains(versions, installed) {
		installed = versions[0]
		t.Logf("installing %s instead of the README's example, %s", installed, r.version)
	}
	dnf := func(args ...string) {
		t.Helper()
		m.run(append([]string{"dnf"}, args...)...)
	}
	// The admin answers yes. Debian provides the requirements by other names.
	m.sh("echo assumeyes=1 >> /etc/dnf/dnf.conf; echo 9 > /etc/dnf/vars/releasever")
	m.run("dnf", "--repofrompath", "others,"+workDir+"/others", "--nogpgcheck", "install", "debian-provides")
	m.sh("cat > /etc/yum.repos.d/scoutfs-notify.repo <<'END'\n" + r.repo + "END")

	said := m.sh(strings.Replace(r.install, r.version, installed, 1))
	defer func() {
		if t.Failed() {
			t.Logf("the packages' installation said:\n%s\nthe end of what the compiler said:\n%s", said,
				m.sh("tail -n 30 /var/log/scoutfs-notify-*.log 2>&1 || :"))
		}
	}()
	release := releaseOf(t, m, "scoutfs-notify-kmod-"+installed)
	check(m, "scoutfs-notify-kmod-"+installed, release, inKernels...)
	equal(t, "rpm -V", lines(m.sh("rpm -V scoutfs-notifyd")), nil)

	for _, v := range versions {
		if v == installed || t.Failed() {
			continue
		}
		dnf("swap", "scoutfs-notify-kmod-"+installed, "scoutfs-notify-kmod-"+v)
		installed = v
		check(m, "scoutfs-notify-kmod-"+installed, release, inKernels...)
	}
	dnf("remove", "scoutfs-notifyd", "scoutfs-notify-kmod-"+installed)
	check(m, "", 0)
}

var readmeDebRE = regexp.MustCompile("(?ms)^```sh\n(echo \"deb .*?)^systemctl ")

// installDebAsREADME runs the README's commands that install on Debian 11, with one of
// the versions.
func installDebAsREADME(t *testing.T, dist string, versions []string) {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := readmeDebRE.FindStringSubmatch(string(text))
	if block == nil {
		t.Fatal("README.md does not install on Debian")
	}
	commands := strings.Replace(block[1], "/path/to/dist", distDir, 1)
	version := readmeVersionRE.FindStringSubmatch(commands)[1]
	if !slices.Contains(versions, version) {
		commands = strings.ReplaceAll(commands, version, versions[0])
		version = versions[0]
	}
	m := machineOf(t, debianRoot, bind{Source: dist, Target: distDir})
	// The root has no systemd, and no other archive.
	m.sh(`mkdir -p /tmp/systemd/DEBIAN
printf 'Package: systemd\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.invalid>\nDescription: none\n' > /tmp/systemd/DEBIAN/control
dpkg-deb -b /tmp/systemd /tmp/systemd.deb
dpkg -i /tmp/systemd.deb
: > /etc/apt/sources.list
echo 'APT::Get::Assume-Yes "true"; APT::Install-Recommends "false";' > /etc/apt/apt.conf.d/test`)
	m.sh(commands)
	kernel := strings.TrimSpace(m.sh("ls /lib/modules"))
	got := strings.TrimSpace(m.sh("modinfo -k " + kernel + " -F git_describe scoutfs"))
	if !strings.HasPrefix(got, version+"-notify-") {
		t.Errorf("kernel %s loads %q after\n%s", kernel, got, commands)
	}
	m.run("scoutfs-notify", "-version")
	m.run("apt-get", "purge", "scoutfs-notify-kmod-"+version)
	equal(t, "modules after removal", lines(m.sh("find /lib/modules/ -name '*scoutfs*'")), nil)
}

// releaseOf returns the release number N of an installed package.
func releaseOf(t *testing.T, m *machine, pkg string) int {
	t.Helper()
	n, err := strconv.Atoi(m.run("rpm", "-q", "--qf", "%{RELEASE}", pkg))
	if err != nil {
		t.Fatalf("the release of %s: %v", pkg, err)
	}
	return n
}

// addKernel replaces a machine's kernels with one of tests/vm and returns its release.
// It installs the headers, and as much of the modules as DKMS and modprobe look for.
func addKernel(m *machine, k *vm.KernelTree) string {
	m.t.Helper()
	m.jail.Mounts = append(m.jail.Mounts,
		bind{Source: k.Modules, Target: "/kernel"},
		bind{Source: k.Build, Target: "/usr/src/kernels/" + k.Version})
	m.sh(`rm -r /lib/modules/*
dir=/lib/modules/` + k.Version + `
mkdir -p $dir/kernel
cp /kernel/modules.order /kernel/modules.builtin* $dir/
for part in lib crypto; do
	[ ! -d /kernel/kernel/$part ] || cp -r /kernel/kernel/$part $dir/kernel/
done
ln -s /usr/src/kernels/` + k.Version + ` $dir/build
depmod ` + k.Version)
	return k.Version
}

// kernel returns a kernel of tests/vm: the one that the environment sets, or else this.
func kernel(t *testing.T, name string) *vm.KernelTree {
	t.Helper()
	k, err := vm.Kernel(t.Context(), vm.KernelOr(name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
