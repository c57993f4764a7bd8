// SPDX-License-Identifier: GPL-2.0-only

// Kernels fetches the kernels of the tests into the cache and shows progress on
// standard error; the tests would do so silently. With -build it prints the build
// directory of the first kernel instead, to build ScoutFS with its own Makefile.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/run"
	"git.anomalous.dev/alphacentri/scoutfs-notify/tests/vm"
)

func main() {
	build := flag.Bool("build", false, "print the build directory of the first kernel")
	flag.Parse()
	run.Main(func(ctx context.Context) int {
		if err := kernels(ctx, *build); err != nil {
			fmt.Fprintln(os.Stderr, "kernels:", err)
			return 1
		}
		return 0
	})
}

func kernels(ctx context.Context, build bool) error {
	names := vm.KernelNames()
	if build {
		k, err := vm.Kernel(ctx, names[0])
		if err != nil {
			return err
		}
		if k.Build == "" {
			return fmt.Errorf("kernel %s has no build directory: go doc ./tests/vm OpenKernel says where it goes", k.Name)
		}
		fmt.Println(k.Build)
		return nil
	}
	for _, name := range names {
		k, err := vm.Kernel(ctx, name)
		if err != nil {
			return err
		}
		fmt.Printf("kernel %s: Linux %s\n", k.Name, k.Version)
	}
	return nil
}
