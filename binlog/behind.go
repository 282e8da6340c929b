package binlog

import (
	"math"
	"sync"
	"time"
)

const (
	// behindFrom is the age of a transaction, when it is read, from which on the reading
	// is behind: MariaDB's log has whole seconds, and clocks are compared with an error.
	behindFrom = 2 * time.Second
	// quietAfter is for how long nothing must come for the log's end to be reached.
	quietAfter = 500 * time.Millisecond
)

// reading is how far the source's log has been handed over, in time. Its methods may be
// called from any goroutine. The zero reading has never had a stream.
type reading struct {
	mu      sync.Mutex
	begun   bool
	down    time.Time     // since when there is no stream; zero while there is
	handing time.Time     // since when the handler has had a transaction; zero: it has none
	quiet   time.Time     // since when nothing has come
	lag     time.Duration // what could be missing then
}

// connected: a stream begins. Whether it has a backlog only what it sends will tell.
func (r *reading) connected(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet, r.lag = now, math.MaxInt64
	if r.begun {
		r.lag = now.Sub(r.down)
	}
	r.begun, r.down = true, time.Time{}
}

func (r *reading) disconnected(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		r.down, r.handing = now.Add(-r.missing(now)), time.Time{}
	}
}

// hand: a transaction goes to the handler that was committed at committed, by our clock.
func (r *reading) hand(now, committed time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handing, r.lag = now, 0
	if age := now.Sub(committed); age >= behindFrom {
		r.lag = age
	}
}

// handed: the handler took it.
func (r *reading) handed(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handing, r.quiet = time.Time{}, now
}

// behind is how long ago what was not handed over yet can have been committed.
func (r *reading) behind(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing(now)
}

func (r *reading) missing(now time.Time) time.Duration {
	switch {
	case !r.begun:
		return math.MaxInt64
	case !r.down.IsZero():
		return now.Sub(r.down)
	case !r.handing.IsZero():
		return later(r.lag, now.Sub(r.handing))
	case r.lag > 0 && now.Sub(r.quiet) < quietAfter:
		return later(r.lag, now.Sub(r.quiet))
	}
	return 0
}

// later is a+b, of which a may be endless.
func later(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
