// SPDX-License-Identifier: GPL-2.0-only

// Package vm boots Linux kernels under QEMU and runs a program, or a compiled
// Go test, inside.
//
// The pieces, from the bottom:
//
//   - [Kernel] gives a kernel with its modules and one build directory, out of
//     Debian packages (cached) or out of a folder of the user's own.
//   - [BuildModule] builds an external kernel module against it, and [ScoutFS]
//     the user's ScoutFS checkout: module and command.
//   - [Boot] makes an initramfs, boots it and waits for the machine's end. It
//     knows nothing of testing, so commands can use it.
//   - [Run] is Boot for a guest test binary: every test in the guest becomes a
//     subtest of the host's test.
//
// PID 1 of the machine is the program in the init folder. It loads modules,
// starts the program as a child, reports its exit status on a last line that
// holds a nonce of this boot, and powers the machine off. A machine that does
// not get there is an error, whatever it printed before; so is one whose kernel
// complained on its console.
//
// The guest has two serial ports, so that the kernel's messages and the
// program's output cannot tear each other's lines: ttyS0 is the kernel's
// console, ttyS1 is standard input, output and error of the program.
//
// QEMU emulates the processor (TCG); nothing here needs /dev/kvm or root.
package vm
