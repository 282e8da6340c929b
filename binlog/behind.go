package binlog

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

const (
	// behindFrom is the age of a transaction, when it is read, from which on the reading
	// is behind: MariaDB's log has whole seconds, and clocks are compared with an error.
	behindFrom = 2 * time.Second
	// clockEvery is how often the server's clock is asked: often enough for one that was
	// set to be noticed before anybody wonders.
	clockEvery = time.Minute
)

// reading is how far the source's log has been handed over, in time. Its methods may be
// called from any goroutine. The zero reading has never had a stream.
type reading struct {
	mu    sync.Mutex
	begun bool
	ahead time.Duration // of the server's clock, to ours
	down  time.Time     // since when there is no stream; zero while there is
	// open is when the transaction was committed, by the server's clock, that is being
	// read or handed over, handing since when the handler has it; zero without one.
	open, handing time.Time
	// lag is what could be missing at since without one; 0: the log's end was reached.
	lag   time.Duration
	since time.Time
	end   rowtide.Position // of the log when the stream began
}

// connected: a stream begins at from, of a log that ends at end.
func (r *reading) connected(now time.Time, from, end rowtide.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.lag = now, math.MaxInt64
	if r.begun {
		r.lag = now.Sub(r.down)
	}
	r.begun, r.down, r.end = true, time.Time{}, end
	r.reached(from)
}

// reached: all is read up to here.
func (r *reading) reached(at rowtide.Position) {
	if r.lag == 0 {
		return
	}
	file, err := rowtide.FileNumber(at.File)
	last, err2 := rowtide.FileNumber(r.end.File)
	if err == nil && err2 == nil && (file > last || file == last && at.Pos >= r.end.Pos) {
		r.lag = 0
	}
}

func (r *reading) disconnected(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		r.down, r.open, r.handing = now.Add(-r.missing(now)), time.Time{}, time.Time{}
	}
}

// opens: a transaction that was committed then, by the server's clock, begins to come.
func (r *reading) opens(committed time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = committed
}

// hand: it goes to the handler.
func (r *reading) hand(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handing = now
}

// handed: the handler took it, and all up to at.
func (r *reading) handed(now time.Time, at rowtide.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.lag = now, r.age(r.handing)
	r.open, r.handing = time.Time{}, time.Time{}
	r.reached(at)
}

// idle: the server says that it has nothing to send.
func (r *reading) idle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open, r.lag = time.Time{}, 0
}

func (r *reading) clock(ahead time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead = ahead
}

// behind is how long ago what was not handed over yet can have been committed.
func (r *reading) behind(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.missing(now)
}

// age is that of the open transaction, if it says anything.
func (r *reading) age(now time.Time) time.Duration {
	if r.open.IsZero() {
		return 0
	}
	if age := now.Add(r.ahead).Sub(r.open); age >= behindFrom {
		return age
	}
	return 0
}

func (r *reading) missing(now time.Time) time.Duration {
	switch {
	case !r.begun:
		return math.MaxInt64
	case !r.down.IsZero():
		return now.Sub(r.down)
	}
	if !r.open.IsZero() { // all that was committed before it has been handed over
		by := r.age(now)
		if !r.handing.IsZero() {
			by = max(by, now.Sub(r.handing))
		}
		return by
	}
	waited := now.Sub(r.since)
	if r.lag == 0 || r.lag > math.MaxInt64-waited {
		return r.lag
	}
	return r.lag + waited
}

// Behind is how long ago what was not handed to the handler yet can have been committed,
// by the times in the log: zero when the log's end has been reached, the age of what is
// read while there is a backlog, the time without a connection, the time that the handler
// takes. A server that dies without a word is noticed after Config.ReadTimeout, and that
// an idle one has nothing more at its next heartbeat. It may be called from any goroutine.
func (s *Source) Behind() time.Duration { return s.reading.behind(time.Now()) }

// watchClock asks the server's clock until ctx ends.
func (s *Source) watchClock(ctx context.Context, db *sql.DB) {
	for {
		if ahead, err := clockAhead(ctx, db); err == nil { // else the stream has the same trouble
			s.reading.clock(ahead)
		}
		select {
		case <-time.After(clockEvery):
		case <-ctx.Done():
			return
		}
	}
}

// clockAhead is by how much the server's clock is ahead of ours, within the time that
// asking took.
func clockAhead(ctx context.Context, db *sql.DB) (time.Duration, error) {
	asked, unix := time.Now(), 0.0
	if err := db.QueryRowContext(ctx, "SELECT UNIX_TIMESTAMP(NOW(6))").Scan(&unix); err != nil {
		return 0, fmt.Errorf("ask the server's clock: %w", err)
	}
	between := asked.Add(time.Since(asked) / 2)
	return time.UnixMicro(int64(unix * 1e6)).Sub(between), nil
}
