// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/guest"
)

// A listener runs in a process of its own. It prints "ready", counts events until
// SIGTERM, takes what there still is, and prints a tally.
type tally struct {
	Events     uint64   // for several clients, on average
	Sent, Late lateness // from an access until the daemon has sent it, and until the client has it
	Latest     span     // of the record that was sent latest
}

// lateness is of records.
type lateness struct{ Median, P99 time.Duration }

// quiet is how long a client that is to end still waits for records.
const quiet = 100 * time.Millisecond

// nap is how long a listener waits between two looks, unless it is to be awake.
const nap = 10 * time.Millisecond

// listen is a listener's main function.
func listen(kind string, awake bool, clients, packet int) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	var t tally
	var err error
	switch kind {
	case "fanotify":
		err = listenFile(ctx, &t, awake, openFanotify, countFanotify)
	case "inotify":
		err = listenFile(ctx, &t, awake, openInotify, countInotify)
	case "ebpf":
		err = listenEBPF(ctx, &t)
	case "kprobe":
		err = listenKprobe(ctx)
	case "client":
		err = listenClients(ctx, &t, clients, packet)
	default:
		err = fmt.Errorf("no such listener: %s", kind)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

func ready() { fmt.Println("ready") }

// listenFile counts events that are read from a descriptor.
func listenFile(ctx context.Context, t *tally, awake bool, open func() (int, error), count func([]byte) uint64) error {
	fd, err := open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ready()
	buf := make([]byte, 1<<20)
	for done := false; !done; {
		if awake {
			// As long as nothing comes, look for the signal now and then.
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100); err != nil && err != unix.EINTR {
				return fmt.Errorf("poll: %w", err)
			}
			done = ctx.Err() != nil
		} else {
			done = !sleep(ctx)
		}
		for {
			n, err := unix.Read(fd, buf)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			t.Events += count(buf[:n])
		}
	}
	return nil
}

// sleep waits for a nap, and says whether to go on.
func sleep(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(nap):
		return true
	}
}

func openFanotify() (int, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_UNLIMITED_QUEUE|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return -1, fmt.Errorf("fanotify_init: %w", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN|unix.FAN_ACCESS, unix.AT_FDCWD, guest.MountPoint); err != nil {
		return -1, fmt.Errorf("fanotify_mark: %w", err)
	}
	return fd, nil
}

// countFanotify counts what events tell of: one may stand for an open and for reads.
func countFanotify(b []byte) (n uint64) {
	for len(b) >= unix.FAN_EVENT_METADATA_LEN {
		mask := binary.NativeEndian.Uint64(b[8:])
		if mask&unix.FAN_OPEN != 0 {
			n++
		}
		if mask&unix.FAN_ACCESS != 0 {
			n++
		}
		b = b[binary.NativeEndian.Uint32(b):]
	}
	return n
}

func openInotify() (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("inotify_init: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, guest.MountPoint, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		return -1, fmt.Errorf("inotify_add_watch: %w", err)
	}
	return fd, nil
}

func countInotify(b []byte) (n uint64) {
	for len(b) >= unix.SizeofInotifyEvent {
		n++
		b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
	}
	return n
}

// listenClients takes records from several connections to the daemon, and notes how late
// each is at the first of them.
func listenClients(ctx context.Context, t *tally, clients, packet int) error {
	mount, err := notify.Statfs(guest.MountPoint)
	if err != nil {
		return err
	}
	socket := filepath.Join(notify.RunDir, mount.FSID.String(), notify.SocketName)
	request, err := (&notify.Request{Version: notify.Version1, MaxRecords: uint32(packet)}).MarshalBinary()
	if err != nil {
		return err
	}
	fds := make([]unix.PollFd, clients)
	for i := range fds {
		fd, err := connect(socket, request)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	// The kernel notes when a packet is put into the socket.
	if err := unix.SetsockoptInt(int(fds[0].Fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for the time of packets: %w", err)
	}
	const most = 1 << 20
	first, others := newReceived(most), newReceived(0)
	// Go's scheduler is not told of the waits, as if this were C. So let it have no need to
	// interrupt them, and a processor of its own for the signal.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(2)
	ready()
	for heard := time.Now(); ctx.Err() == nil || time.Since(heard) < quiet; {
		wait := unix.NsecToTimespec(int64(quiet))
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&wait)), 0, 0, 0)
		if errno == unix.EINTR || errno == 0 && n == 0 {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("poll: %w", errno)
		}
		heard = time.Now()
		for i, r := 0, first; i < len(fds); i, r = i+1, others {
			if err := r.receive(fds[i]); err != nil {
				return err
			}
		}
	}
	t.Events = (first.events + others.events) / uint64(clients)
	t.Sent, t.Late = latenessOf(first.sent), latenessOf(first.late)
	t.Latest = slices.MaxFunc(append(warm(first.spans), span{}), func(a, b span) int { return cmp.Compare(a.length(), b.length()) })
	return nil
}

// connect returns a connection that has asked for records.
func connect(socket string, request []byte) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return -1, fmt.Errorf("connect to %s: %w", socket, err)
	}
	if _, err := unix.Write(fd, request); err != nil {
		return -1, fmt.Errorf("send the request: %w", err)
	}
	return fd, nil
}

// received is what came over connections.
type received struct {
	events     uint64
	sent, late []time.Duration // how long records took until they were sent and got here, as many as there is room for
	spans      []span          // of the first of each packet

	buf    [notify.RingRecords * notify.RecordSize]byte
	time   [64]byte // a control message with one
	vector unix.Iovec
	header unix.Msghdr
}

// newReceived returns one that notes how late so many records are.
func newReceived(most int) *received {
	r := &received{sent: make([]time.Duration, 0, most), late: make([]time.Duration, 0, most), spans: make([]span, 0, most)}
	r.vector.Base = &r.buf[0]
	r.vector.SetLen(len(r.buf))
	r.header.Iov = &r.vector
	r.header.SetIovlen(1)
	r.header.Control = &r.time[0]
	return r
}

// receive takes all that is there, if poll says that there is something.
func (r *received) receive(fd unix.PollFd) error {
	for fd.Revents != 0 {
		r.header.SetControllen(len(r.time))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd.Fd), uintptr(unsafe.Pointer(&r.header)), unix.MSG_DONTWAIT)
		switch {
		case errno == unix.EAGAIN:
			return nil
		case errno != 0:
			return fmt.Errorf("receive: %w", errno)
		case n == 0:
			return errors.New("receive: the daemon has gone")
		}
		r.events += uint64(n) / notify.RecordSize
		if cap(r.late) > 0 {
			r.note(r.buf[:n])
		}
	}
	return nil
}

func (r *received) note(b []byte) {
	now, sent := clock(unix.CLOCK_REALTIME), r.sentAt()
	if len(r.spans) < cap(r.spans) {
		r.spans = append(r.spans, span{time.Duration(binary.NativeEndian.Uint64(b[8:])), sent})
	}
	for ; len(b) > 0 && len(r.late) < cap(r.late); b = b[notify.RecordSize:] {
		at := time.Duration(binary.NativeEndian.Uint64(b[8:]))
		r.sent, r.late = append(r.sent, sent-at), append(r.late, now-at)
	}
}

// sentAt returns when the kernel got the last packet from the daemon, 0 if it does not say.
func (r *received) sentAt() time.Duration {
	if r.header.Controllen < unix.SizeofCmsghdr {
		return 0
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(r.time[:r.header.Controllen])
	if err != nil || h.Type != unix.SCM_TIMESTAMPNS {
		return 0
	}
	return time.Duration(binary.NativeEndian.Uint64(data))*time.Second + time.Duration(binary.NativeEndian.Uint64(data[8:]))
}

// warm leaves out the first fifth, in which everything runs for the first time.
func warm[T any](s []T) []T { return slices.Clone(s[len(s)/5:]) }

func latenessOf(took []time.Duration) (l lateness) {
	took = warm(took)
	if len(took) == 0 {
		return l
	}
	slices.Sort(took)
	quantile := func(percent int) time.Duration { return took[(len(took)-1)*percent/100] }
	return lateness{quantile(50), quantile(99)}
}
