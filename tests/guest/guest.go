// SPDX-License-Identifier: GPL-2.0-only

// Package guest holds the tests that run inside the machines of tests/vm, and
// the names that they share with the host side. On a host they are skipped.
package guest

import (
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// EnvFS is the variable that names the file system: StandIn or ScoutFS.
const (
	EnvFS   = "FS"
	StandIn = "testfs"
	ScoutFS = "scoutfs"
)

// EnvVersion is the variable with ScoutFS's release.
const EnvVersion = "SCOUTFS_VERSION"

// EnvRace is the variable with TestRace's duration, such as 2m.
const EnvRace = "RACE"

// Raced begins the lines with how long TestRace has raced.
const Raced = "raced for "

// EnvCounted is set in machines whose clock counts instructions.
const EnvCounted = "COUNTED"

// EnvProvoke is set in machines that are to show a fault of ScoutFS's own.
const EnvProvoke = "PROVOKE"

// Paths of files that the host side puts into the machine.
const (
	// Module is the module with notify support.
	Module = "/guest/patched/scoutfs.ko"
	// Unpatched is the module without it.
	Unpatched = "/guest/unpatched/scoutfs.ko"
	// Smoke is the README's smoke test, unchanged.
	Smoke = "/guest/smoke.sh"
	// Night is what the README has an archive site run each night, unchanged.
	Night = "/guest/night.sh"

	Daemon  = "/bin/scoutfs-notifyd"
	Command = "/bin/scoutfs-notify"
	Index   = "/bin/scoutfs-notify-index"

	// Bits32 is the consumer of tests/guest/bits32.
	Bits32 = "/guest/bits32"
)

// MountHangs is what the tests print when mount(2) of real ScoutFS does not return:
// now and then its client and its server, in the same kernel, both wait for the
// other's first message. That is upstream's fault, and such a machine proves nothing.
const MountHangs = "guest: mount(2) of ScoutFS does not return"

// MountPoint is where the tests mount the file system, as in the examples of README
// and man pages.
const MountPoint = "/mnt/scoutfs"

// FSID is the fsid to mount the stand-in with. Like a real file system's, it stays
// the same over a remount.
const FSID = 0xfeedc0de12345678

// LoadModule loads a kernel module.
func LoadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// mkfsOnce makes the two file systems that the machine may have disks for, each once.
var mkfsOnce = [2]func() error{
	sync.OnceValue(func() error { return Mkfs(0) }), sync.OnceValue(func() error { return Mkfs(1) }),
}

// Mkfs makes the real ScoutFS that is number 0 or 1, also again.
func Mkfs(nr int) error {
	out, err := exec.Command("scoutfs", "mkfs", "-A", "-f", "-Q", fmt.Sprintf("0,127.0.0.1,%d", 20000+nr),
		proto.DiskPath(2*nr), proto.DiskPath(2*nr+1)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("scoutfs mkfs: %w\n%s", err, out)
	}
	return nil
}

// Mount creates dir and mounts the file system that EnvFS names there. Real ScoutFS
// keeps its files from mount to mount; the stand-in starts empty each time.
func Mount(dir string) error { return MountNr(dir, 0) }

// MountNr is [Mount] for another file system, 0 or 1, of the same kind.
func MountNr(dir string, nr int) error {
	source, opts := "none", fmt.Sprintf("fsid=%x", uint64(FSID)+uint64(nr)<<40)
	if os.Getenv(EnvFS) == ScoutFS {
		if err := mkfsOnce[nr](); err != nil {
			return err
		}
		source, opts = proto.DiskPath(2*nr+1), "quorum_slot_nr=0,metadev_path="+proto.DiskPath(2*nr)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Real ScoutFS waits for its server, and a signal, such as Go's to preempt, ends that.
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Mount(source, dir, "scoutfs", 0, opts)
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, dir, err)
	}
	return nil
}
