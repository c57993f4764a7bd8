// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/repo"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

// A recipe makes a throw-away root of a Debian release.
type recipe struct {
	suite    string
	packages []string
	setup    string // script with the root's path as its argument
	once     func() (string, error)
}

var (
	// elRoot has the real dnf, rpm and dkms, two kernels' headers, and tools that check the
	// results. No sparse: DKMS must work without it.
	elRoot = newRecipe("bookworm", elSetup+kernelSetup,
		"createrepo-c", "dkms", "dnf", "dpkg-dev", "gcc", "git", "kmod", "libc6-dev", "make", "man-db", "mandoc", "patch", "rpm", "rpmlint",
		"systemd", "linux-headers-amd64", "linux-headers-cloud-amd64")
	// debianRoot is a Debian whose kernel ScoutFS compiles for.
	debianRoot = newRecipe("bullseye", "cd \"$1\"\nrm etc/dpkg/dpkg.cfg.d/99mmdebstrap\n"+kernelSetup,
		"dkms", "gcc", "kmod", "linux-headers-amd64", "make")
	// newRoot has EL10's systemd, 257, and a newer rpm than its.
	newRoot = newRecipe(newerSuite, `cd "$1"
rm etc/dpkg/dpkg.cfg.d/99mmdebstrap
mkdir -p etc/rpm var/lib/rpm
echo '%_dbpath /var/lib/rpm' > etc/rpm/macros
`, "e2fsprogs", "kmod", "mount", "rpm", "systemd")
)

// elSetup makes the root look like the RHEL family to dkms, rpm and the packages.
const elSetup = `cd "$1"
mkdir -p etc/rpm etc/yum.repos.d var/lib/rpm usr/share/licenses
# dkms asks it where modules go and what to do with modules that it finds there.
rm etc/os-release
cat > etc/os-release <<'END'
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.6"
END
# What kept the root small must not keep files of packages from being installed.
rm etc/dpkg/dpkg.cfg.d/99mmdebstrap
# Debian's rpm keeps its database in the home folder of whoever runs it.
echo '%_dbpath /var/lib/rpm' > etc/rpm/macros
`

// kernelSetup gives kernels to a root.
const kernelSetup = `# Headers alone: give each the parts of a kernel that depmod and scriptlets look for, with
# a module: dkms 3.2 takes a kernel whose index is empty for a removed one.
for dir in lib/modules/*; do
	mkdir "$dir/kernel"
	printf '.section .modinfo,"a"\n.asciz "name=other"\n.asciz "license=GPL"\n' |
		chroot . as -o "/$dir/kernel/other.ko" -
	: > "$dir/modules.order"
	: > "$dir/modules.builtin"
	chroot . depmod "${dir##*/}"
done
`

func newRecipe(suite, setup string, packages ...string) *recipe {
	r := &recipe{suite: suite, packages: packages, setup: setup}
	r.once = sync.OnceValues(r.make)
	return r
}

// root returns the cached root file system, which it makes the first time.
func (r *recipe) root(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount and chroot: run the tests as root")
	}
	dir, err := r.once()
	if err != nil {
		t.Fatalf("make the throw-away root: %v", err)
	}
	return dir
}

func (r *recipe) make() (string, error) {
	// The name has a hash of the recipe, so another recipe makes another root.
	sum := sha256.Sum256([]byte(r.suite + strings.Join(r.packages, " ") + r.setup))
	dir, err := repo.Cached("rpm", fmt.Sprintf("root-%x", sum[:6]), func(tmp string) error {
		fmt.Fprintf(os.Stderr, "rpm: making the throw-away root of Debian %s\n", r.suite)
		tree := filepath.Join(tmp, "root")
		if err := vm.MakeDebian(context.Background(), tree, r.suite, r.packages, true); err != nil {
			return err
		}
		if out, err := exec.Command("sh", "-euc", r.setup, "sh", tree).CombinedOutput(); err != nil {
			return fmt.Errorf("set up the root: %w\n%s", err, out)
		}
		return nil
	})
	return filepath.Join(dir, "root"), err
}

// host runs a program on the host, in dir. It must succeed.
func host(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
