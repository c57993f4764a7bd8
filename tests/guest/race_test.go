// SPDX-License-Identifier: GPL-2.0-only

package guest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm/proto"
)

// The threads that TestRace has for each mount.
const (
	raceOpeners = 3
	raceReaders = 3
	raceFiles   = 4 // of each opener
	raceSize    = 16 << 10
	raceStorm   = 4 * time.Second
)

// race is a number of mounts on which everything that can happen to a reader happens at
// once (storm), and then only what leaves the numbers known (model), in turn.
type race struct {
	t      *testing.T
	seed   uint64
	mounts []*raceMount
	stop   atomic.Bool // ends the storm
	tally
}

// tally counts what happened.
type tally struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

func (c *tally) count(what string) { c.add(what, 1) }

func (c *tally) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what] += n
}

// raceMount is one of the mounts.
type raceMount struct {
	*race
	nr  int
	dir string
	// Held for reading while an opener has a file open, for writing while the files are
	// made, and while an umount must not find the mount busy.
	files sync.RWMutex
	// ScoutFS was told to unmount by force, whether it did or not. The next mount of that
	// file system waits until somebody fences this one, and nobody here does.
	forced bool
	owner  sync.Map // inode number -> thread id of the only opener that reads it, in a storm
}

// raceActor is a thread of the storm or the model, with its own random numbers.
type raceActor struct {
	*raceMount
	rand *rand.Rand
	buf  []byte
	recs []byte
	edge unsafe.Pointer // so many bytes before memory that faults: room
	room int
}

// actor returns an actor whose choices depend on the seed and its place alone.
func (m *raceMount) actor(round, place int) *raceActor {
	return &raceActor{
		raceMount: m,
		rand:      rand.New(rand.NewPCG(m.seed, uint64(round)<<32|uint64(m.nr)<<16|uint64(place))),
		buf:       make([]byte, raceSize),
		recs:      make([]byte, notify.RingRecords*notify.RecordSize),
	}
}

func (a *raceActor) oneIn(n int) bool { return a.rand.IntN(n) == 0 }

// nap lets some time pass, at most so much, that the other threads need to get in
// between.
func (a *raceActor) nap(most time.Duration) { time.Sleep(time.Duration(a.rand.Int64N(int64(most)))) }

// TestRace races attach, drain, poll, close, unmount and module removal with accesses.
// What goes wrong without a wrong result, a kernel with sanitizers reports: make sanitize.
func TestRace(t *testing.T) {
	inGuest(t)
	length := 8 * time.Second
	if s := os.Getenv(EnvRace); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", EnvRace, err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(envSeed); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", envSeed, err)
		}
	}
	t.Logf("%v, %s=%d", length, envSeed, seed)
	insmod(t, Module)
	defer rmmod(t)
	r := &race{t: t, seed: seed, tally: tally{n: map[string]int{}}}
	for i := range raceMounts() {
		m := &raceMount{race: r, nr: i, dir: MountPoint}
		if i > 0 {
			m.dir += strconv.Itoa(i)
		}
		m.mount()
		r.mounts = append(r.mounts, m)
	}
	began, logged := time.Now(), time.Now()
	raced := func() {
		logged = time.Now()
		t.Logf("%s%v: %v", Raced, time.Since(began).Round(time.Second), r.n)
	}
	round := 0
	for ; !t.Failed() && (round == 0 || time.Since(began) < length); round++ {
		r.storm(round)
		r.eachMount(func(m *raceMount) { m.model(round) })
		if round%3 == 2 && !t.Failed() {
			r.reload(round)
		}
		if time.Since(logged) > 10*time.Second { // what is not told is raced again if a mount hangs
			raced()
		}
	}
	raced()
	for _, m := range r.mounts {
		if err := umountPatiently(m.dir); err != nil {
			t.Errorf("umount %s at the end: %v", m.dir, err)
		}
	}
	wantNoLeaks(t)
	tellLockdep(t)
	must := []string{"attach", "drain", "records", "quiet points"}
	if r.n["umount"]+r.n["umount forced"]+r.n["umount lazy"] == 0 { // a machine that is resumed may have one round left
		t.Error("never happened: an unmount of any kind")
	}
	if round >= 20 { // about 2 minutes of a kernel that nothing slows down
		must = append(must, "busy", "dropped", "dup", "ENODEV", "epoll", "fault", "fdinfo", "fork", "insmod",
			"rmmod", "SCM_RIGHTS", "share", "umount", "umount busy", "umount forced", "umount lazy")
	}
	if !hasAIOPoll() {
		t.Log("skipped: asynchronous polls (IOCB_CMD_POLL), which this kernel has not")
	} else if round >= 20 {
		must = append(must, "aio poll")
	}
	for _, what := range must {
		if r.n[what] == 0 {
			t.Errorf("never happened: %s", what)
		}
	}
}

// raceMounts returns how many file systems there are: real ScoutFS needs two disks for
// each.
func raceMounts() int {
	if !isScoutFS() {
		return 2
	}
	if _, err := os.Stat(proto.DiskPath(3)); err != nil {
		return 1
	}
	return 2
}

// eachMount does something for all mounts at once.
func (r *race) eachMount(do func(*raceMount)) {
	var wg sync.WaitGroup
	for _, m := range r.mounts {
		wg.Go(func() { do(m) })
	}
	wg.Wait()
}

// storm lets everything happen for a while.
func (r *race) storm(round int) {
	r.stop.Store(false)
	var wg sync.WaitGroup
	for _, m := range r.mounts {
		place := 0
		start := func(n int, act func(*raceActor)) {
			for range n {
				a := m.actor(round, place)
				place++
				wg.Go(func() {
					runtime.LockOSThread() // records have the thread's id
					defer runtime.UnlockOSThread()
					for !r.stop.Load() && !r.t.Failed() {
						act(a)
					}
				})
			}
		}
		for i := range raceOpeners {
			start(1, func(a *raceActor) { a.access(i) })
		}
		start(raceReaders, (*raceActor).attachAndUse)
		start(1, (*raceActor).hold)
		start(1, (*raceActor).remount)
	}
	time.Sleep(raceStorm)
	r.stop.Store(true)
	wg.Wait()
}

// reload unmounts all and removes the module, which in a storm hardly ever is without a
// user, while the last descriptors that keep it are closed. Then it starts anew.
func (r *race) reload(round int) {
	var fds []int
	for _, m := range r.mounts {
		fds = append(fds, m.actor(round, 0).attach())
		if err := umountPatiently(m.dir); err != nil {
			r.t.Errorf("umount %s: %v", m.dir, err)
			return
		}
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for end := time.Now().Add(patience); ; {
		err := unix.DeleteModule("scoutfs", unix.O_NONBLOCK)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			r.t.Errorf("rmmod: %v", err)
			return
		}
		r.count("rmmod busy")
	}
	r.count("rmmod")
	<-closed
	r.eachMount((*raceMount).mount)
}

// mount mounts and makes the files, which nobody must have open.
func (m *raceMount) mount() {
	defer guardMount()()
	if m.forced {
		if err := Mkfs(m.nr); err != nil {
			m.t.Error(err)
		}
		m.forced = false
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := MountNr(m.dir, m.nr)
		if err == nil {
			break
		}
		if errors.Is(err, unix.ENODEV) { // the module was removed, maybe by another mount's thread
			err = m.insmod()
		}
		// The old mount, of the same disks, may be ending.
		if err != nil && (!errors.Is(err, unix.EBUSY) || time.Now().After(end)) {
			m.t.Errorf("mount: %v", err)
			m.stop.Store(true)
			return
		}
	}
	m.count("mount")
	for i := range raceOpeners * raceFiles {
		if err := os.WriteFile(m.file(i), make([]byte, raceSize), 0o644); err != nil {
			m.t.Errorf("make the files: %v", err)
		}
	}
}

func (m *raceMount) file(i int) string { return filepath.Join(m.dir, fmt.Sprintf("f%d", i)) }

func (m *raceMount) insmod() error {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := LoadModule(Module)
		switch {
		case err == nil:
			m.count("insmod")
			return nil
		case errors.Is(err, unix.EEXIST): // another mount's thread was faster
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end): // it is being removed
			return err
		}
	}
}

// raceLength is the length of every read of a file at an offset, so that a record that
// is put together from two shows.
func raceLength(ino uint64, off int) int {
	return 1 + int((ino*40503+uint64(off)*2654435761)>>5%3000)
}

// access opens one of an opener's files and reads some of it.
func (a *raceActor) access(opener int) {
	a.files.RLock()
	defer a.files.RUnlock()
	flags := unix.O_RDONLY
	if a.oneIn(4) {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(a.file(opener*raceFiles+a.rand.IntN(raceFiles)), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		a.nap(time.Millisecond) // unmounted
		return
	}
	defer unix.Close(fd)
	a.count("open")
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		a.t.Errorf("fstat: %v", err)
		return
	}
	a.owner.Store(st.Ino, uint32(unix.Gettid()))
	for range a.rand.IntN(24) {
		off := a.rand.IntN(raceSize - 3000)
		n := raceLength(st.Ino, off)
		got, err := a.readSomehow(fd, off, n)
		if err != nil || got != n {
			a.t.Errorf("read %d of %d bytes at %d: %v", got, n, off, err)
			return
		}
		a.count("read")
	}
}

// readSomehow reads n bytes at off in one of the ways that make one record. Now and then
// it also reads nothing, which makes none.
func (a *raceActor) readSomehow(fd, off, n int) (int, error) {
	at := int64(off)
	switch a.rand.IntN(6) {
	case 0:
		if _, err := unix.Seek(fd, at, unix.SEEK_SET); err != nil {
			return 0, err
		}
		return unix.Read(fd, a.buf[:n])
	case 1:
		return unix.Preadv(fd, [][]byte{a.buf[:n/3], a.buf[n/3 : n]}, at)
	case 2:
		return a.throughPipe(n, func(w int) (int, error) {
			return withoutSignals(func() (int, error) { return unix.Sendfile(w, fd, &at, n) })
		})
	case 3:
		return a.throughPipe(n, func(w int) (int, error) {
			got, err := unix.Splice(fd, &at, w, nil, n, 0)
			return int(got), err
		})
	case 4:
		if _, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), 8, uintptr(n), uintptr(off), 0, 0); errno != unix.EFAULT {
			return 0, fmt.Errorf("read to a bad address: %w", errno)
		}
	}
	return unix.Pread(fd, a.buf[:n], at)
}

func (a *raceActor) throughPipe(n int, move func(w int) (int, error)) (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	return move(p[1])
}

// attach attaches by one of the mount's files or its folder; -1 if that fails.
func (a *raceActor) attach() int {
	path := a.dir
	if a.oneIn(2) {
		path = a.file(a.rand.IntN(raceOpeners * raceFiles))
	}
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(dir)
	fd, err := ioctlReadNotify(dir, &readNotify{})
	switch {
	case err == nil:
		a.count("attach")
	case errors.Is(err, unix.EBUSY):
		a.count("busy")
	case !errors.Is(err, unix.ENOTTY): // the folder below the mount
		a.t.Errorf("attach to %s: %v", path, err)
	}
	return fd
}

// raceStream is a descriptor of a reader's with what one thread has got from it.
type raceStream struct {
	fd   int
	last uint64
	keep bool
	got  []notify.Record // if keep
}

// drain drains into good memory, or into memory that is bad from some point on. It
// reports whether the mount is gone and everything told.
func (a *raceActor) drain(s *raceStream) (gone bool) {
	room := 1 + a.rand.IntN(notify.RingRecords)
	if a.oneIn(4) {
		room = 1 + a.rand.IntN(8)
	}
	mem := unsafe.Pointer(&a.recs[0])
	rn := &readNotify{recordsNr: uint32(room)}
	arg := unsafe.Pointer(rn)
	const rnSize = int(unsafe.Sizeof(readNotify{}))
	bad := a.rand.IntN(12)
	switch bad {
	case 0:
		rn.recordsPtr = 8
	case 1:
		rn.recordsPtr = 0xffff888000000000 // the kernel's
	case 2:
		rn.recordsPtr = 0x7fffffffff00 - notify.RecordSize // the end of the process's
	case 3: // half-way
		mem = a.upTo((room + 1) / 2 * notify.RecordSize)
	case 4: // the argument, half-way
		arg = a.upTo(rnSize / 2)
	}
	if rn.recordsPtr == 0 {
		rn.recordsPtr = uint64(uintptr(mem))
	}
	n, err := ioctl(s.fd, notify.IoctlReadNotify, arg)
	switch {
	case err == nil && bad <= 4 && bad != 3 && n > 0:
		a.t.Errorf("a drain to a bad address returned %d records", n)
	case err == nil:
		a.count("drain")
		a.take(s, unsafe.Slice((*byte)(mem), n*notify.RecordSize))
	case errors.Is(err, unix.EFAULT) && bad <= 4:
		a.count("fault")
	case errors.Is(err, unix.ENODEV):
		a.count("ENODEV")
		gone = true
	case !errors.Is(err, unix.EINTR):
		a.t.Errorf("drain of %d: %v", room, err)
	}
	runtime.KeepAlive(rn)
	return gone
}

// upTo returns the address of so many bytes, at most a ring's, before memory that faults.
func (a *raceActor) upTo(bytes int) unsafe.Pointer {
	if a.edge == nil {
		a.room = notify.RingRecords * notify.RecordSize
		a.edge = edge(a.t, a.room)
	}
	return unsafe.Add(a.edge, a.room-bytes)
}

// take checks records.
func (a *raceActor) take(s *raceStream, b []byte) {
	recs, err := notify.Decode(nil, b)
	if err != nil {
		a.t.Errorf("decode: %v", err)
		return
	}
	for i := range recs {
		r := &recs[i]
		if r.Seq <= s.last {
			a.t.Errorf("record %d follows %d", r.Seq, s.last)
		}
		s.last = r.Seq
		if problem := a.torn(r); problem != "" {
			a.t.Errorf("%s: %+v", problem, r)
		}
	}
	a.add("records", len(recs))
	if s.keep {
		s.got = append(s.got, recs...)
	}
}

// torn returns what in a record cannot be of one access.
func (m *raceMount) torn(r *notify.Record) string {
	if r.PID != uint32(os.Getpid()) || r.UID != 0 || r.GID != 0 || r.TimeNS == 0 {
		return "not of this process"
	}
	switch r.Type {
	case notify.TypeOpen:
		if r.Comm.String() != ownName() || r.Flags != notify.FlagComm {
			return "an open without the name of who made it"
		}
	case notify.TypeRead:
		if r.Length != uint64(raceLength(r.Ino, int(r.Offset))) || r.Flags != 0 {
			return "nobody read so much at that offset of that file"
		}
		if tid, ok := m.owner.Load(r.Ino); ok && tid != r.TID {
			return fmt.Sprintf("that file is thread %v's", tid)
		}
	default:
		return "no such type"
	}
	return ""
}

// attachAndUse attaches and uses the descriptor in one of the ways that there are.
func (a *raceActor) attachAndUse() {
	fd := a.attach()
	if fd < 0 {
		a.nap(2 * time.Millisecond)
		return
	}
	switch a.rand.IntN(8) {
	case 0: // at once
		unix.Close(fd)
	case 1:
		a.count("dup")
		other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			a.t.Errorf("dup: %v", err)
			return
		}
		a.use(other)
	case 2:
		a.pass(fd)
	case 3:
		a.fork(fd)
	case 4:
		if !hasAIOPoll() {
			a.use(fd)
			return
		}
		a.aioPoll(fd)
	case 5:
		a.share(fd)
	case 6:
		a.epoll(fd)
	default:
		a.use(fd)
	}
}

// use polls, drains and looks, and then closes the descriptor.
func (a *raceActor) use(fd int) {
	defer unix.Close(fd)
	s := &raceStream{fd: fd}
	for range a.rand.IntN(20) {
		if a.stop.Load() {
			return
		}
		if a.oneIn(2) {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5)
		}
		if a.oneIn(8) {
			a.fdinfo(fd)
		}
		if a.drain(s) && a.oneIn(2) {
			return
		}
	}
}

func (a *raceActor) fdinfo(fd int) {
	if _, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd)); err != nil {
		a.t.Errorf("fdinfo: %v", err)
	}
	a.count("fdinfo")
}

// epoll waits for a level, an edge or once, and closes the descriptor or the epoll first.
func (a *raceActor) epoll(fd int) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		a.t.Errorf("epoll_create1: %v", err)
		return
	}
	modes := []uint32{0, unix.EPOLLET, unix.EPOLLONESHOT, unix.EPOLLET | unix.EPOLLONESHOT}
	event := func() *unix.EpollEvent {
		return &unix.EpollEvent{Events: unix.EPOLLIN | modes[a.rand.IntN(len(modes))], Fd: int32(fd)}
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, event()); err != nil {
		a.t.Errorf("epoll_ctl: %v", err)
	}
	a.count("epoll")
	s := &raceStream{fd: fd}
	for range a.rand.IntN(20) {
		got := make([]unix.EpollEvent, 1)
		if n, err := unix.EpollWait(ep, got, 5); n == 1 && err == nil && got[0].Events&unix.EPOLLHUP != 0 {
			a.count("EPOLLHUP")
		}
		if a.oneIn(4) {
			unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, fd, event())
		}
		if a.drain(s) || a.stop.Load() {
			break
		}
	}
	if a.oneIn(2) {
		unix.Close(ep)
		unix.Close(fd)
		return
	}
	unix.Close(fd)
	unix.Close(ep)
}

// pass sends the descriptor through a socket, from which it may never be received.
func (a *raceActor) pass(fd int) {
	s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		a.t.Errorf("socketpair: %v", err)
		return
	}
	defer unix.Close(s[0])
	defer unix.Close(s[1])
	err = unix.Sendmsg(s[0], []byte("x"), unix.UnixRights(fd), nil, 0)
	unix.Close(fd)
	if err != nil {
		a.t.Errorf("sendmsg: %v", err)
		return
	}
	a.count("SCM_RIGHTS")
	if a.oneIn(2) {
		return
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(s[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		a.t.Errorf("recvmsg: %v", err)
		return
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		a.t.Errorf("%d messages: %v", len(msgs), err)
		return
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		a.t.Errorf("%d descriptors: %v", len(fds), err)
		return
	}
	a.use(fds[0])
}

// fork leaves the descriptor to a child, which drains it or is killed.
func (a *raceActor) fork(fd int) {
	f := os.NewFile(uintptr(fd), "reader")
	if a.rand.IntN(4) > 0 { // it takes a second where all is slow
		f.Close()
		return
	}
	cmd := worker(roleDrain, "3", nil)
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		a.t.Errorf("fork: %v", err)
		f.Close()
		return
	}
	a.count("fork")
	f.Close()
	if a.oneIn(2) {
		a.nap(20 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
	} else if err := cmd.Wait(); err != nil {
		a.t.Errorf("the child that drains: %v", err)
	}
}

// drainInherited is what the child does.
func drainInherited(number string) (int, error) {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return 0, err
	}
	mem := make([]byte, notify.RingRecords*notify.RecordSize)
	records := 0
	for range 20 {
		n, err := ioctlReadNotify(fd, &readNotify{recordsPtr: uint64(uintptr(unsafe.Pointer(&mem[0]))), recordsNr: notify.RingRecords})
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return 0, err
		}
		records += max(n, 0)
		runtime.KeepAlive(mem)
	}
	return records, nil
}

// pollOp is IOCB_CMD_POLL, of Linux 4.19.
const pollOp = 5

// hasAIOPoll tells whether the kernel has it. Any other error than that it has not is
// aioPoll's to report.
var hasAIOPoll = sync.OnceValue(func() bool {
	r, w, err := os.Pipe()
	if err != nil {
		return true
	}
	defer r.Close()
	defer w.Close()
	io, err := newAIO()
	if err != nil {
		return true
	}
	defer io.close()
	return !errors.Is(io.submit(&iocb{opcode: pollOp, fd: uint32(r.Fd()), buf: unix.POLLIN}), unix.EINVAL)
})

// aioPoll has an asynchronous poll pending while the descriptor, or its context, ends.
func (a *raceActor) aioPoll(fd int) {
	io, err := newAIO()
	if err != nil {
		a.t.Errorf("io_setup: %v", err)
		unix.Close(fd)
		return
	}
	if err := io.submit(&iocb{opcode: pollOp, fd: uint32(fd), buf: unix.POLLIN}); err != nil {
		a.t.Errorf("io_submit: %v", err)
	}
	a.count("aio poll")
	a.nap(3 * time.Millisecond)
	if a.oneIn(2) {
		unix.Close(fd)
		io.close()
		return
	}
	io.close()
	unix.Close(fd)
}

// share has several threads drain and poll one descriptor, which is closed under them.
func (a *raceActor) share(fd int) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range 2 {
		// The number may be another reader's by then, whose records this one takes.
		b := a.actor(int(a.rand.Uint32()), 100+i)
		wg.Go(func() {
			for !done.Load() {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
					b.drainAnything(fd)
				}
				b.nap(time.Millisecond)
			}
		})
	}
	a.nap(20 * time.Millisecond)
	a.count("share")
	if a.oneIn(2) {
		unix.Close(fd)
		done.Store(true)
		wg.Wait()
		return
	}
	done.Store(true)
	wg.Wait()
	unix.Close(fd)
}

// drainAnything drains a descriptor that may be any by now.
func (a *raceActor) drainAnything(fd int) {
	rn := &readNotify{recordsPtr: uint64(uintptr(unsafe.Pointer(&a.recs[0]))), recordsNr: notify.RingRecords}
	ioctlReadNotify(fd, rn)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
}

// hold keeps descriptors, over umounts too, and drains them late.
func (a *raceActor) hold() {
	var held []*raceStream
	defer func() {
		for _, s := range held {
			unix.Close(s.fd)
		}
	}()
	for !a.stop.Load() {
		if fd := a.attach(); fd >= 0 {
			held = append(held, &raceStream{fd: fd})
		}
		for i := 0; i < len(held); i++ {
			gone := a.drain(held[i])
			if got := pollNow(held[i].fd); gone && got&unix.POLLHUP == 0 {
				a.t.Errorf("poll says %#x after ENODEV", got)
			}
			if len(held) > 8 || a.oneIn(20) || gone && a.oneIn(3) {
				unix.Close(held[i].fd)
				held = append(held[:i], held[i+1:]...)
				i--
			}
		}
		a.nap(5 * time.Millisecond)
	}
}

func pollNow(fd int) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		return 0
	}
	return p[0].Revents
}

// remount unmounts, sometimes lazily or by force or while nobody has a file open,
// sometimes removes the module, and mounts again.
func (a *raceActor) remount() {
	a.nap(200 * time.Millisecond)
	quiet := a.oneIn(2)
	if quiet {
		a.files.Lock()
	}
	flags := []int{0, 0, 0, unix.MNT_DETACH, unix.MNT_FORCE}[a.rand.IntN(5)]
	err := unix.Unmount(a.dir, flags)
	a.forced = flags == unix.MNT_FORCE && isScoutFS()
	if a.forced && errors.Is(err, unix.EBUSY) { // it goes on with what it has in memory, for a while
		a.count("umount busy")
		if !quiet {
			quiet = true
			a.files.Lock()
		}
		err = umountPatiently(a.dir)
	}
	if !quiet && err == nil {
		a.files.Lock()
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		a.count("umount busy")
		if quiet {
			a.files.Unlock()
		}
		return
	case err != nil:
		a.t.Errorf("umount with flags %d: %v", flags, err)
	}
	defer a.files.Unlock()
	a.count([]string{"umount", "umount forced", "umount lazy"}[flags&3])
	if a.oneIn(2) {
		err := unix.DeleteModule("scoutfs", unix.O_NONBLOCK)
		switch {
		case err == nil:
			a.count("rmmod")
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOENT):
			a.count("rmmod busy")
		default:
			a.t.Errorf("rmmod: %v", err)
		}
		if err := a.insmod(); err != nil {
			a.t.Errorf("insmod: %v", err)
		}
	}
	a.mount()
}

// umountPatiently unmounts once what was using the mount is gone.
func umountPatiently(dir string) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(dir, 0)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}
