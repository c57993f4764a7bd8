// SPDX-License-Identifier: GPL-2.0-only

package daemon

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxMessages is how many packets go to the kernel in one call: enough to make the call
// itself cheap, few enough for the processor's cache.
const maxMessages = 64

// packets sends several packets with one system call, sendmmsg(2). All clients share it.
type packets struct {
	headers [maxMessages]messageHeader
	vectors [maxMessages]unix.Iovec
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

// send sends packets of size bytes each, of which the last may be shorter, without
// waiting. It returns how many the kernel took; if that is none, err says why.
func (p *packets) send(fd int, b []byte, size int) (n int, err error) {
	count := 0
	for ; count < maxMessages && len(b) > 0; count++ {
		l := min(size, len(b))
		p.vectors[count].Base = &b[0]
		p.vectors[count].SetLen(l)
		b = b[l:]
	}
	for {
		r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.headers)), uintptr(count),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
