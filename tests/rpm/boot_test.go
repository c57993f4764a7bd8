// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
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
	runSystemd(t, image, vm.Config{
		Kernel: k,
		Files: map[string]vm.File{
			guest.Upgrade: {Source: filepath.Join(dir, fmt.Sprint(second), fmt.Sprintf("scoutfs-notifyd-%d-1.x86_64.rpm", second))},
		},
	})
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
			runSystemd(t, image, c)
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

	// Leave out what no test needs and what is slow in an emulated machine: device
	// units for terminals, modules, presets at first boot, generators at each reload.
	m.sh(`echo 0123456789abcdef0123456789abcdef > /etc/machine-id
rm -r /etc/systemd/system/*.wants /usr/lib/systemd/system-generators
cd /usr/lib/systemd/system
rm multi-user.target.wants/getty.target
find sysinit.target.wants -type l ! -name '*journal*' ! -name systemd-tmpfiles-setup.service -delete`)
	// A bind mount leaves out other mounts: the host's folders, /proc and /dev.
	m.sh(`rm -rf /usr/src/linux-* /usr/lib/gcc /usr/lib/python3* /usr/share/man /var/cache /var/lib/apt
mount --bind / /mnt
mkfs.ext4 -q -O ^has_journal -d /mnt /image/root 1G`)
	return filepath.Join(image, "root")
}

// runSystemd runs the tests of tests/rpm/guest in a machine.
func runSystemd(t *testing.T, image string, c vm.Config) {
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
	tests := guestTests
	if life := os.Getenv(guest.EnvLife); life != "" {
		c.Env = append(c.Env, guest.EnvLife+"="+life)
		c.Resume = resume()
		c.Timeout = 8 * time.Hour
	}
	if slices.Contains(c.Env, guest.EnvFS+"="+guest.ScoutFS) && tests == "" {
		tests = "^TestLife"
	}
	args := []string{"-test.v"}
	if tests != "" {
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
