// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// The test binary runs itself as workers, processes with known accesses.
const (
	envWorker  = "GUEST_WORKER" // the role
	envFile    = "GUEST_WORKER_FILE"
	roleAccess = "access"
	roleRead   = "read"
	roleReadOn = "read on"
	roleAttach = "attach"
	roleListen = "listen"
	roleDrain  = "drain"
	roleFail   = "fail" // with allocations that fail
	// With the capabilities that the unit leaves the daemon:
	roleDaemon = "daemon" // becomes the daemon
	roleLook   = "look"   // reports whether it can open a file
)

func workerMain(role string) int {
	var v any
	var err error
	switch role {
	case roleAccess:
		v, err = runSteps(os.Getenv(envFile))
	case roleRead:
		v, err = readOnce(os.Getenv(envFile))
	case roleReadOn:
		for end := time.Now().Add(time.Second); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			v, err = readOnce(os.Getenv(envFile))
		}
	case roleAttach:
		v, err = notify.Attach(os.Getenv(envFile))
	case roleDrain:
		v, err = drainInherited(os.Getenv(envFile))
	case roleFail:
		v, err = runFailing(os.Getenv(envFile))
	case roleListen:
		v, err = listen(os.Getenv(envFile))
	case roleDaemon:
		if err = dropCapabilities(); err == nil {
			err = syscall.Exec(Daemon, []string{Daemon, os.Getenv(envFile)}, os.Environ())
		}
	case roleLook:
		if err = dropCapabilities(); err == nil {
			v = look(os.Getenv(envFile))
		}
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(v)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// worker prepares a worker with a role.
func worker(role, file string, attr *syscall.SysProcAttr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envWorker+"="+role, envFile+"="+file)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	return cmd
}

// fileSize is the size of each worker's own file.
const fileSize = 10000

const (
	fsuid = 4321
	fsgid = 4322
)

// process is the state that the steps of one worker share.
type process struct {
	file   string
	fd     int
	buf    []byte
	tid    int
	direct bool // the file system has direct I/O
}

// want is a record that a step must make.
type want struct {
	typ            notify.Type
	offset, length uint64
	// flags are those of open(2) that fcntl(F_GETFL) does not return.
	flags    uint32
	fs       bool // with fsuid and fsgid
	created  bool // of the worker's second file
	otherTID bool
	direct   bool // only where the file system has direct I/O
}

func read(offset, length uint64) []want {
	return []want{{typ: notify.TypeRead, offset: offset, length: length}}
}

// step is one access, what it must return, and its records.
type step struct {
	name string
	do   func(p *process) (int, error)
	n    int
	err  error
	root bool // only for a privileged worker
	want []want
}

// nothing marks steps that must not be recorded.
var nothing []want

// steps are the accesses with known records. The file has fileSize bytes.
var steps = []step{
	{name: "open", do: func(p *process) (n int, err error) {
		p.fd, err = unix.Open(p.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return 0, err
	}, want: []want{{typ: notify.TypeOpen}}},
	{name: "read", n: 4096, want: read(0, 4096), do: readN(4096)},
	{name: "read on", n: 4096, want: read(4096, 4096), do: readN(4096)},
	{name: "short read at the end", n: 1808, want: read(8192, 1808), do: readN(4096)},
	{name: "read at the end", n: 0, want: nothing, do: readN(4096)},
	{name: "pread", n: 50, want: read(100, 50), do: pread(100, 50)},
	{name: "pread past the end", n: 0, want: nothing, do: pread(20000, 50)},
	{name: "pread up to the end", n: 1, want: read(fileSize-1, 1), do: pread(fileSize-1, 50)},
	{name: "preadv", n: 30, want: read(5000, 30), do: func(p *process) (int, error) {
		return unix.Preadv(p.fd, [][]byte{p.buf[:10], p.buf[10:30]}, 5000)
	}},
	{name: "readv", n: 700, want: read(1000, 700), do: func(p *process) (int, error) {
		if _, err := unix.Seek(p.fd, 1000, unix.SEEK_SET); err != nil {
			return 0, err
		}
		return unix.Readv(p.fd, [][]byte{p.buf[:300], p.buf[300:700]})
	}},
	{name: "sendfile", n: 6000, want: read(2000, 6000), do: toPipe(func(p *process, w int) (int, error) {
		off := int64(2000)
		return withoutSignals(func() (int, error) { return unix.Sendfile(w, p.fd, &off, 6000) })
	})},
	{name: "splice", n: 4096, want: read(0, 4096), do: toPipe(func(p *process, w int) (int, error) {
		off := int64(0)
		n, err := unix.Splice(p.fd, &off, w, nil, 4096, 0)
		return int(n), err
	})},
	{name: "read of nothing", n: 0, want: nothing, do: pread(0, 0)},
	{name: "read to a bad pointer", err: unix.EFAULT, want: nothing, do: func(p *process) (int, error) {
		_, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(p.fd), 8, 4096, 0, 0, 0)
		return 0, errno
	}},
	{name: "mmap", want: nothing, do: func(p *process) (int, error) {
		m, err := unix.Mmap(p.fd, 0, fileSize, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return 0, err
		}
		if m[0] != 's' || m[fileSize-1] == 0 {
			return 0, errors.New("mapped bytes are wrong")
		}
		return 0, unix.Munmap(m)
	}},
	{name: "readahead", want: nothing, do: func(p *process) (int, error) {
		_, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(p.fd), 0, fileSize)
		if errno != 0 {
			return 0, errno
		}
		return 0, unix.Fadvise(p.fd, 0, fileSize, unix.FADV_WILLNEED)
	}},
	{name: "open as O_PATH", want: nothing, do: openClose(unix.O_PATH)},
	{name: "open a missing file", err: unix.ENOENT, want: nothing, do: func(p *process) (int, error) {
		fd, err := unix.Open(p.file+".missing", unix.O_RDONLY, 0)
		return fd, err
	}},
	{name: "exclusively create an existing file", err: unix.EEXIST, want: nothing,
		do: openClose(unix.O_RDWR | unix.O_CREAT | unix.O_EXCL)},
	{name: "direct I/O", want: []want{
		{typ: notify.TypeOpen, flags: unix.O_DIRECT, direct: true},
		{typ: notify.TypeRead, flags: unix.O_DIRECT, direct: true, offset: 4096, length: 4096},
	}, do: func(p *process) (int, error) {
		fd, err := unix.Open(p.file, unix.O_RDONLY|unix.O_DIRECT, 0)
		if errors.Is(err, unix.EINVAL) {
			return 0, nil // there is none
		}
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		p.direct = true
		buf, err := pages(4096)
		if err != nil {
			return 0, err
		}
		defer unix.Munmap(buf)
		if n, err := unix.Pread(fd, buf, 4096); n != len(buf) {
			return 0, fmt.Errorf("direct read of %d bytes: %w", n, err)
		}
		return 0, nil
	}},
	{name: "open as a directory", err: unix.ENOTDIR, want: nothing,
		do: openClose(unix.O_RDONLY | unix.O_DIRECTORY)},
	{name: "create and write", want: []want{{typ: notify.TypeOpen, created: true,
		flags: unix.O_CREAT | unix.O_TRUNC}}, do: func(p *process) (int, error) {
		fd, err := unix.Open(p.file+".new", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		if _, err := unix.Read(fd, p.buf[:1]); !errors.Is(err, unix.EBADF) {
			return 0, fmt.Errorf("read of a file open for writing: %v", err)
		}
		_, err = unix.Write(fd, []byte("new"))
		return 0, err
	}},
	{name: "under another fsuid", root: true, n: 9, want: []want{
		{typ: notify.TypeOpen, fs: true},
		{typ: notify.TypeRead, offset: 7, length: 9, fs: true},
	}, do: func(p *process) (int, error) {
		if err := unix.Setfsgid(fsgid); err != nil {
			return 0, err
		}
		if err := unix.Setfsuid(fsuid); err != nil {
			return 0, err
		}
		defer unix.Setfsgid(os.Getgid())
		defer unix.Setfsuid(os.Getuid())
		fd, err := unix.Open(p.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		return unix.Pread(fd, p.buf[:9], 7)
	}},
	{name: "in another thread", n: 7, want: []want{
		{typ: notify.TypeRead, offset: 42, length: 7, otherTID: true},
	}, do: func(p *process) (n int, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			p.tid = unix.Gettid()
			n, err = unix.Pread(p.fd, p.buf[:7], 42)
		}()
		<-done
		return n, err
	}},
	{name: "last", n: 1, want: read(1, 1), do: pread(1, 1)},
}

func readN(n int) func(*process) (int, error) {
	return func(p *process) (int, error) { return unix.Read(p.fd, p.buf[:n]) }
}

func pread(off int64, n int) func(*process) (int, error) {
	return func(p *process) (int, error) { return unix.Pread(p.fd, p.buf[:n], off) }
}

func openClose(flags int) func(*process) (int, error) {
	return func(p *process) (int, error) {
		fd, err := unix.Open(p.file, flags, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return 0, err
	}
}

// pages returns memory that is aligned as direct I/O wants it.
func pages(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func toPipe(do func(p *process, w int) (int, error)) func(*process) (int, error) {
	return func(p *process) (int, error) {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return 0, err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		return do(p, fds[1])
	}
}

// report is what a worker reports about itself.
type report struct {
	PID, TID, OtherTID int
	OpenFlags          uint32 // fcntl(F_GETFL) of its file
	NewFlags           uint32
	Direct             bool // the file system has direct I/O
	Comm               string
}

func runSteps(file string) (report, error) {
	p := &process{file: file, fd: -1, buf: make([]byte, 8192)}
	for _, s := range steps {
		if s.root && os.Geteuid() != 0 {
			continue
		}
		n, err := s.do(p)
		if !errors.Is(err, s.err) || (err == nil && n != s.n) {
			return report{}, fmt.Errorf("%s: returned %d and error %v, should be %d and %v", s.name, n, err, s.n, s.err)
		}
	}
	flags, err := unix.FcntlInt(uintptr(p.fd), unix.F_GETFL, 0)
	if err != nil {
		return report{}, err
	}
	return report{
		PID: os.Getpid(), TID: unix.Gettid(), OtherTID: p.tid,
		OpenFlags: uint32(flags),
		NewFlags:  uint32(flags)&^uint32(unix.O_CLOEXEC) | unix.O_WRONLY,
		Direct:    p.direct,
		Comm:      ownName(),
	}, nil
}

// readOnce makes one OPEN and one READ record.
func readOnce(file string) (report, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(b) == 0 {
		err = errors.New("empty file")
	}
	return report{PID: os.Getpid(), TID: unix.Gettid()}, err
}

// listen returns the first record received from a socket.
func listen(socket string) (notify.Record, error) {
	c, err := notify.Dial(socket)
	if err != nil {
		return notify.Record{}, err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	return c.Next()
}

// dropCapabilities leaves this thread, and what it executes, with those that the unit
// leaves the daemon.
func dropCapabilities() error {
	keep := []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_DAC_READ_SEARCH}
	data := [2]unix.CapUserData{}
	for c := uintptr(0); c < 64; c++ {
		if slices.Contains(keep, c) {
			data[c/32].Permitted |= 1 << (c % 32)
			continue
		}
		// EINVAL: the kernel has no capability of that number.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// look returns why this thread cannot open a file, "" if it can.
func look(file string) string {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	unix.Close(fd)
	return ""
}

// expected returns the records that one worker's steps must have made, without seq
// and time.
func expected(t *testing.T, r report, uid, gid uint32, ino, newIno uint64) []notify.Record {
	t.Helper()
	var recs []notify.Record
	for _, s := range steps {
		if s.root && uid != 0 {
			continue
		}
		for _, w := range s.want {
			if w.direct && !r.Direct {
				continue
			}
			rec := notify.Record{
				Type: w.typ, Ino: ino, Offset: w.offset, Length: w.length,
				PID: uint32(r.PID), TID: uint32(r.PID), UID: uid, GID: gid,
				OpenFlags: r.OpenFlags | w.flags,
			}
			if w.typ == notify.TypeOpen {
				rec.Comm, rec.Flags = comm(r.Comm), notify.FlagComm
			}
			if w.created {
				rec.Ino, rec.OpenFlags = newIno, r.NewFlags|w.flags
			}
			if w.fs {
				rec.UID, rec.GID = fsuid, fsgid
			}
			if w.otherTID {
				rec.TID = uint32(r.OtherTID)
			}
			recs = append(recs, rec)
		}
	}
	return recs
}
