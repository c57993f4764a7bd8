// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// newerSuite is the Debian release whose dkms and systemd are tried beside those of the
// root: the newest release, because dkms changes, and EPEL has the newest.
const newerSuite = "trixie"

// eachDkms runs a test in a machine with the oldest dkms that the packages are for, which
// is the root's, in one with that of a newer Debian and, if DKMS_SRC names a folder with
// the source of another, in one with that.
func eachDkms(t *testing.T, test func(t *testing.T, m *machine)) {
	t.Helper()
	mounts := packages(t)
	with := func(t *testing.T, source, install string) {
		m := newMachine(t, append(slices.Clone(mounts), bind{Source: source, Target: "/srv/dkms"})...)
		m.sh(install)
		t.Log(m.sh("dkms --version"))
		test(t, m)
	}
	t.Run("root's", func(t *testing.T) { with(t, t.TempDir(), "") })
	t.Run(newerSuite, func(t *testing.T) {
		deb, err := vm.DebianPackage(t.Context(), newerSuite, "dkms")
		if err != nil {
			t.Fatal(err)
		}
		with(t, filepath.Dir(deb), "dpkg --install --force-depends --force-confnew /srv/dkms/"+filepath.Base(deb))
	})
	t.Run("DKMS_SRC", func(t *testing.T) {
		source := os.Getenv("DKMS_SRC")
		if source == "" {
			t.Skip("DKMS_SRC is not set: it can name a folder with the source of another dkms")
		}
		with(t, source, "cp -r /srv/dkms /tmp/dkms; make -s -C /tmp/dkms install-debian; rm -r /tmp/dkms")
	})
}

// kernelHook is what a kernel's removal runs, whichever dkms is there.
const kernelHook = "/etc/kernel/prerm.d/dkms"
