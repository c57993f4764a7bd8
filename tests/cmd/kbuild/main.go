// SPDX-License-Identifier: GPL-2.0-only

// Kbuild prints the build directory of the tests' first kernel, for makes that
// build ScoutFS with its own Makefile. The kernel is downloaded at first.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	k, err := vm.Kernel(ctx, vm.KernelNames()[0])
	if err == nil && k.Build == "" {
		err = fmt.Errorf("kernel %s has no build directory; go doc ./tests/vm OpenKernel says where it goes", k.Name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kbuild:", err)
		os.Exit(1)
	}
	fmt.Println(k.Build)
}
