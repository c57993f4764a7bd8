// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// accessSize is the size of the file that the rows of accessRows access.
const accessSize = 3 * 4096

// Flags of open files that only the kernel sets.
const (
	fmodeExec     = 0x20
	fmodeNonotify = 0x4000000
)

// accessRow is a line of the table of what is recorded, in scoutfs-notify(5).
type accessRow struct {
	name string
	real bool // needs what the stand-in does not have
	// do makes the accesses and returns their records. Of those, type, inode, offset,
	// length and process have to be as returned, and the flags there have to be set.
	do func(t *testing.T, a *accesses) []notify.Record
}

// accesses is the file that one row accesses.
type accesses struct {
	*fs
	r    *notify.Reader
	file string
	ino  uint64
}

func (a *accesses) opened(flags uint32) notify.Record {
	return notify.Record{Type: notify.TypeOpen, Ino: a.ino, OpenFlags: flags, PID: uint32(os.Getpid())}
}

func (a *accesses) read(off, n int) notify.Record {
	return notify.Record{Type: notify.TypeRead, Ino: a.ino, Offset: uint64(off), Length: uint64(n), PID: uint32(os.Getpid())}
}

// open opens the row's file until the row ends, without a trace in the ring.
func (a *accesses) open(t *testing.T) int {
	t.Helper()
	fd := openFor(t, a.file, unix.O_RDONLY, 0)
	drain(t, a.r)
	return fd
}

// openDirect opens the row's file for direct I/O, and returns memory for that. Without
// direct I/O the open fails, and the descriptor is -1.
func (a *accesses) openDirect(t *testing.T) (fd int, buf []byte) {
	t.Helper()
	fd, err := unix.Open(a.file, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EINVAL) {
		t.Log("the file system has no direct I/O")
		return -1, nil
	}
	if err != nil {
		t.Fatalf("open with O_DIRECT: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if buf, err = pages(8192); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(buf) })
	return fd, buf
}

// openFor opens a file until the test ends.
func openFor(t *testing.T, path string, flags int, mode uint32) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("skipped: this file system has no such open: %v", err)
	}
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// opens is a row that opens the file so, and makes an OPEN with the flags.
func opens(flags int) func(*testing.T, *accesses) []notify.Record {
	return func(t *testing.T, a *accesses) []notify.Record {
		openFor(t, a.file, flags, 0o644)
		return []notify.Record{a.opened(uint32(flags))}
	}
}

// reads is a row that reads n bytes from off on.
func reads(off, n int, read func(fd, off int, buf []byte) (int, error)) func(*testing.T, *accesses) []notify.Record {
	return func(t *testing.T, a *accesses) []notify.Record {
		if got, err := read(a.open(t), off, make([]byte, n)); got != n || err != nil {
			t.Fatalf("read %d of %d bytes: %v", got, n, err)
		}
		return []notify.Record{a.read(off, n)}
	}
}

var accessRows = []accessRow{
	{name: "open", do: opens(unix.O_RDONLY)},
	{name: "O_CREAT", do: func(t *testing.T, a *accesses) []notify.Record {
		if err := os.Remove(a.file); err != nil {
			t.Fatal(err)
		}
		openFor(t, a.file, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		a.ino = a.fs.ino(filepath.Base(a.file))
		return []notify.Record{a.opened(unix.O_CREAT | unix.O_WRONLY)}
	}},
	{name: "O_TRUNC", do: opens(unix.O_TRUNC | unix.O_WRONLY)},
	{name: "O_TMPFILE", real: true, do: func(t *testing.T, a *accesses) []notify.Record {
		fd := openFor(t, a.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		a.ino = st.Ino
		return []notify.Record{a.opened(unix.O_TMPFILE | unix.O_RDWR)}
	}},
	{name: "open_by_handle_at", real: true, do: func(t *testing.T, a *accesses) []notify.Record {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, a.file, 0)
		if err != nil {
			t.Fatalf("name_to_handle_at: %v", err)
		}
		fd, err := unix.OpenByHandleAt(openFor(t, a.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0), handle, unix.O_RDONLY|unix.O_CLOEXEC)
		if err != nil {
			t.Fatalf("open_by_handle_at: %v", err)
		}
		unix.Close(fd)
		return []notify.Record{a.opened(0)}
	}},
	{name: "O_PATH", do: func(t *testing.T, a *accesses) []notify.Record {
		openFor(t, a.file, unix.O_PATH, 0)
		return nil
	}},
	{name: "O_PATH reopened", do: func(t *testing.T, a *accesses) []notify.Record {
		fd := openFor(t, a.file, unix.O_PATH, 0)
		openFor(t, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
		return []notify.Record{a.opened(0)}
	}},
	{name: "failed open", do: func(t *testing.T, a *accesses) []notify.Record {
		for flags, want := range map[int]error{
			unix.O_CREAT | unix.O_EXCL: unix.EEXIST,
			unix.O_DIRECTORY:           unix.ENOTDIR,
		} {
			if fd, err := unix.Open(a.file, flags, 0o644); !errors.Is(err, want) {
				unix.Close(fd)
				t.Errorf("open with flags %#x: %v, not %v", flags, err, want)
			}
		}
		return nil
	}},
	{name: "execve", do: execRow},
	{name: "fanotify", do: fanotifyRow},

	{name: "read", do: reads(0, 4000, func(fd, _ int, buf []byte) (int, error) { return unix.Read(fd, buf) })},
	{name: "pread", do: reads(300, 500, func(fd, off int, buf []byte) (int, error) { return unix.Pread(fd, buf, int64(off)) })},
	{name: "preadv2", do: reads(5000, 70, func(fd, off int, buf []byte) (int, error) {
		return unix.Preadv2(fd, [][]byte{buf[:30], buf[30:]}, int64(off), 0)
	})},
	{name: "RWF_NOWAIT", do: func(t *testing.T, a *accesses) []notify.Record {
		n, err := unix.Preadv2(a.open(t), [][]byte{make([]byte, 100)}, 7, unix.RWF_NOWAIT)
		switch {
		case n == 100:
			return []notify.Record{a.read(7, n)}
		case !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAGAIN):
			t.Errorf("preadv2 with RWF_NOWAIT returned %d: %v", n, err)
		}
		t.Logf("preadv2 with RWF_NOWAIT: %v", err)
		return nil
	}},
	{name: "partial EFAULT", do: func(t *testing.T, a *accesses) []notify.Record {
		const room = 100
		buf := edge(t, room)
		n, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(a.open(t)), uintptr(buf), accessSize, 0, 0, 0)
		if errno != 0 || n == 0 || n > room {
			t.Fatalf("pread of %d bytes into %d returned %d: %v", accessSize, room, n, errno)
		}
		return []notify.Record{a.read(0, int(n))}
	}},
	{name: "failed read", do: func(t *testing.T, a *accesses) []notify.Record {
		fd := a.open(t)
		if _, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), 8, accessSize, 0, 0, 0); errno != unix.EFAULT {
			t.Errorf("pread to a bad address: %v, not EFAULT", errno)
		}
		if n, err := unix.Pread(fd, make([]byte, 100), accessSize); n != 0 || err != nil {
			t.Errorf("pread at the end: %d bytes, %v", n, err)
		}
		return nil
	}},
	{name: "libaio", do: reads(300, 500, aioRead)},
	{name: "io_uring", do: uringRow(0)},
	{name: "io_uring SQPOLL", do: uringRow(uringSQPoll)},
	{name: "splice", do: reads(4096, 4096, func(fd, off int, buf []byte) (int, error) {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			return 0, err
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		at := int64(off)
		n, err := unix.Splice(fd, &at, pipe[1], nil, len(buf), 0)
		return int(n), err
	})},
	{name: "O_DIRECT", do: func(t *testing.T, a *accesses) []notify.Record {
		fd, buf := a.openDirect(t)
		if fd < 0 {
			return nil
		}
		want := []notify.Record{a.opened(unix.O_DIRECT)}
		for _, r := range []struct{ off, ask, get int }{
			{4096, 4096, 4096},
			{8192, 8192, 4096}, // past the end
			{300, 500, 500},    // not aligned: it is not direct
			{accessSize, 4096, 0},
		} {
			if n, err := unix.Pread(fd, buf[:r.ask], int64(r.off)); n != r.get || err != nil {
				t.Fatalf("direct read of %d bytes at %d: %d, %v", r.ask, r.off, n, err)
			}
			if r.get > 0 {
				want = append(want, a.read(r.off, r.get))
			}
		}
		return want
	}},
	{name: "O_DIRECT, libaio", do: func(t *testing.T, a *accesses) []notify.Record {
		fd, buf := a.openDirect(t)
		if fd < 0 {
			return nil
		}
		drain(t, a.r)
		if n, err := aioRead(fd, 4096, buf[:4096]); n != 4096 || err != nil {
			t.Fatalf("direct read with libaio: %d, %v", n, err)
		}
		// It may be submitted and complete in one, or by an interrupt, whose read is nobody's.
		got := drain(t, a.r)
		if len(got) > 0 {
			wantAccesses(t, got, []notify.Record{a.read(4096, 4096)})
		}
		t.Logf("%d records of a direct read with libaio", len(got))
		return nil
	}},
	{name: "mmap, readahead", do: func(t *testing.T, a *accesses) []notify.Record {
		fd := a.open(t)
		m, err := unix.Mmap(fd, 0, accessSize, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatalf("mmap: %v", err)
		}
		defer unix.Munmap(m)
		if m[0] == 0 || m[accessSize-1] == 0 {
			t.Error("mapped bytes are wrong")
		}
		if err := unix.Fadvise(fd, 0, accessSize, unix.FADV_WILLNEED); err != nil {
			t.Errorf("fadvise: %v", err)
		}
		return nil
	}},
	{name: "loop device", do: loopRow},
	{name: "offline, staged", real: true, do: func(t *testing.T, a *accesses) []notify.Record {
		w := a.waitOffline(t)
		a.scoutfs(t, "stage", w.archive, a.file, "-V", w.version, "-o", "0", "-l", fmt.Sprint(accessSize))
		if err := w.reader.Wait(); err != nil {
			t.Errorf("the reader: %v", err)
		}
		got := w.drain(t, a.r)
		want := a.read(0, accessSize)
		want.PID = uint32(w.reader.Process.Pid)
		wantAccesses(t, got, []notify.Record{want})
		return nil
	}},
	{name: "offline, killed", real: true, do: func(t *testing.T, a *accesses) []notify.Record {
		w := a.waitOffline(t)
		w.reader.Process.Kill()
		w.reader.Wait()
		wantAccesses(t, w.drain(t, a.r), nil)
		return nil
	}},
	{name: "offline, data-wait-err", real: true, do: func(t *testing.T, a *accesses) []notify.Record {
		w := a.waitOffline(t)
		a.scoutfs(t, "data-wait-err", "-p", a.file, "-I", fmt.Sprint(a.ino), "-V", w.version,
			"-F", "0", "-C", fmt.Sprint(accessSize), "-O", "read", "-E", "-5")
		if err := w.reader.Wait(); err == nil {
			t.Error("the reader did not fail")
		}
		wantAccesses(t, w.drain(t, a.r), nil)
		return nil
	}},
}

// Every line of the table in scoutfs-notify(5), the ones with a test of their own left
// out: tests/docs looks for both.
func TestRecords(t *testing.T) {
	f := setup(t)
	r := f.attach()
	for i, row := range accessRows {
		t.Run(row.name, func(t *testing.T) {
			if row.real && !isScoutFS() {
				t.Skip("skipped: the stand-in does not have it")
			}
			name := fmt.Sprintf("file%d", i)
			a := &accesses{fs: f, r: r, file: f.path(name), ino: f.create(name, accessSize)}
			drain(t, r)
			want := row.do(t, a)
			wantAccesses(t, drain(t, r), want)
		})
	}
}

// wantAccesses checks type, inode, offset, length, process and flags of records.
func wantAccesses(t *testing.T, got, want []notify.Record) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %+v", want[i])
		case i >= len(want):
			t.Errorf("not expected: %+v", got[i])
		default:
			g, w := got[i], want[i]
			if g.Type != w.Type || g.Ino != w.Ino || g.Offset != w.Offset || g.Length != w.Length || g.PID != w.PID || g.OpenFlags&w.OpenFlags != w.OpenFlags {
				t.Errorf("record %d is\n%+v, not\n%+v", i, g, w)
			}
		}
	}
}

// edge returns the address of so many bytes before memory that faults. It stays mapped, or
// something else would be there in time.
func edge(t *testing.T, bytes int) unsafe.Pointer {
	t.Helper()
	page := os.Getpagesize()
	size := (bytes + page - 1) / page * page
	m, err := unix.MmapPtr(-1, 0, nil, uintptr(size+page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	if err := unix.Mprotect(unsafe.Slice((*byte)(unsafe.Add(m, size)), page), unix.PROT_NONE); err != nil {
		t.Fatalf("mprotect: %v", err)
	}
	t.Cleanup(func() { unix.MunmapPtr(m, uintptr(size+page)) })
	return unsafe.Add(m, size-bytes)
}

// The kernel reads the headers of a program: which ones, and in how many reads, is its
// own affair.
func execRow(t *testing.T, a *accesses) []notify.Record {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(a.file, 0o755); err != nil {
		t.Fatal(err)
	}
	drain(t, a.r)
	cmd := &exec.Cmd{Path: a.file, Args: []string{"true"}}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	got := drain(t, a.r)
	if len(got) < 2 {
		t.Fatalf("%d records of an execve: %+v", len(got), got)
	}
	opened := a.opened(fmodeExec)
	opened.PID = uint32(cmd.Process.Pid)
	wantAccesses(t, got[:1], []notify.Record{opened})
	for i, rec := range got[1:] {
		if i == 0 && rec.Offset != 0 {
			t.Errorf("the first read is at %d", rec.Offset)
		}
		if rec.Type != notify.TypeRead || rec.Ino != a.ino || rec.PID != opened.PID || rec.Offset+rec.Length > 4096 {
			t.Errorf("record %+v is not of a read of the headers by process %d", rec, opened.PID)
		}
	}
	return nil
}

// An event of fanotify has a descriptor of the file, which its listener opens by reading
// the event.
func fanotifyRow(t *testing.T, a *accesses) []notify.Record {
	fan, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		t.Skip("skipped: this kernel has no fanotify")
	}
	if err != nil {
		t.Fatalf("fanotify_init: %v", err)
	}
	defer unix.Close(fan)
	if err := unix.FanotifyMark(fan, unix.FAN_MARK_ADD, unix.FAN_OPEN, unix.AT_FDCWD, a.file); err != nil {
		t.Fatalf("fanotify_mark: %v", err)
	}
	openFor(t, a.file, unix.O_RDONLY, 0)
	wantAccesses(t, drain(t, a.r), []notify.Record{a.opened(0)})
	buf := make([]byte, 4096)
	n, err := unix.Read(fan, buf)
	if err != nil || n < int(unsafe.Sizeof(unix.FanotifyEventMetadata{})) {
		t.Fatalf("read an event of fanotify: %d bytes, %v", n, err)
	}
	event := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&buf[0]))
	unix.Close(int(event.Fd))
	return []notify.Record{a.opened(fmodeNonotify)}
}

// aioRead reads as libaio does.
func aioRead(fd, off int, buf []byte) (int, error) {
	const preadOp = 0
	io, err := newAIO()
	if err != nil {
		return 0, err
	}
	defer io.close()
	// The kernel gets addresses as numbers: what is there has to be on the heap.
	if err := io.submit(&iocb{opcode: preadOp, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), bytes: uint64(len(buf)), offset: uint64(off)}); err != nil {
		return 0, err
	}
	return io.wait()
}

// iocb is struct iocb of linux/aio_abi.h, little endian.
type iocb struct {
	_                  [2]uint64 // data, key, flags
	opcode             uint16
	_                  int16 // priority
	fd                 uint32
	buf, bytes, offset uint64
	_                  [2]uint64 // reserved, flags, eventfd
}

// aio is a context of asynchronous I/O with room for one request.
type aio struct{ ctx uintptr }

func newAIO() (*aio, error) {
	io := new(aio)
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&io.ctx)), 0); errno != 0 {
		return nil, fmt.Errorf("io_setup: %w", errno)
	}
	return io, nil
}

func (io *aio) close() { unix.Syscall(unix.SYS_IO_DESTROY, io.ctx, 0, 0) }

func (io *aio) submit(cb *iocb) error {
	cbs := []*iocb{cb}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, io.ctx, 1, uintptr(unsafe.Pointer(&cbs[0]))); errno != 0 {
		return fmt.Errorf("io_submit: %w", errno)
	}
	return nil
}

func (io *aio) wait() (int, error) {
	var event struct {
		data, obj uint64
		res, res2 int64
	}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, io.ctx, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0); errno != 0 {
		return 0, fmt.Errorf("io_getevents: %w", errno)
	}
	if event.res < 0 {
		return 0, unix.Errno(-event.res)
	}
	return int(event.res), nil
}

// uringRow reads through io_uring. The read is that of the caller, if the kernel can
// make it at once, or of a worker, which is a thread of the process since Linux 5.12
// and the kernel's before.
func uringRow(flags uint32) func(*testing.T, *accesses) []notify.Record {
	return func(t *testing.T, a *accesses) []notify.Record {
		const off, n = 300, 500
		// EL9's default is that nobody may use it. Without this file everybody may.
		if err := os.WriteFile("/proc/sys/kernel/io_uring_disabled", []byte("0"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		u, err := newUring(flags)
		if errors.Is(err, unix.ENOSYS) {
			t.Skipf("skipped: this kernel has no io_uring: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer u.close()
		if got, err := u.read(a.open(t), off, make([]byte, n)); got != n || err != nil {
			t.Fatalf("read %d of %d bytes with io_uring: %v", got, n, err)
		}
		want := a.read(off, n)
		got := drain(t, a.r)
		if len(got) == 1 && got[0].PID != want.PID {
			if !isKernelThread(t, got[0].PID) {
				t.Errorf("process %d is neither this one nor a kernel thread", got[0].PID)
			}
			want.PID = got[0].PID
		}
		wantAccesses(t, got, []notify.Record{want})
		if flags&uringSQPoll != 0 && len(got) == 1 && got[0].TID == uint32(unix.Gettid()) {
			t.Error("the thread that polls did not make the read")
		}
		return nil
	}
}

// isKernelThread reports whether a running process is the kernel's.
func isKernelThread(t *testing.T, pid uint32) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Error(err)
		return false
	}
	const kthread = 0x200000
	var state string
	var ppid, pgrp, session, tty, tpgid, flags int
	_, rest, _ := strings.Cut(string(text), ") ")
	if _, err := fmt.Sscan(rest, &state, &ppid, &pgrp, &session, &tty, &tpgid, &flags); err != nil {
		t.Errorf("parse /proc/%d/stat: %v", pid, err)
	}
	return flags&kthread != 0
}

// loopRow reads a block of a loop device.
func loopRow(t *testing.T, a *accesses) []notify.Record {
	loadLater(t, "loop")
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		t.Skip("skipped: this kernel has no loop devices")
	}
	if err != nil {
		t.Fatalf("open /dev/loop-control: %v", err)
	}
	defer unix.Close(ctl)
	nr, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatalf("find a free loop device: %v", err)
	}
	// Direct, so that the kernel does not read ahead.
	dev := openFor(t, fmt.Sprintf("/dev/loop%d", nr), unix.O_RDONLY|unix.O_DIRECT, 0)
	if err := unix.IoctlSetInt(dev, unix.LOOP_SET_FD, a.open(t)); err != nil {
		t.Fatalf("set up a loop device: %v", err)
	}
	defer unix.IoctlSetInt(dev, unix.LOOP_CLR_FD, 0)
	drain(t, a.r)
	const off, n = 4096, 4096
	buf, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	defer unix.Munmap(buf)
	if got, err := unix.Pread(dev, buf, off); got != n || err != nil {
		t.Fatalf("read %d of %d bytes of a loop device: %v", got, n, err)
	}
	want := a.read(off, n)
	got := drain(t, a.r)
	if len(got) == 1 {
		if !isKernelThread(t, got[0].PID) || got[0].UID != 0 {
			t.Errorf("record %+v is not of a kernel thread", got[0])
		}
		want.PID = got[0].PID
	}
	wantAccesses(t, got, []notify.Record{want})
	return nil
}

// offlineWait is a process that waits for offline data.
type offlineWait struct {
	reader           *exec.Cmd
	archive, version string
}

// waitOffline releases the row's data and has a process read it, whose OPEN comes at
// once.
func (a *accesses) waitOffline(t *testing.T) *offlineWait {
	t.Helper()
	data, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	w := &offlineWait{archive: filepath.Join(t.TempDir(), "archive")}
	if err := os.WriteFile(w.archive, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.version = strings.TrimSpace(a.scoutfs(t, "stat", "-s", "data_version", a.file))
	a.scoutfs(t, "release", a.file, "-V", w.version, "-o", "0", "-l", fmt.Sprint(accessSize))
	drain(t, a.r)
	w.reader = worker(roleRead, a.file, nil)
	if err := w.reader.Start(); err != nil {
		t.Fatal(err)
	}
	waits := fmt.Sprintf("ino %d iblock 0 ops read", a.ino)
	for end := time.Now().Add(patience); !strings.Contains(a.scoutfs(t, "data-waiting", "-B", "0", "-I", "0", "-p", a.dir), waits); {
		if time.Now().After(end) {
			t.Fatalf("scoutfs data-waiting does not show %q", waits)
		}
		time.Sleep(10 * time.Millisecond)
	}
	opened := a.opened(0)
	opened.PID = uint32(w.reader.Process.Pid)
	wantAccesses(t, w.drain(t, a.r), []notify.Record{opened})
	return w
}

// drain returns the records of the process that waits. The scoutfs command opens the
// file, too.
func (w *offlineWait) drain(t *testing.T, r *notify.Reader) []notify.Record {
	t.Helper()
	return slices.DeleteFunc(drain(t, r), func(rec notify.Record) bool {
		return rec.PID != uint32(w.reader.Process.Pid)
	})
}

// scoutfs runs the scoutfs command and returns what it printed.
func (a *accesses) scoutfs(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, status := run(t, append([]string{"scoutfs"}, args...)...)
	if status != 0 {
		t.Fatalf("scoutfs %s: status %d\n%s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

// uring is an io_uring with room for one request.
type uring struct {
	fd          int
	rings, sqes []byte
	// Offsets in rings.
	sqTail, sqArray, cqTail, cqes uint32
}

// uringSQPoll has a thread of the kernel's fetch the requests.
const uringSQPoll = 1 << 1

// newUring sets up an io_uring. The numbers are those of linux/io_uring.h, Linux 5.6.
func newUring(flags uint32) (*uring, error) {
	const paramsSize, offFlags, offIdle, offFeatures, offSQ, offCQ = 120, 8, 16, 20, 40, 80
	p := make([]byte, paramsSize)
	binary.NativeEndian.PutUint32(p[offFlags:], flags)
	binary.NativeEndian.PutUint32(p[offIdle:], 60_000) // milliseconds: it must not fall asleep
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	u := &uring{fd: int(fd)}
	const singleMmap = 1
	if binary.NativeEndian.Uint32(p[offFeatures:])&singleMmap == 0 {
		u.close()
		return nil, errors.New("io_uring: the kernel is older than 5.4")
	}
	field := func(off int) uint32 { return binary.NativeEndian.Uint32(p[off:]) }
	u.sqTail, u.sqArray, u.cqTail, u.cqes = field(offSQ+4), field(offSQ+24), field(offCQ+4), field(offCQ+20)
	const offRings, offSQEs = 0, 0x10000000
	var err error
	if u.rings, err = unix.Mmap(u.fd, offRings, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		u.close()
		return nil, fmt.Errorf("map the rings of io_uring: %w", err)
	}
	if u.sqes, err = unix.Mmap(u.fd, offSQEs, 64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		u.close()
		return nil, fmt.Errorf("map the requests of io_uring: %w", err)
	}
	return u, nil
}

func (u *uring) close() {
	for _, m := range [][]byte{u.rings, u.sqes} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	unix.Close(u.fd)
}

// read makes the only request of the io_uring, a read, and waits for its end. The file
// is registered, without which a polling thread of Linux 5.10 refuses it.
func (u *uring) read(fd, off int, buf []byte) (int, error) {
	const registerFiles, opRead, fixedFile, getEvents, wakeUp = 2, 22, 1, 1, 2
	files := []int32{int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), registerFiles, uintptr(unsafe.Pointer(&files[0])), 1, 0, 0); errno != 0 {
		return 0, fmt.Errorf("io_uring_register: %w", errno)
	}
	u.sqes[0], u.sqes[1] = opRead, fixedFile
	binary.NativeEndian.PutUint64(u.sqes[8:], uint64(off))
	binary.NativeEndian.PutUint64(u.sqes[16:], uint64(uintptr(unsafe.Pointer(&buf[0]))))
	binary.NativeEndian.PutUint32(u.sqes[24:], uint32(len(buf)))
	binary.NativeEndian.PutUint32(u.rings[u.sqArray:], 0)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&u.rings[u.sqTail])), 1)
	// A signal, as Go's scheduler sends them, ends the wait, and what was submitted hides that.
	for submit := uintptr(1); atomic.LoadUint32((*uint32)(unsafe.Pointer(&u.rings[u.cqTail]))) == 0; {
		submitted, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), submit, 1, getEvents|wakeUp, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submit -= min(submit, submitted)
		}
	}
	res := int32(binary.NativeEndian.Uint32(u.rings[u.cqes+8:]))
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}
