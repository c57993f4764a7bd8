// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
)

// debsDir is the folder of the debs in a machine: one folder for each release, with an
// index for apt.
const debsDir = "/srv/debs"

// debs builds the stand-in's packages for Debian on the host, which has Go, and returns
// their folder.
func debs(t *testing.T) string {
	t.Helper()
	packages(t)
	repo, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(runDir(t), "debs")
	for _, release := range []int{first, second, broken} {
		for _, command := range []string{"deb", "index"} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(buildOnce.dir, "build"), command)
			cmd.Dir = repo
			cmd.Env = append(os.Environ(), "SCOUTFS_SRC="+filepath.Join(buildOnce.dir, "upstream"),
				fmt.Sprintf("PATCHES_DIR=%s/series%d", buildOnce.dir, release), "DIST_DIR="+filepath.Join(dir, strconv.Itoa(release)))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s of release %d: %v\n%s", command, release, err, out)
			}
		}
	}
	return dir
}

// TestKmodDeb does what an admin does with the module's packages on Debian, by apt, for
// the kernel of Debian 11.
func TestKmodDeb(t *testing.T) {
	t.Parallel()
	m := machineOf(t, debianRoot, bind{Source: debs(t), Target: debsDir})
	kernel := strings.TrimSpace(m.sh("ls /lib/modules"))
	t.Log(m.sh("dkms --version; uname -r"), kernel)
	before := debianFiles(m)

	// apt runs apt-get with the packages of a release.
	apt := func(release int, fails bool, args ...string) string {
		t.Helper()
		m.sh(fmt.Sprintf("echo 'deb [trusted=yes] file:%s/%d ./' > /etc/apt/sources.list; apt-get -q update -o APT::Update::Error-Mode=any", debsDir, release))
		out, err := m.tryAs([]string{"DEBIAN_FRONTEND=noninteractive"},
			append([]string{"apt-get", "-q", "-y", "--no-install-recommends", "--allow-downgrades"}, args...)...)
		if (err != nil) != fails {
			t.Fatalf("apt-get %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	has := func(pkg, describe string) {
		t.Helper()
		debVersion := strings.NewReplacer("v", "", "notify-", "").Replace(describe)
		version := strings.Replace(debVersion, "-", ".", 1)
		equal(t, "packages", lines(m.sh("dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n' 'scoutfs-notify-kmod*' | grep ' ii ' || :")),
			[]string{pkg + " " + debVersion + " ii "})
		equal(t, "module", lines(m.sh("modinfo -k "+kernel+" -F filename scoutfs; modinfo -k "+kernel+" -F git_describe scoutfs")),
			[]string{"/lib/modules/" + kernel + "/updates/dkms/scoutfs.ko", describe})
		equal(t, "dkms versions", lines(m.sh("ls /var/lib/dkms/scoutfs-notify | grep -v ^kernel-")), []string{version})
		equal(t, "sources", lines(m.sh("ls -d /usr/src/scoutfs-notify*")), []string{"/usr/src/scoutfs-notify-" + version})
		equal(t, "dpkg -V", lines(m.sh("dpkg -V "+pkg)), nil)
	}

	contains(t, apt(first, false, "install", kmod91), "module built and installed for kernel "+kernel)
	has(kmod91, "v9.1-notify-1")
	apt(first, false, "install", "--reinstall", kmod91)
	has(kmod91, "v9.1-notify-1")
	apt(second, false, "install", kmod91)
	has(kmod91, "v9.1-notify-2")

	// One that does not compile leaves the module that was there, and apt fails.
	out := apt(broken, true, "install", kmod91)
	contains(t, out, "ERROR: THE MODULE WAS NOT BUILT FOR KERNEL "+kernel, "KEEPS THE MODULE THAT IT HAD, v9.1-notify-2")
	equal(t, "module", lines(m.sh("modinfo -k "+kernel+" -F git_describe scoutfs")), []string{"v9.1-notify-2"})
	apt(second, false, "install", kmod91+"=9.1-2")
	has(kmod91, "v9.1-notify-2")

	// Nor does a swap for one that does not compile take it.
	out = apt(broken, true, "install", kmod92)
	contains(t, out, "ERROR: THE MODULE WAS NOT BUILT FOR KERNEL "+kernel, "KEEPS THE MODULE THAT IT HAD, v9.1-notify-2")
	equal(t, "module", lines(m.sh("modinfo -k "+kernel+" -F git_describe scoutfs")), []string{"v9.1-notify-2"})

	apt(second, false, "install", kmod92+"=9.2-2")
	has(kmod92, "v9.2-notify-2")

	// Without headers, nothing is built, and nothing is lost.
	build := "/lib/modules/" + kernel + "/build"
	m.sh("mv " + build + " /root/build")
	out = apt(second, true, "install", kmod91)
	contains(t, out, "no headers for kernel "+kernel, "KEEPS THE MODULE THAT IT HAD, v9.2-notify-2")
	equal(t, "module", lines(m.sh("modinfo -k "+kernel+" -F git_describe scoutfs")), []string{"v9.2-notify-2"})
	m.sh("mv /root/build " + build)
	m.run("dpkg", "--configure", "-a")
	has(kmod91, "v9.1-notify-2")
	apt(second, false, "install", kmod92)
	has(kmod92, "v9.2-notify-2")

	// A cut while dkms compiles: dpkg goes on when it is told to.
	m.sh("echo 'exit 1' > /tmp/dkms; chmod +x /tmp/dkms; mv /usr/sbin/dkms /usr/sbin/real-dkms; cp /tmp/dkms /usr/sbin/dkms")
	apt(first, true, "install", kmod92+"=9.2-1")
	m.sh("mv /usr/sbin/real-dkms /usr/sbin/dkms; mkdir -p /var/lib/dkms/scoutfs-notify/9.2.1/" + kernel + "/x86_64")
	m.run("dpkg", "--configure", "-a")
	has(kmod92, "v9.2-notify-1")

	contains(t, apt(first, false, "remove", kmod92), "no ScoutFS module is left for these kernels: "+kernel)
	// For a package that takes its place, as in a swap.
	kept := "/lib/modules/" + kernel + "/scoutfs-notify-saved.ko~"
	after := debianFiles(m)
	contains(t, strings.Join(after, "\n"), kept)
	equal(t, "files after removal", slices.DeleteFunc(after, func(path string) bool { return path == kept }), before)
	apt(first, false, "purge", kmod92)
	equal(t, "files after purge", debianFiles(m), before)
}

// debianFiles lists what a module's package could leave.
func debianFiles(m *machine) []string {
	m.t.Helper()
	return lines(m.sh("find / -xdev \\( -path /proc -o -path /dev -o -path /srv -o -path /tmp -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \\) " +
		"-prune -o -path '*scoutfs*' -print; find /lib/modules/ -name '*.ko'"))
}
