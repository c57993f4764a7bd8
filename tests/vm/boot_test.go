// SPDX-License-Identifier: GPL-2.0-only

package vm

import "testing"

// kernel returns a kernel or fails the test.
func kernel(t *testing.T, name string) *KernelTree {
	t.Helper()
	k, err := Kernel(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBoot(t *testing.T) {
	binary := BuildTest(t, "./guest")
	for _, name := range KernelNames() {
		t.Run(name, func(t *testing.T) {
			Run(t, Config{Kernel: kernel(t, name)}, binary, "-test.run=^TestMachine$")
		})
	}
}
