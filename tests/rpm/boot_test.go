// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/rpm/guest"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// TestSystemd boots a root file system with the packages installed by dnf, and runs
// the tests of tests/rpm/guest there.
func TestSystemd(t *testing.T) {
	dir := notifydPackages(t)
	// The kernel that the stand-in's series is for.
	k := kernel(t, "debian12")
	image, err := os.MkdirTemp(runDir(t), "image-")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, append(packages(t),
		bind{Source: dir, Target: notifydDir},
		bind{Source: image, Target: "/image", Write: true})...)

	addKernel(m, k)
	out := m.run("dnf", "-y", "--nogpgcheck", "--releasever=9",
		"--repofrompath=others,file://"+workDir+"/others",
		"--repofrompath=release1,file://"+repoOf(first),
		fmt.Sprintf("--repofrompath=notifyd1,file://%s/%d", notifydDir, first),
		"install", "debian-provides", kmod91, "scoutfs-notifyd")
	contains(t, out, kmod91+": module built and installed for kernel "+k.Version)

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

	enable := filepath.Join(image, "enable.sh")
	if err := os.WriteFile(enable, []byte(readREADME(t).enable), 0o644); err != nil {
		t.Fatal(err)
	}
	vm.Run(t, vm.Config{
		Kernel:  k,
		Timeout: 10 * time.Minute,
		Root:    filepath.Join(image, "root"),
		Files: map[string]vm.File{
			guest.Enable:  {Source: enable},
			guest.Upgrade: {Source: filepath.Join(dir, fmt.Sprint(second), fmt.Sprintf("scoutfs-notifyd-%d-1.x86_64.rpm", second))},
		},
	}, vm.BuildTest(t, "./rpm/guest"), "-test.v")
}
