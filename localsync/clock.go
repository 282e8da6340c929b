package localsync

import (
	"context"
	"sync/atomic"
	"time"
)

// tickEvery is how far tick may be behind: much less than any age.
const tickEvery = 10 * time.Millisecond

// clock is a cache's time: nanoseconds since Open, monotonic.
type clock struct {
	start time.Time
	own   func() time.Time // nil: the real time
	last  atomic.Int64     // what the ticker saw
}

// now is exact. What is remembered (when a read began, when something was heard)
// is told by it.
func (c *clock) now() int64 {
	if c.own != nil {
		return int64(c.own().Sub(c.start))
	}
	return int64(time.Since(c.start))
}

// tick is now, or up to tickEvery before (longer on a machine too busy to run
// one goroutine). It judges the ages of resident entries: reading the real clock
// takes as long as finding an object does.
func (c *clock) tick() int64 {
	if c.own != nil {
		return c.now()
	}
	return c.last.Load()
}

// run moves tick on until ctx ends.
func (c *clock) run(ctx context.Context) {
	if c.own != nil {
		return
	}
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			c.last.Store(c.now())
		case <-ctx.Done():
			return
		}
	}
}
