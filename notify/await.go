// SPDX-License-Identifier: MIT OR GPL-2.0-only

package notify

import (
	"context"
	"fmt"
)

// await returns what f returns, unless the context is done first. Then the error
// is the context's, led by doing, and f runs on by itself: a call that waits for
// the cluster cannot be interrupted. What it returns late is passed to discard,
// which may be nil.
func await[T any](ctx context.Context, doing string, f func() (T, error), discard func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	if discard != nil {
		go func() {
			if r := <-done; r.err == nil {
				discard(r.v)
			}
		}()
	}
	var zero T
	return zero, fmt.Errorf("%s: %w", doing, ctx.Err())
}
