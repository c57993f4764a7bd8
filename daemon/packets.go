// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"git.anomalous.dev/alphacentri/scoutfs-notify/notify"
)

// maxMessages is how many packets the kernel takes in one call, UIO_MAXIOV. As many
// records fit in the ring.
const maxMessages = notify.RingRecords

// packets sends several packets with one system call, sendmmsg(2). All clients share it:
// those that want the same records in packets of the same size also share the headers.
type packets struct {
	headers [maxMessages]messageHeader
	vectors [maxMessages]unix.Iovec

	// what the headers are for
	first       *byte
	bytes, size int
	count       int
}

// messageHeader is struct mmsghdr.
type messageHeader struct {
	unix.Msghdr
	_ uint32 // the kernel writes how much it sent
	_ [4]byte
}

func newPackets() *packets {
	p := new(packets)
	for i := range p.headers {
		p.headers[i].Iov = &p.vectors[i]
		p.headers[i].SetIovlen(1)
	}
	return p
}

// cut makes headers for packets of size bytes each, of which the last may be shorter.
// Where there are headers for the same memory, these are it.
func (p *packets) cut(b []byte, size int) {
	if first := unsafe.SliceData(b); p.first != first || p.bytes != len(b) || p.size != size {
		p.first, p.bytes, p.size, p.count = first, len(b), size, 0
		for ; p.count < maxMessages && len(b) > 0; p.count++ {
			l := min(size, len(b))
			p.vectors[p.count].Base = &b[0]
			p.vectors[p.count].SetLen(l)
			b = b[l:]
		}
	}
}

// send sends b in packets of size bytes each, as many as one call takes, without waiting.
// It returns how many the kernel took. If those are not all, err says why.
func (p *packets) send(fd int, b []byte, size int) (n int, err error) {
	p.cut(b, size)
	for n < p.count {
		// Raw, because it does not wait: the Go scheduler need not know.
		r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.headers[n])), uintptr(p.count-n),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			n += int(r)
		case unix.EINTR:
		default:
			return n, errno
		}
	}
	return n, nil
}

// sendOne sends one packet, without waiting.
func sendOne(fd int, pkt []byte) error {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(pkt))), uintptr(len(pkt)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
