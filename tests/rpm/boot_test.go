// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/rpm/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/standin"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// guestTests is a regular expression of the guest's tests to run; empty: all.
var guestTests = os.Getenv("GUEST_TESTS")

// TestSystemd boots a root file system with the packages installed by dnf, and runs
// the tests of tests/rpm/guest there.
func TestSystemd(t *testing.T) {
	dir := notifydPackages(t)
	// The kernel that the stand-in's series is for.
	k := kernel(t, "debian12")
	image := systemdImage(t, k, dir, kmod91)
	runSystemd(t, image, vm.Config{Kernel: k, Files: upgrade(dir)}, "")
}

// upgrade has the next release of the daemon's package as a file of a machine.
func upgrade(notifyd string) map[string]vm.File {
	return map[string]vm.File{
		guest.Upgrade: {Source: filepath.Join(notifyd, fmt.Sprint(second), fmt.Sprintf("scoutfs-notifyd-%d-1.x86_64.rpm", second))},
	}
}

// realVersions are those that TestSystemdScoutFS boots if no others are asked for.
var realVersions = []string{"v1.30", "v1.33"}

// TestSystemdScoutFS does to real ScoutFS what can leave it without a daemon.
func TestSystemdScoutFS(t *testing.T) {
	all, err := repo.Series()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SCOUTFS_SRC") == "" {
		t.Skip(vm.ErrNoSource)
	}
	image := ""
	for _, s := range all {
		if os.Getenv("VERSIONS") == "" && !slices.Contains(realVersions, s.Version) {
			continue
		}
		t.Run(s.Version, func(t *testing.T) {
			dir := notifydPackages(t)
			k := kernel(t, "debian11")
			patched, _ := vm.TestScoutFS(t, k, s)
			if image == "" {
				image = systemdImage(t, k, dir)
			}
			c := patched.Config(k)
			// Two file systems.
			c.Disks = append(c.Disks, c.Disks...)
			c.Again = guest.MountHangs
			runSystemd(t, image, c, "^TestLife")
		})
	}
}

// systemdImage makes the image of a root file system with the daemon's package and
// others installed, and returns its path.
func systemdImage(t *testing.T, k *vm.KernelTree, notifyd string, others ...string) string {
	t.Helper()
	image, err := os.MkdirTemp(runDir(t), "image-")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, append(packages(t),
		bind{Source: notifyd, Target: notifydDir},
		bind{Source: image, Target: "/image", Write: true})...)

	addKernel(m, k)
	out := m.run(append([]string{"dnf", "-y", "--nogpgcheck", "--releasever=9",
		"--repofrompath=others,file://" + workDir + "/others",
		"--repofrompath=release1,file://" + repoOf(first),
		fmt.Sprintf("--repofrompath=notifyd1,file://%s/%d", notifydDir, first),
		"install", "debian-provides", "scoutfs-notifyd"}, others...)...)
	for _, kmod := range others {
		contains(t, out, kmod+": module built and installed for kernel "+k.Version)
	}

	m.sh(makeImage)
	return filepath.Join(image, "root")
}

// makeImage makes the image of a machine's root, in its folder /image. It leaves out what
// no test needs and what is slow in an emulated machine: device units for terminals,
// modules, the journal's catalog, presets at first boot, generators at each reload. A
// bind mount leaves out other mounts: the host's folders, /proc and /dev.
const makeImage = `echo 0123456789abcdef0123456789abcdef > /etc/machine-id
rm -r /etc/systemd/system/*.wants /usr/lib/systemd/system-generators
cd /usr/lib/systemd/system
rm multi-user.target.wants/getty.target
find sysinit.target.wants -type l \( -name '*catalog*' -o ! -name '*journal*' ! -name systemd-tmpfiles-setup.service \) -delete
rm -rf /usr/src/linux-* /usr/lib/gcc /usr/lib/python3* /usr/share/man /var/cache /var/lib/apt
mount --bind / /mnt
mkfs.ext4 -q -O ^has_journal -d /mnt /image/root 1G
`

// TestSystemdNewer does that with newRoot's systemd and rpm, which are as new as EL10's,
// and with the stand-in's module in place of a package of it. To be quick, it runs only
// those of the tests in which unit and scriptlets do most.
func TestSystemdNewer(t *testing.T) {
	dir := notifydPackages(t)
	image, err := os.MkdirTemp(runDir(t), "image-")
	if err != nil {
		t.Fatal(err)
	}
	k := kernel(t, "debian12")
	modules, err := standin.Build(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	m := machineOf(t, newRoot, append(packages(t),
		bind{Source: dir, Target: notifydDir},
		bind{Source: filepath.Dir(modules.Patched), Target: "/standin"},
		bind{Source: image, Target: "/image", Write: true})...)
	version := m.run("systemctl", "--version")
	t.Log(version, m.run("rpm", "--version"))
	if got := regexp.MustCompile(`^systemd (\d+)`).FindStringSubmatch(version); got == nil || got[1] < "257" {
		t.Fatalf("Debian %s has %s, older than EL10's", newerSuite, version)
	}

	// The deb, and then what the machine is booted with.
	before := files(m)
	m.run("dpkg", "-i", fmt.Sprintf("%s/%d/scoutfs-notifyd_%d-1_amd64.deb", notifydDir, first, first))
	m.run("systemctl", "enable", "scoutfs-notifyd@mnt-a")
	m.run("dpkg", "--purge", "scoutfs-notifyd")
	equal(t, "files after purge", files(m), before)
	m.sh("rpm -i --nodeps " + workDir + "/others/noarch/debian-provides*.rpm")
	m.run("rpm", "-i", fmt.Sprintf("%s/%d/scoutfs-notifyd-%d-1.x86_64.rpm", notifydDir, first, first))
	equal(t, "rpm -V", lines(m.sh("rpm -V scoutfs-notifyd")), nil)
	equal(t, "folder for sockets", lines(m.sh("stat -c '%A %U %n' /run/scoutfs")), []string{"drwxr-xr-x root /run/scoutfs"})
	checkUnit(t, m, "scoutfs-notifyd")
	checkUnit(t, m, "scoutfs-notify-index")

	m.sh(fmt.Sprintf("install -D -m 644 -t /lib/modules/%[1]s/extra /standin/%[2]s\ndepmod %[1]s\n", k.Version, filepath.Base(modules.Patched)) + makeImage)
	runSystemd(t, filepath.Join(image, "root"), vm.Config{
		Kernel:  k,
		Modules: []string{modules.Patched},
		Files:   upgrade(dir),
	}, "^Test(Machine|PlainMount|MountUnit|IndexUnit|LifeNamespace|Upgrade|Remove)$")
}

// runSystemd runs tests of tests/rpm/guest in a machine: those that GUEST_TESTS names, or
// else which, a regular expression; empty: all.
func runSystemd(t *testing.T, image string, c vm.Config, which string) {
	t.Helper()
	enable := filepath.Join(t.TempDir(), "enable.sh")
	if err := os.WriteFile(enable, []byte(readREADME(t).enable), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Root = image
	c.Modules = append(c.Modules, "autofs4")
	if c.Files == nil {
		c.Files = map[string]vm.File{}
	}
	c.Files[guest.Enable] = vm.File{Source: enable}
	c.Timeout = 20 * time.Minute // far more than it takes, even on a busy host
	if life := os.Getenv(guest.EnvLife); life != "" {
		c.Env = append(c.Env, guest.EnvLife+"="+life)
		c.Resume = resume()
		c.Timeout = 8 * time.Hour
	}
	args := []string{"-test.v"}
	if tests := cmp.Or(guestTests, which); tests != "" {
		args = append(args, "-test.run="+tests)
	}
	vm.Run(t, c, vm.BuildTest(t, "./rpm/guest"), args...)
}

// resume returns a Resume that has each machine go on after the rounds that held in those
// before.
func resume() func(log string) ([]string, error) {
	held := make(map[string]string)
	line := regexp.MustCompile(`(?m)\| ` + guest.Held + `(\S+)=(\d+)$`)
	return func(log string) ([]string, error) {
		text, err := os.ReadFile(log)
		if err != nil {
			return nil, err
		}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			held[m[1]] = m[2]
		}
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(held)) {
			fields = append(fields, name+"="+held[name])
		}
		return []string{guest.EnvHeld + "=" + strings.Join(fields, " ")}, nil
	}
}
