// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// Through overlayfs the records have the reader's process, but the user and group of
// who mounted the overlay: overlayfs opens and reads the files below in their name.
func TestOverlay(t *testing.T) {
	f := setup(t)
	if err := os.Mkdir(f.path("lower"), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	ino := f.create("lower/a", 100)
	const merged = "/mnt/overlay" // which the reader may search
	if err := os.MkdirAll(merged, 0o755); err != nil {
		t.Fatal(err)
	}
	loadLater(t, "overlay")
	// Two lower layers need no upper one.
	err := unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s:%s", f.path("lower"), t.TempDir()))
	if errors.Is(err, unix.ENODEV) {
		t.Skip("skipped: this kernel has no overlayfs")
	}
	if err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("umount overlay: %v", err)
		}
	})
	f.startDaemon()
	c := f.dial()

	ids := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 2000}}
	cmd := worker(roleRead, merged+"/a", ids)
	if err := cmd.Run(); err != nil {
		t.Fatalf("the reader: %v", err)
	}
	for _, typ := range []notify.Type{notify.TypeOpen, notify.TypeRead} {
		rec, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		pid := uint32(cmd.Process.Pid)
		if rec.Type != typ || rec.Ino != ino || rec.PID != pid || rec.UID != 0 || rec.GID != 0 {
			t.Errorf("record %+v, should have type %v, ino %d, pid %d, uid 0, gid 0", rec, typ, ino, pid)
		}
	}
}

// The kernel copies between files through a pipe of 64 KiB: each filling is a read.
func TestCopiesInKernel(t *testing.T) {
	const size, pipe = 1 << 20, 64 << 10
	f := setup(t)
	ino := f.create("from", size)
	f.create("to", 0)
	end := f.create("end", 1)
	f.startDaemon()
	for _, tt := range []struct {
		name string
		copy func(from, to int, n int) (int, error)
	}{
		{"sendfile", func(from, to int, n int) (int, error) { return unix.Sendfile(to, from, nil, n) }},
		{"copy_file_range", func(from, to int, n int) (int, error) {
			return unix.CopyFileRange(from, nil, to, nil, n, 0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := f.dial()
			from, err := os.Open(f.path("from"))
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			to, err := os.OpenFile(f.path("to"), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			n, err := withoutSignals(func() (int, error) { return tt.copy(int(from.Fd()), int(to.Fd()), size) })
			if n != size || err != nil {
				t.Fatalf("copied %d of %d bytes: %v", n, size, err)
			}
			f.touch("end")

			reads := uint64(0)
			for _, rec := range receive(t, c, end) {
				if rec.Ino != ino || rec.Type != notify.TypeRead {
					continue
				}
				if rec.Offset != reads*pipe || rec.Length != pipe {
					t.Errorf("read %d is of %d bytes at %d, should be %d at %d", reads, rec.Length, rec.Offset, pipe, reads*pipe)
				}
				reads++
			}
			if reads != size/pipe {
				t.Errorf("%d reads, should be %d", reads, size/pipe)
			}
			c.Close()
		})
	}
}

// Where IMA measures a file, the kernel reads all of it, by pages, for the process
// that opens it.
func TestMeasured(t *testing.T) {
	const owner, size, page = 4711, 10000, 4096
	f := setup(t)
	ino := f.create("measured", size) // real ScoutFS keeps it, and its owner
	if err := os.Chown(f.path("measured"), owner, 0); err != nil {
		t.Fatal(err)
	}
	const policy = "/sys/kernel/security/ima/policy"
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			t.Skipf("skipped: this kernel has no securityfs: %v", err)
		}
	}
	// It is of no consequence to other tests, whose files have other owners.
	err := os.WriteFile(policy, fmt.Appendf(nil, "measure func=FILE_CHECK mask=MAY_READ fowner=%d\n", owner), 0)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("skipped: this kernel has no IMA")
	}
	if err != nil {
		t.Fatalf("set IMA's policy: %v", err)
	}
	f.startDaemon()
	c := f.dial()
	fd, err := unix.Open(f.path("measured"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	want := []notify.Record{
		{Type: notify.TypeOpen},
		{Type: notify.TypeRead, Offset: 0, Length: page},
		{Type: notify.TypeRead, Offset: page, Length: page},
		{Type: notify.TypeRead, Offset: 2 * page, Length: size - 2*page},
	}
	for _, w := range want {
		rec, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Type != w.Type || rec.Ino != ino || rec.Offset != w.Offset || rec.Length != w.Length || rec.PID != uint32(os.Getpid()) {
			t.Errorf("record %+v, should have type %v, ino %d, offset %d, length %d, pid %d",
				rec, w.Type, ino, w.Offset, w.Length, os.Getpid())
		}
	}
}

// For an NFS client the server's threads open and read, in the name of the client's user.
func TestNFSServer(t *testing.T) {
	const size, pipe, uid, gid = 200 << 10, 64 << 10, 1000, 2000
	inGuest(t)
	if !isScoutFS() {
		t.Skip("skipped: the stand-in cannot be exported")
	}
	f := setup(t)
	ino := f.create("a", size)
	dir := f.serveNFS()
	r := f.attach()

	ids := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if err := worker(roleRead, dir+"/a", ids).Run(); err != nil {
		t.Fatalf("the reader: %v", err)
	}
	opened, read := false, make([]bool, size)
	for _, rec := range drain(t, r) {
		if rec.Ino != ino || rec.UID != uid || rec.GID != gid || !isKernelThread(t, rec.PID) {
			t.Errorf("record %+v, should have ino %d, uid %d, gid %d and a kernel thread", rec, ino, uid, gid)
		}
		if rec.Type == notify.TypeOpen {
			opened = true
			continue
		}
		if rec.Length > pipe || rec.Offset+rec.Length > size {
			t.Fatalf("a read of %d bytes at %d", rec.Length, rec.Offset)
		}
		for i := range rec.Length {
			read[rec.Offset+i] = true
		}
	}
	if !opened {
		t.Error("no open")
	}
	if i := slices.Index(read, false); i >= 0 {
		t.Errorf("no read of byte %d", i)
	}
}

// serveNFS has the kernel's NFS server export the file system, and mounts that. The
// kernel asks nobody for exports that it knows, so nothing else has to run.
func (f *fs) serveNFS() (dir string) {
	t := f.t
	t.Helper()
	loadLater(t, "nfsv4")
	const ctl = "/proc/fs/nfsd"
	err := unix.Mount("nfsd", ctl, "nfsd", 0, "")
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		t.Skip("skipped: this kernel has no NFS server")
	}
	if err != nil {
		t.Fatalf("mount %s: %v", ctl, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(ctl, 0); err != nil {
			t.Errorf("umount %s: %v", ctl, err)
		}
	})
	put := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0); err != nil {
			t.Fatalf("write %q: %v", text, err)
		}
	}
	const (
		never = "2147483647"
		flags = 0x2000 | 0x400 | 0x2 // has an fsid, whole file system, any port
	)
	t.Cleanup(func() {
		put(ctl+"/threads", "0\n")
		for _, cache := range []string{"nfsd.fh", "nfsd.export", "auth.unix.ip"} {
			put("/proc/net/rpc/"+cache+"/flush", fmt.Sprintln(time.Now().Unix()))
		}
		// The server lets go of the file system a moment later.
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			err := unix.Unmount(f.dir, 0)
			if err == nil {
				f.mounted = false
				return
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
				t.Errorf("umount %s, which was exported: %v", f.dir, err)
				return
			}
		}
	})
	put("/proc/net/rpc/auth.unix.ip/channel", "nfsd 127.0.0.1 "+never+" local\n")
	put("/proc/net/rpc/nfsd.export/channel", fmt.Sprintf("local %s %s %d 65534 65534 0\n", f.dir, never, flags))
	put("/proc/net/rpc/nfsd.fh/channel", `local 1 \x00000000 `+never+" "+f.dir+"\n")
	put(ctl+"/versions", "-2 -3 +4 +4.1\n") // the others want an rpcbind
	put(ctl+"/nfsv4gracetime", "10\n")      // the least, in seconds
	put(ctl+"/threads", "2\n")
	// There was no server before whose clients to wait for. A newer kernel waits all the
	// same if nothing keeps a list of them.
	if err := os.WriteFile(ctl+"/v4_end_grace", []byte("Y\n"), 0); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatalf("end the grace period: %v", err)
	}

	dir = "/mnt/nfs" // which the reader may search
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err = unix.Mount("127.0.0.1:/", dir, "nfs4", 0, "addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.1,sec=sys,proto=tcp")
	if errors.Is(err, unix.ENODEV) {
		t.Skip("skipped: this kernel has no NFS client")
	}
	if err != nil {
		t.Fatalf("mount 127.0.0.1:/ on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("umount %s: %v", dir, err)
		}
	})
	return dir
}
