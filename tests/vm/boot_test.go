// SPDX-License-Identifier: GPL-2.0-only

package vm

import "testing"

func TestBoot(t *testing.T) {
	binary := BuildTest(t, "./guest")
	for _, name := range KernelNames() {
		t.Run(name, func(t *testing.T) {
			Run(t, Config{Kernel: TestKernel(t, name)}, binary, "-test.run=^TestMachine$")
		})
	}
}
