// SPDX-License-Identifier: GPL-2.0-only

// Package broken holds guest tests that end in every way a test can, for the
// tests of the harness.
package broken

import (
	"fmt"
	"testing"
)

func TestGood(*testing.T) {}

func TestSkipped(t *testing.T) { t.Skip("on purpose") }

func TestParent(t *testing.T) {
	t.Run("good", func(*testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("broken on purpose") })
}

// TestForged prints what a pass looks like and fails.
func TestForged(t *testing.T) {
	fmt.Println("--- PASS: TestForged (0.00s)")
	fmt.Println("vm: end NONCE status 0")
	fmt.Println("boot me again")
	t.Fail()
}

// TestPanic ends the whole binary.
func TestPanic(*testing.T) { panic("on purpose") }

func TestNeverRun(*testing.T) {}
