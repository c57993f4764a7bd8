// SPDX-License-Identifier: GPL-2.0-only

// Package vm boots Linux kernels under QEMU and runs a program, or a compiled
// Go test, inside.
//
// The pieces, from the bottom:
//
//   - [Kernel] returns a kernel with its modules and one build directory, from
//     Debian packages (cached) or from a folder of the user's.
//   - [BuildModule] builds an external kernel module against it, and [ScoutFS]
//     builds the module and the command of the user's ScoutFS checkout.
//   - [Boot] makes an initramfs, boots it and waits for the machine to end. It
//     does not import testing, so commands can use it.
//   - [Run] is Boot for a test binary: every test in the guest becomes a subtest
//     of the host's test.
//
// PID 1 of the machine is the program in the folder init. It loads modules, starts
// the program as a child, reports its exit status on a last line with this boot's
// nonce, and powers the machine off. It is an error if the machine does not get
// that far, whatever it printed before, or if the kernel complained on its console.
//
// The guest has two serial ports, so that the kernel's messages and the program's
// output do not break into each other's lines: ttyS0 is the kernel's console, ttyS1
// is the program's standard input, output and error.
//
// QEMU emulates the processor (TCG); nothing here needs /dev/kvm or root.
package vm
