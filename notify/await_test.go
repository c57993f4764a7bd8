// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func TestAwait(t *testing.T) {
	for _, want := range []error{nil, io.ErrUnexpectedEOF} {
		v, err := await(t.Context(), "do it", func() (int, error) { return 7, want }, nil)
		if v != 7 || err != want {
			t.Errorf("got %d, %v, want %v", v, err, want)
		}
	}
}

// TestAwaitAbandoned: a late result is discarded, unless it is an error.
func TestAwaitAbandoned(t *testing.T) {
	for _, late := range []error{nil, io.ErrUnexpectedEOF} {
		ctx, cancel := context.WithCancel(t.Context())
		block, discarded := make(chan struct{}), make(chan int, 1)
		v, err := await(ctx, "do it", func() (int, error) {
			cancel()
			<-block
			return 7, late
		}, func(v int) { discarded <- v })
		if v != 0 || !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "do it: ") {
			t.Errorf("got %d, %v", v, err)
		}
		select {
		case <-discarded:
			t.Error("discarded before there was a result")
		default:
		}
		close(block)
		if late == nil {
			if v := <-discarded; v != 7 {
				t.Errorf("discarded %d", v)
			}
		}
	}
}

// The functions with a context return the same errors as those without.
func TestContextErrors(t *testing.T) {
	if _, err := StatfsContext(t.Context(), t.TempDir()); !errors.Is(err, ErrNotScoutFS) {
		t.Errorf("StatfsContext: %v", err)
	}
	if _, err := AttachContext(t.Context(), "/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("AttachContext: %v", err)
	}
}
