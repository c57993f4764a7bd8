// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// Paths in the machines.
const (
	repoDir  = "/repo"      // this repository
	workDir  = "/srv/stage" // stand-in upstream, its series and their packages
	buildBin = workDir + "/build"
)

// buildOnce guards the packages of the stand-in upstream, which all tests share.
var buildOnce struct {
	sync.Once
	dir string // on the host; workDir in a machine. Empty if the build failed.
}

// The releases of the stand-in's series. first and second are good. broken has code
// that does not compile for the first of the root's kernels; it does for the second,
// the cloud kernel, which has no sound.
const first, second, broken = 1, 2, 3

func repoOf(release int) string { return fmt.Sprintf("%s/dist%d", workDir, release) }

// packages builds the packages of the stand-in upstream, once, and returns the
// mounts with which a machine can install them.
func packages(t *testing.T) []bind {
	t.Helper()
	elRoot.root(t) // skips the test if there can be none
	buildOnce.Do(func() { buildStandin(t) })
	if buildOnce.dir == "" {
		t.Fatal("the packages of the stand-in upstream were not built, see the first test")
	}
	return []bind{{Source: buildOnce.dir, Target: workDir}}
}

func buildStandin(t *testing.T) {
	dir := filepath.Join(runDir(t), "standin")
	s := newUpstream(t, dir, "v9.1", "v9.2")
	s.writeSeries("series1", first, nil)
	s.writeSeries("series2", second, nil)
	s.writeSeries("series3", broken, func(string) {
		s.write("kmod/src/describe.c", standinDescribe+"#if IS_ENABLED(CONFIG_SOUND)\n#error \"broken on purpose\"\n#endif\n")
	})
	compileBuild(t, filepath.Join(dir, "build"))

	m := builder(t, dir)
	for _, release := range []int{first, second, broken} {
		build(m, release, "rpm")
	}
	// A package that provides what Debian has by other names, and a stand-in for
	// stock ScoutFS's module package.
	m.sh(`
cd /tmp
cat > names.spec <<'END'
Name: debian-provides
Version: 1
Release: 1
Summary: Names of what Debian packages provide
License: none
BuildArch: noarch
Provides: dkms = 3.0.10, gcc, make, elfutils-libelf-devel, systemd, /bin/sh
%description
Names.
%files
END
sed -e 's/debian-provides/kmod-scoutfs/' -e /^Provides/d names.spec > stock.spec
for spec in names.spec stock.spec; do
	rpmbuild --quiet -bb --define '_rpmdir ` + workDir + `/others' $spec
done
for dir in ` + workDir + `/others ` + repoOf(first) + ` ` + repoOf(second) + ` ` + repoOf(broken) + `; do
	createrepo_c -q $dir
done`)
	buildOnce.dir = dir
}

// compileBuild compiles tests/packages for the machines.
func compileBuild(t *testing.T, out string) {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	host(t, repo, "env", "CGO_ENABLED=0", "go", "build", "-C", "tests", "-o", out, "./packages")
}

// builder returns a machine with a writable work folder.
func builder(t *testing.T, dir string) *machine {
	t.Helper()
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	return newMachine(t, bind{Source: repo, Target: repoDir}, bind{Source: dir, Target: workDir, Write: true})
}

// build runs tests/packages on the stand-in's series.
func build(m *machine, release int, args ...string) string {
	m.t.Helper()
	out, err := tryBuild(m, release, nil, args...)
	if err != nil {
		m.t.Fatalf("build %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryBuild(m *machine, release int, env []string, args ...string) (string, error) {
	// The first of two values counts.
	env = append(env, "SCOUTFS_SRC="+workDir+"/upstream",
		fmt.Sprintf("PATCHES_DIR=%s/series%d", workDir, release), "DIST_DIR="+repoOf(release))
	return m.tryAs(env, append([]string{"env", "-C", repoDir, buildBin}, args...)...)
}

// dnf runs dnf with access to the packages of release and their requirements.
func dnf(m *machine, release int, args ...string) string {
	m.t.Helper()
	out, err := tryDnf(m, release, args...)
	if err != nil {
		m.t.Fatalf("dnf %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryDnf(m *machine, release int, args ...string) (string, error) {
	return m.try(append([]string{"dnf", "-y", "--nogpgcheck", "--releasever=9",
		"--repofrompath=others,file://" + workDir + "/others",
		fmt.Sprintf("--repofrompath=release%d,file://%s", release, repoOf(release))}, args...)...)
}

const (
	kmod91 = "scoutfs-notify-kmod-v9.1"
	kmod92 = "scoutfs-notify-kmod-v9.2"
)

// kernels returns the kernels of a machine.
func kernels(m *machine) []string {
	m.t.Helper()
	return strings.Fields(m.sh("ls /lib/modules"))
}

// check checks that pkg of release is installed and its module is in the given
// kernels' trees, and that there is nothing of other packages. If pkg is empty, no
// package may be installed.
func check(m *machine, pkg string, release int, inKernels ...string) {
	m.t.Helper()
	version := strings.TrimPrefix(pkg, "scoutfs-notify-kmod-v")
	name := fmt.Sprintf("scoutfs-notify-%s.%d", version, release)

	var want []string
	if pkg != "" {
		want = []string{fmt.Sprintf("%s-%s-%d.noarch", pkg, version, release)}
	}
	equal(m.t, "installed packages", lines(m.sh("rpm -qa 'scoutfs-notify-kmod*' kmod-scoutfs")), want)

	want = nil
	for _, k := range inKernels {
		want = append(want, "/lib/modules/"+k+"/extra/scoutfs.ko")
	}
	equal(m.t, "modules", lines(m.sh("find /lib/modules/ -name 'scoutfs.ko*'")), want)
	for _, k := range inKernels {
		// By name, to check depmod's index, too.
		got := lines(m.sh("modinfo -k " + k + " -F git_describe scoutfs; modinfo -k " + k + " -F vermagic scoutfs | cut -d' ' -f1"))
		equal(m.t, "module of "+k, got, []string{fmt.Sprintf("v%s-notify-%d", version, release), k})
	}

	want = nil
	for _, k := range inKernels {
		want = append(want, fmt.Sprintf("scoutfs-notify/%s.%d, %s, x86_64: installed", version, release, k))
	}
	if pkg != "" && len(inKernels) == 0 {
		want = []string{fmt.Sprintf("scoutfs-notify/%s.%d: added", version, release)}
	}
	equal(m.t, "dkms status", lines(m.sh("dkms status")), want)

	want = nil
	if pkg != "" {
		want = []string{"/usr/src/" + name}
	}
	equal(m.t, "sources", lines(m.sh("find /usr/src -maxdepth 1 -name '*scoutfs*'")), want)
	want = nil
	if pkg != "" {
		want = []string{fmt.Sprintf("/var/lib/dkms/scoutfs-notify/%s.%d", version, release)}
		equal(m.t, "rpm -V", lines(m.sh("rpm -V "+pkg)), nil)
	}
	equal(m.t, "kept logs", keptLogs(m), nil)
	equal(m.t, "dkms versions", lines(m.sh("find /var/lib/dkms -mindepth 2 -maxdepth 2 -path '*scoutfs*' ! -name 'kernel-*'")), want)
}

// keptLogs lists the compiler logs that failed installations kept.
func keptLogs(m *machine) []string {
	m.t.Helper()
	return lines(m.sh("find /var/log -name '*scoutfs*'"))
}

func lines(out string) []string {
	l := strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
	slices.Sort(l)
	return l
}

// equal fails the test unless got and want have the same elements, in any order.
func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	without := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
	}
	for _, s := range without(got, want) {
		t.Errorf("%s: %q is unexpected", what, s)
	}
	for _, s := range without(want, got) {
		t.Errorf("%s: %q is missing", what, s)
	}
}

// contains fails the test unless out has all of texts.
func contains(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("the output lacks %q:\n%s", text, out)
		}
	}
}

// files lists all files of a machine, except those that every use of dnf, dkms or
// depmod leaves.
func files(m *machine) []string {
	m.t.Helper()
	return lines(m.sh(`find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /var/tmp -o -path ` + workDir + ` \
		-o -path /var/log -o -path /var/cache -o -path /var/lib/rpm -o -path /var/lib/dnf -o -path /root \
		-o -path /run/systemd -o -path '/var/lib/dkms/mok.*' \) -prune -o -print`))
}

// TestKmodLife does what an admin does with the package, on a machine with two
// kernels: install, reinstall, upgrade, swap, downgrade, remove.
func TestKmodLife(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages(t)...)
	// DKMS must compile without the tools that only package builds need.
	m.sh("rm /usr/bin/git /usr/bin/patch; if command -v git sparse; then exit 1; fi")
	ks := kernels(m)
	if len(ks) != 2 {
		t.Fatalf("the root has kernels %v instead of two", ks)
	}
	dnf(m, first, "install", "debian-provides")
	before := files(m)

	// Steps after a failed one would tell nothing.
	step := func(name string, f func(t *testing.T, m *machine)) {
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) {
			sub := &machine{t: t, jail: m.jail}
			f(t, sub)
		})
	}
	step("install", func(t *testing.T, m *machine) {
		out := dnf(m, first, "install", kmod91)
		for _, k := range ks {
			contains(t, out, kmod91+": module built and installed for kernel "+k)
		}
		check(m, kmod91, first, ks...)
	})
	step("reinstall", func(t *testing.T, m *machine) {
		dnf(m, first, "reinstall", kmod91)
		check(m, kmod91, first, ks...)
	})
	step("upgrade", func(t *testing.T, m *machine) {
		dnf(m, second, "upgrade", kmod91)
		check(m, kmod91, second, ks...)
	})
	step("install of another release is refused", func(t *testing.T, m *machine) {
		out, err := tryDnf(m, second, "install", kmod92)
		if err == nil {
			t.Error("dnf install succeeded")
		}
		contains(t, out, "conflicts with scoutfs-notify-kmod provided by "+kmod91, "--allowerasing")
		check(m, kmod91, second, ks...)
	})
	step("install of the stock module is refused", func(t *testing.T, m *machine) {
		out, err := tryDnf(m, second, "install", "kmod-scoutfs")
		if err == nil {
			t.Error("dnf install succeeded")
		}
		contains(t, out, kmod91, "conflicts with kmod-scoutfs")
		check(m, kmod91, second, ks...)
	})
	step("install --allowerasing", func(t *testing.T, m *machine) {
		dnf(m, second, "install", "--allowerasing", kmod92)
		check(m, kmod92, second, ks...)
	})
	step("swap", func(t *testing.T, m *machine) {
		dnf(m, second, "swap", kmod92, kmod91)
		check(m, kmod91, second, ks...)
	})
	step("downgrade", func(t *testing.T, m *machine) {
		dnf(m, first, "downgrade", kmod91)
		check(m, kmod91, first, ks...)
	})
	step("swap for the stock module", func(t *testing.T, m *machine) {
		dnf(m, first, "swap", kmod91, "kmod-scoutfs")
		equal(t, "modules", lines(m.sh("find /lib/modules/ -name 'scoutfs.ko*'; dkms status")), nil)
		dnf(m, first, "swap", "kmod-scoutfs", kmod91)
		check(m, kmod91, first, ks...)
	})
	step("remove", func(t *testing.T, m *machine) {
		dnf(m, first, "remove", kmod91)
		check(m, "", 0)
		equal(t, "files after removal", files(m), before)
	})
}

// hideKernel removes a kernel from the machine and returns a function that restores
// it.
func hideKernel(m *machine, kernel string) func() {
	m.t.Helper()
	m.run("mv", "/lib/modules/"+kernel, "/root/"+kernel)
	return func() {
		m.t.Helper()
		m.run("mv", "/root/"+kernel, "/lib/modules/"+kernel)
	}
}

func TestKmodLaterKernel(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		ks := kernels(m)
		bringBack := hideKernel(m, ks[1])
		dnf(m, first, "install", kmod91)
		check(m, kmod91, first, ks[0])

		bringBack()
		m.run("dkms", "autoinstall", "-k", ks[1])
		check(m, kmod91, first, ks...)
		dnf(m, first, "remove", kmod91)
		check(m, "", 0)
	})
}

func TestKmodNoHeaders(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		ks := kernels(m)
		for _, k := range ks {
			m.sh("mv /lib/modules/" + k + "/build /root/build-" + k)
		}
		out := dnf(m, first, "install", kmod91)
		for _, k := range ks {
			contains(t, out, "no headers for kernel "+k, "dkms autoinstall -k "+k)
		}
		contains(t, out, "ERROR: NO KERNEL HAS A SCOUTFS MODULE", "scriptlet failed")
		check(m, kmod91, first)

		// The headers are installed, and the machine boots.
		for _, k := range ks {
			m.sh("mv /root/build-" + k + " /lib/modules/" + k + "/build")
			m.run("dkms", "autoinstall", "-k", k)
		}
		check(m, kmod91, first, ks...)
	})
}

// A kernel that ScoutFS does not support is skipped. That is not a failure.
func TestKmodOtherKernel(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		ks := kernels(m)
		bringBack := hideKernel(m, ks[1])
		m.sh("cp -a /lib/modules/" + ks[0] + " /lib/modules/7.0.0-1.el11.x86_64")
		out := dnf(m, first, "install", kmod91)
		contains(t, out, "ScoutFS 9.1 does not support kernel 7.0.0-1.el11.x86_64")
		if strings.Contains(out, "scriptlet failed") {
			t.Errorf("a scriptlet failed:\n%s", out)
		}
		check(m, kmod91, first, ks[0])
		bringBack()
	})
}

// A failure for one kernel is reported loudly, and the compiler's output is kept,
// although dkms deletes it when it builds for the next kernel, which succeeds.
func TestKmodCompileFailure(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		ks := kernels(m)
		log := "/var/log/scoutfs-notify-9.1.3-" + ks[0] + ".log"
		out, _ := tryDnf(m, broken, "install", kmod91)
		contains(t, out, "ERROR: THE MODULE WAS NOT BUILT FOR KERNEL "+ks[0], "Compiler output: "+log, "scriptlet failed",
			kmod91+": module built and installed for kernel "+ks[1])
		if strings.Contains(out, "/build/make.log") {
			t.Errorf("the output names a file that dkms deletes:\n%s", out)
		}
		contains(t, m.run("cat", log), "for kernel "+ks[0], "broken on purpose")
		equal(t, "kept logs", keptLogs(m), []string{log})
		equal(t, "modules", lines(m.sh("find /lib/modules/ -name 'scoutfs.ko*'")), []string{"/lib/modules/" + ks[1] + "/extra/scoutfs.ko"})
		equal(t, "rpm -V", lines(m.sh("rpm -V "+kmod91)), nil)

		// An upgrade or a removal recovers.
		dnf(m, second, "downgrade", kmod91)
		check(m, kmod91, second, ks...)
		tryDnf(m, broken, "upgrade", kmod91)
		equal(t, "kept logs", keptLogs(m), []string{log})
		dnf(m, broken, "remove", kmod91)
		check(m, "", 0)
	})
}

// failingDkms replaces dkms: it fails to build, and runs the real one for the rest.
const failingDkms = `#!/bin/sh
case $1 in
build | install) echo "Error! as asked for"; exit 6 ;;
esac
exec real-dkms "$@"
`

// A failure before the compiler runs leaves no log, so none is named.
func TestKmodDkmsFailure(t *testing.T) {
	t.Parallel()
	eachDkms(t, func(t *testing.T, m *machine) {
		m.sh("mv /usr/sbin/dkms /usr/sbin/real-dkms; cat > /usr/sbin/dkms <<'END'\n" + failingDkms + "END\nchmod +x /usr/sbin/dkms")
		out, _ := tryDnf(m, first, "install", kmod91)
		contains(t, out, "Error! as asked for", "(dkms exit code 6)", "There is no compiler output", "scriptlet failed")
		if strings.Contains(out, "/var/log/scoutfs") || strings.Contains(out, "make.log") {
			t.Errorf("the output names a log:\n%s", out)
		}
		check(m, kmod91, first)
		dnf(m, first, "remove", kmod91)
		check(m, "", 0)
	})
}

// Packages are the same bytes when another user builds them in another folder at another
// time, from and to folders with a space.
func TestReproducible(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	again := filepath.Join(t.TempDir(), "again")
	if err := os.Mkdir(again, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(again, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	m.jail.Mounts = append(m.jail.Mounts, bind{Source: again, Target: "/with space/again", Write: true})
	m.sh("ln -s " + workDir + " '/with space/stage'; git config --system --add safe.directory '*'")
	m.run("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", "-C", repoDir,
		"SCOUTFS_SRC=/with space/stage/upstream", "PATCHES_DIR=/with space/stage/series1", "DIST_DIR=/with space/again",
		"TMPDIR=/var/tmp", buildBin, "rpm")
	compare(t, filepath.Join(buildOnce.dir, filepath.Base(repoOf(first))), again, 4)
}

// compare fails the test unless a and b hold the same n packages.
func compare(t *testing.T, a, b string, n int) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(a, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".rpm", ".deb"}, filepath.Ext(path)) {
			return err
		}
		found++
		x, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		y, err := os.ReadFile(filepath.Join(b, filepath.Base(path)))
		if err != nil {
			return err
		}
		if !bytes.Equal(x, y) {
			t.Errorf("two builds of %s differ", filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != n {
		t.Errorf("%d packages compared instead of %d", found, n)
	}
}

// make kmod needs neither root nor network, and leaves only the module.
func TestKmodUnprivileged(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	ks := kernels(m)
	m.sh("mkdir -m 777 /out; git config --system --add safe.directory '*'")
	args := []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", "-C", repoDir,
		"SCOUTFS_SRC=" + workDir + "/upstream", "PATCHES_DIR=" + workDir + "/series1", "DIST_DIR=/out",
		"KVER=" + ks[0], buildBin, "kmod", "v9.2"}
	before := files(m)
	m.run(args...)
	equal(t, "results", lines(m.sh("find /out -type f")), []string{"/out/kmod/v9.2/" + ks[0] + "/scoutfs.ko"})
	m.sh("rm -r /out/kmod")
	equal(t, "files left", files(m), before)

	// Kernels that ScoutFS does not support are refused by name.
	out, err := m.try(append(args[:len(args)-3], "KVER=7.0.0", "KERNEL_SRC=/lib/modules/"+ks[0]+"/build", buildBin, "kmod", "v9.2")...)
	if err == nil {
		t.Error("built for an unsupported kernel")
	}
	contains(t, out, "kernel 7.0.0 is not among those in")
}

// A patch that does not apply fails the package build, which names it.
func TestBadPatch(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	m.sh("cp -r " + workDir + "/series1 /bad; sed -i 's/^ scoutfs-y/ scoutfs-z/' /bad/v9.1/0002*")
	out, err := tryBuild(m, first, []string{"PATCHES_DIR=/bad", "DIST_DIR=/out"}, "rpm", "v9.1")
	if err == nil {
		t.Error("built with a patch that does not apply")
	}
	contains(t, out, "0002-call-the-hooks.patch", "(%prep)")
}

// The spec's compile check: for KERNEL_SRC, for all headers where EL installs them,
// and without any headers.
func TestCompileCheck(t *testing.T) {
	t.Parallel()
	packages(t)
	m := builder(t, buildOnce.dir)
	ks := kernels(m)
	// fails is the expected error; empty: the build must succeed. The broken release
	// does not compile for the first of the two kernels.
	try := func(release int, fails string, env ...string) {
		t.Helper()
		out, err := tryBuild(m, release, append(env, "DIST_DIR=/out"), "rpm", "v9.1")
		if fails == "" {
			if err != nil {
				t.Errorf("release %d, %v: %v\n%s", release, env, err, out)
			}
			return
		}
		if err == nil {
			t.Errorf("release %d, %v: built, but should fail with %q", release, env, fails)
		}
		contains(t, out, fails, "(%check)")
	}
	headers := func(kernel string) string { return "/lib/modules/" + kernel + "/build" }
	try(first, "", "KERNEL_SRC="+headers(ks[0]))
	try(broken, "broken on purpose", "KERNEL_SRC="+headers(ks[0]))
	const none = "no kernel headers to compile against"
	try(first, none, "KERNEL_SRC=/nowhere")

	try(first, none, "COMPILE_CHECK=1")
	install := func(kernel string) {
		m.sh("mkdir -p /usr/src/kernels; ln -s $(readlink -f " + headers(kernel) + ") /usr/src/kernels/" + kernel)
	}
	install(ks[1])
	try(broken, "", "COMPILE_CHECK=1")
	install(ks[0])
	try(broken, "broken on purpose", "COMPILE_CHECK=1")
	try(first, "", "COMPILE_CHECK=1")
	// A kernel that the release is not for is left out.
	m.sh("mkdir -p /usr/src/kernels/other/include/config; echo 6.12.0-1.el10_0.x86_64 > /usr/src/kernels/other/include/config/kernel.release; " +
		"echo 'modules: ; exit 1' > /usr/src/kernels/other/Makefile")
	try(first, "", "COMPILE_CHECK=1")
	try(first, "supports none: 6.12.0-1.el10_0.x86_64", "KERNEL_SRC=/usr/src/kernels/other")
	// KERNEL_SRC takes precedence over installed headers.
	try(broken, "", "COMPILE_CHECK=1", "KERNEL_SRC="+headers(ks[1]))
}
