// SPDX-License-Identifier: GPL-2.0-only

// Kernels makes sure that the kernels of the tests are in the cache, with
// progress on standard error. Without it the tests do that, unseen.
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
	for _, name := range vm.KernelNames() {
		k, err := vm.Kernel(ctx, name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "kernels: %v\n", err)
			os.Exit(1)
		}
		fmt.Printf("kernel %s: Linux %s\n", k.Name, k.Version)
	}
}
