// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Upstream's commands, from its ioctl.h.
const (
	iocReadXattrTotals = 0x4028e80f // _IOW(0xe8, 15, 40 bytes)
	iocInjectTotlDelta = 0x4028e819 // _IOW(0xe8, 25, 40 bytes), from v1.31 on
)

type injectTotlDelta struct {
	name         [3]uint64
	total, count int64
}

type readXattrTotals struct {
	pos   [3]uint64
	ptr   uint64
	bytes uint64
}

type xattrTotal struct {
	name         [3]uint64
	total, count uint64
}

// totals returns the file system's xattr totals.
func (f *fs) totals() []xattrTotal {
	f.t.Helper()
	// only committed totals can be read
	unix.Sync()
	dir := f.openDir()
	defer unix.Close(dir)
	buf := make([]xattrTotal, 16)
	arg := readXattrTotals{ptr: uint64(uintptr(unsafe.Pointer(&buf[0]))), bytes: uint64(len(buf)) * uint64(unsafe.Sizeof(buf[0]))}
	n, err := ioctl(dir, iocReadXattrTotals, unsafe.Pointer(&arg))
	if err != nil {
		f.t.Fatalf("read totals: %v", err)
	}
	return buf[:n]
}

// v1.31 gave number 25 to a command that writes totals. Each of the two commands gets
// to its own code or fails: ours never writes a total, and theirs still does.
func TestSharedNumber(t *testing.T) {
	inGuest(t)
	if !isScoutFS() {
		t.Skip("the stand-in does not have upstream's command with this number")
	}
	var want error
	if slices.Contains([]string{"v1.28", "v1.29", "v1.30"}, os.Getenv(EnvVersion)) {
		want = unix.ENOTTY
	}
	for _, module := range []string{Unpatched, Module} {
		t.Run(filepath.Base(filepath.Dir(module)), func(t *testing.T) {
			insmod(t, module)
			defer rmmod(t)
			f := mountFS(t)
			defer f.umount()
			before := f.totals()

			// ours
			dir := f.openDir()
			var rn readNotify
			fd, err := ioctlReadNotify(dir, &rn)
			switch {
			case module == Module && err != nil:
				t.Errorf("attach: %v", err)
			case module == Module:
				unix.Close(fd)
			case err != unix.ENOTTY:
				t.Errorf("attach to an unpatched module: %v, not ENOTTY", err)
			}
			if got := f.totals(); len(got) != len(before) {
				t.Errorf("attaching changed the totals from %v to %v", before, got)
			}

			// theirs
			delta := injectTotlDelta{name: [3]uint64{1, 2, 3}, total: 7, count: 1}
			if module == Module {
				delta.name[2] = 4
			}
			_, err = ioctl(dir, iocInjectTotlDelta, unsafe.Pointer(&delta))
			unix.Close(dir)
			if err != want {
				t.Errorf("the command of v1.31 on %s: %v, should be %v", os.Getenv(EnvVersion), err, want)
			}
			// A mount may keep showing totals that it read before.
			f.umount()
			f.mount()
			after := f.totals()
			if want != nil {
				if len(after) != len(before) {
					t.Errorf("totals changed from %v to %v", before, after)
				}
				return
			}
			if len(after) != len(before)+1 {
				t.Fatalf("totals before %v and after %v, want one more", before, after)
			}
			if last := after[len(after)-1]; last.name != delta.name || last.total != 7 || last.count != 1 {
				t.Errorf("the new total is %+v, should be %+v", last, delta)
			}
		})
	}
}
