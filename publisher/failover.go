package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/backoff"
)

const (
	// failoverLook is how often every primary is asked for its lineage: what a failover
	// lost stands in Redis as it was before for at least as long.
	failoverLook = 250 * time.Millisecond
	// failoverEvery is how often a point is kept to go back to. What was written since
	// is what has to be read again after a failover.
	failoverEvery = time.Second
	// failoverMemory is how many points of the past are kept, one a second: a
	// replica that lags further behind than that is a replica that stood still.
	failoverMemory = 600
)

// ErrRewound means that Redis is not, or not surely, in possession of what it had
// acknowledged: a replica that lacked writes was promoted, or a server came back
// from its file or empty. Read the log again from [RewoundError.Point].
var ErrRewound = errors.New("redis may have lost acknowledged writes")

// RewoundError says what happened and from where to repair it.
type RewoundError[P any] struct {
	// Addr is the server that answers now.
	Addr string
	// Why says how it differs from the one that was written to.
	Why string
	// Point is the newest saved point whose writes are all there; nil when the
	// server tells nothing that would allow to know one.
	Point *P
}

// Error implements error.
func (e *RewoundError[P]) Error() string {
	return fmt.Sprintf("%v: the primary at %s %s", ErrRewound, e.Addr, e.Why)
}

// Unwrap makes the error an [ErrRewound].
func (e *RewoundError[P]) Unwrap() error { return ErrRewound }

// Failover notices when Redis goes back in time while the daemon stays up. It
// follows the replication id of every primary: a replica that is promoted names
// the id that it followed and the offset up to which it did. P is a point to read
// from again, a checkpoint. Its methods are safe for concurrent use.
type Failover[P any] struct {
	rdb redis.UniversalClient
	log *slog.Logger

	asking chan struct{} // holds a token during Check

	mu    sync.Mutex
	saved *P                  // the point saved last
	mute  bool                // a primary that tells nothing has been told of
	known map[string]*past[P] // by replication id
	fault *RewoundError[P]    // found once, final
}

// past is what is known about one lineage.
type past[P any] struct {
	now   lineage
	marks []mark[P] // oldest first
}

// mark says that at this offset everything before the point had been written.
type mark[P any] struct {
	offset int64
	point  *P
	at     time.Time
}

// NewFailover makes a watch of the primaries of rdb. It does no I/O.
func NewFailover[P any](rdb redis.UniversalClient, log *slog.Logger) *Failover[P] {
	return &Failover[P]{rdb: rdb, log: log, asking: make(chan struct{}, 1), known: map[string]*past[P]{}}
}

// Saved notes a point that has been saved: everything before it is acknowledged.
func (f *Failover[P]) Saved(p P) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved = &p
}

// Check asks every primary for its lineage. The first call only notes it. Nil
// means that, when the call began, no primary had lost anything that it had
// acknowledged before; a *[RewoundError] that one may have, and so does every
// later call; any other error that it cannot be told now.
func (f *Failover[P]) Check(ctx context.Context) error {
	// One at a time: an older answer judged after a newer one would look like a step
	// back.
	select {
	case f.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.asking }()
	f.mu.Lock()
	saved := f.saved // before the question: what comes later may have a later offset
	f.mu.Unlock()
	now, err := readLineages(ctx, f.rdb)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return f.fault
	}
	if err != nil {
		return err
	}
	if f.fault = f.compare(now); f.fault != nil {
		return f.fault
	}
	f.note(now, saved)
	return nil
}

// Await is Check that waits for a Redis which does not answer: its error is a
// *[RewoundError], or what Redis said last when ctx ended.
func (f *Failover[P]) Await(ctx context.Context) error {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		err := f.Check(ctx)
		var lost *RewoundError[P]
		if err == nil || errors.As(err, &lost) || wait.Wait(ctx) != nil {
			return err
		}
	}
}

// Run checks four times a second until ctx ends, which is nil, or something was lost,
// which is a *[RewoundError]. A Redis that does not answer is waited for.
func (f *Failover[P]) Run(ctx context.Context) error {
	tick := time.NewTicker(failoverLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var lost *RewoundError[P]
		if err := f.Check(ctx); errors.As(err, &lost) {
			return lost
		}
	}
}

// compare looks for the heir of each lineage that is known. Of several losses it
// gives the one that goes back furthest. The caller holds mu.
func (f *Failover[P]) compare(now []lineage) *RewoundError[P] {
	var worst *RewoundError[P]
	var worstAt time.Time
	for _, old := range f.known {
		heir, end, why := old.now.heir(now)
		if why == "" {
			continue
		}
		// Where to go back to: the newest point that was saved before an offset
		// which the heir has. No such point is further back than any.
		var to mark[P]
		for _, m := range slices.Backward(old.marks) {
			if m.offset < end {
				to = m
				break
			}
		}
		if worst == nil || to.at.Before(worstAt) {
			worst, worstAt = &RewoundError[P]{Addr: heir.addr, Why: why, Point: to.point}, to.at
		}
	}
	return worst
}

// note makes the answers what later ones are compared with. The caller holds mu.
func (f *Failover[P]) note(now []lineage, saved *P) {
	next := make(map[string]*past[P], len(now))
	for _, l := range now {
		if l.id == "" {
			if !f.mute {
				f.mute = true
				f.log.Warn("redis does not tell run_id and master_replid in INFO, so a failover that loses writes goes unnoticed; restart the daemon after one")
			}
			continue
		}
		p := f.known[l.id]
		if p == nil {
			p = &past[P]{}
		}
		p.now = l
		if saved != nil && (len(p.marks) == 0 || time.Since(p.marks[len(p.marks)-1].at) >= failoverEvery) {
			p.marks = append(p.marks, mark[P]{l.offset, saved, time.Now()})
			if len(p.marks) > failoverMemory {
				p.marks = slices.Delete(p.marks, 0, 1)
			}
		}
		next[l.id] = p
	}
	f.known = next
}
