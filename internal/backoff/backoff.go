// Package backoff spaces out retries.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles its wait from one call to the next, with jitter so that many
// retriers do not march in step. It is for one goroutine.
type Backoff struct {
	least, most, next time.Duration
}

// New waits least at first and most at the longest.
func New(least, most time.Duration) *Backoff {
	return &Backoff{least: least, most: most, next: least}
}

// Reset starts over at the least wait.
func (b *Backoff) Reset() { b.next = b.least }

// Wait blocks for the current wait, give or take a quarter, and returns nil; or
// ctx's error as soon as ctx ends.
func (b *Backoff) Wait(ctx context.Context) error {
	d := b.next*3/4 + rand.N(b.next/2+1) //nolint:gosec // jitter, not a secret
	b.next = min(2*b.next, b.most)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
