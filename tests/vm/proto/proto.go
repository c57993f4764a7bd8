// SPDX-License-Identifier: GPL-2.0-only

// Package proto defines what the host and PID 1 of a machine agree on.
package proto

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// SpecPath is the file in the initramfs that holds the Spec, as JSON.
	SpecPath = "/.vm.json"
	// Port is the serial port for the program; the kernel has the first one.
	Port = "/dev/ttyS1"
	// EnvGuest is set in the program's environment, to the name of the kernel.
	EnvGuest = "SCOUTFS_NOTIFY_GUEST"
	// StatusInit is the exit status that PID 1 reports if it cannot start the
	// program or clean up after it.
	StatusInit = 125
)

// Spec tells PID 1 what to do.
type Spec struct {
	Nonce   string   // distinguishes this boot's first and last line from any other text
	Modules []string // paths of modules, in the order to load them
	Later   []string // the same of those that the program loads
	Disks   int      // how many of /dev/vda, /dev/vdb, ... to wait for
	Argv    []string // the program and its arguments
	Env     []string

	// Root says that the first disk holds a root file system with systemd,
	// which becomes PID 1. Files are copied into it.
	Root  bool
	Files []string
}

// Where a machine with systemd keeps what runs the program: in memory, not in its
// root file system.
const (
	ServiceInit = "/run/vm/init"
	ServiceSpec = "/run/vm/spec.json"
)

// DiskPath returns the path in the guest of a disk, counted from 0; at most 26.
func DiskPath(i int) string { return "/dev/vd" + string(rune('a'+i)) }

// FirstLine returns the line of a machine whose PID 1 runs, without a line feed.
func FirstLine(nonce string) string { return "vm: begin " + nonce }

// LastLine returns the last line of a machine that ends as it should, without a line
// feed.
func LastLine(nonce string, status int) string {
	return fmt.Sprintf("vm: end %s status %d", nonce, status)
}

// ParseLastLine returns the exit status if line is the last one of the boot with
// that nonce.
func ParseLastLine(line, nonce string) (status int, ok bool) {
	text, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "vm: end "+nonce+" status ")
	if !ok {
		return 0, false
	}
	status, err := strconv.Atoi(text)
	return status, err == nil
}

// PowerOff ends the machine. Without ACPI a kernel cannot turn it off, but QEMU also ends
// where it would start again. It returns only with an error.
func PowerOff() error {
	command := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/sys/firmware/acpi"); err != nil {
		command = unix.LINUX_REBOOT_CMD_RESTART
	}
	return unix.Reboot(command)
}
