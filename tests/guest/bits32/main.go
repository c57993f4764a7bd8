// SPDX-License-Identifier: GPL-2.0-only

// Command bits32 is a consumer of the kernel's ring to be built for 32 bits: it attaches
// through a file or directory, reads a file, and writes the records of that to its
// standard output.
//
//	bits32 ATTACH-TO FILE
package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readNotify is SCOUTFS_IOC_READ_NOTIFY.
const readNotify = 0xc020e819

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "bits32:", err)
		os.Exit(1)
	}
}

func run(attachTo, file string) error {
	fd, err := unix.Open(attachTo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", attachTo, err)
	}
	if unsafe.Sizeof(uintptr(0)) != 4 {
		return fmt.Errorf("pointers have %d bytes: it has to be built for 32 bits", unsafe.Sizeof(uintptr(0)))
	}
	// struct scoutfs_ioctl_read_notify. Its members are aligned to 8 bytes, which
	// uint64 is not with 32 bits.
	var arg [8]uint32
	reader, err := ioctl(fd, readNotify, &arg)
	if err != nil {
		return fmt.Errorf("attach through %s: %w", attachTo, err)
	}
	if _, err := ioctl(fd, readNotify+1, &arg); err != unix.ENOTTY {
		return fmt.Errorf("another command on %s: %w, not ENOTTY", attachTo, err)
	}
	if _, err := os.ReadFile(file); err != nil {
		return err
	}
	records := make([]byte, 16*64)
	arg = [8]uint32{0: uint32(uintptr(unsafe.Pointer(&records[0]))), 2: 16, 4: ^uint32(0)}
	n, err := ioctl(reader, readNotify, &arg)
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	if arg[4] != 0 || arg[5] != 0 {
		return fmt.Errorf("drain: %d, %d were dropped, not none", arg[4], arg[5])
	}
	_, err = os.Stdout.Write(records[:n*64])
	return err
}

func ioctl(fd int, cmd uintptr, arg *[8]uint32) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
