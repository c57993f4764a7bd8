// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"errors"
	"testing"

	"git.anomalous.dev/alphacentri/scoutfs-notify/internal/series"
)

// TestKernel is [Kernel] for a test: it fails t on an error.
func TestKernel(t *testing.T, name string) *KernelTree {
	t.Helper()
	k, err := Kernel(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestScoutFS builds a release with and without its series for a test. It skips t
// if SCOUTFS_SRC is not set.
func TestScoutFS(t *testing.T, k *KernelTree, s *series.Series) (patched, unpatched *ScoutFSTree) {
	t.Helper()
	build := func(apply *series.Series) *ScoutFSTree {
		tree, err := ScoutFS(t.Context(), ScoutFSBuild{Version: s.Version, Rev: s.Rev(), Kernel: k, Series: apply})
		if errors.Is(err, ErrNoSource) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	return build(s), build(nil)
}
