// SPDX-License-Identifier: GPL-2.0-only

package rpm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// suite is the Debian release of the throw-away root.
const suite = "bookworm"

// rootPackages are what the root holds: dnf, rpm and dkms as they are, two kernels'
// headers, and the tools that check what was built. No sparse: DKMS must do
// without.
var rootPackages = []string{
	"createrepo-c", "dkms", "dnf", "gcc", "git", "kmod", "libc6-dev", "make", "man-db", "mandoc", "patch", "rpm", "rpmlint",
	"systemd", "linux-headers-amd64", "linux-headers-cloud-amd64",
}

// rootSetup makes the root one of the RHEL family as far as dkms, rpm and the
// packages can tell.
const rootSetup = `cd "$1"
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
# Headers alone: give each the parts of a kernel that depmod and scriptlets look for.
for dir in lib/modules/*; do
	mkdir "$dir/kernel"
	: > "$dir/modules.order"
	: > "$dir/modules.builtin"
	chroot . depmod "${dir##*/}"
done
`

// root returns the cached root file system, which it makes at first.
func root(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to chroot: run the tests as root")
	}
	dir, err := rootOnce()
	if err != nil {
		t.Fatalf("make the throw-away root: %v", err)
	}
	return dir
}

var rootOnce = sync.OnceValues(func() (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	// What the recipe says is what the name says: another recipe, another root.
	sum := sha256.Sum256([]byte(suite + strings.Join(rootPackages, " ") + rootSetup))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", suite, sum[:6]))

	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	mirrors, err := mirrors()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "rpm: making the throw-away root in %s\n", dir)
	args := []string{
		"--variant=minbase", "--format=directory", "--include=" + strings.Join(rootPackages, ","),
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		suite, tmp,
	}
	cmd := exec.Command("mmdebstrap", append(args, mirrors...)...)
	// It mounts /proc and /dev in the root. In a namespace of its own they are gone
	// when it is, and what removes a root can never walk into the host's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap (Debian package mmdebstrap): %w\n%s", err, out)
	}
	if out, err := exec.Command("sh", "-euc", rootSetup, "sh", tmp).CombinedOutput(); err != nil {
		return "", fmt.Errorf("set up the root: %w\n%s", err, out)
	}
	return dir, os.Rename(tmp, dir)
})

// mirrors returns the archives of Debian that apt is configured with here: no
// host stands in this repository.
func mirrors() ([]string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	uris := strings.Fields(string(out))
	slices.Sort(uris)
	uris = slices.Compact(uris)
	if len(uris) == 0 {
		return nil, errors.New("apt has no index of a Debian archive with the component main: " +
			"run apt-get update, or add one to its sources")
	}
	return uris, nil
}

// repository returns the root of the repository.
func repository() (string, error) { return filepath.Abs(filepath.Join("..", "..")) }

func cacheFolder() (string, error) {
	dir := os.Getenv("SCOUTFS_NOTIFY_CACHE")
	if dir == "" {
		repo, err := repository()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(repo, ".cache")
	}
	dir = filepath.Join(dir, "rpm")
	return dir, os.MkdirAll(dir, 0o755)
}

// host runs a program of this machine in dir; it must succeed.
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
