package localsync

import "time"

// clock is a cache's time: nanoseconds since Open, monotonic. It is read at each
// look at a resident entry: a process that stood still for an hour must not take
// its entries for fresh until some ticker has run.
type clock struct {
	start time.Time
	own   func() time.Time // nil: the real time
}

func (c *clock) now() int64 {
	if c.own != nil {
		return int64(c.own().Sub(c.start))
	}
	return int64(time.Since(c.start)) // half the price of time.Now
}
