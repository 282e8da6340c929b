package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// arrivals joins commits and what a listener heard of them.
type arrivals struct {
	localsync.NopObserver
	suffix string // only ids that end so are followed; empty: all

	mu     sync.Mutex
	began  map[string]bool
	done   map[string]time.Time // when COMMIT returned
	heard  map[string]time.Time
	skip   map[string]bool            // commits under way that are not followed
	newest map[string]rowtide.Version // heard of by a node
	d      []time.Duration
	late   int // of d, those that are only known to be longer
}

func newArrivals() *arrivals {
	return &arrivals{began: map[string]bool{}, done: map[string]time.Time{}, heard: map[string]time.Time{}, skip: map[string]bool{}, newest: map[string]rowtide.Version{}}
}

// begin comes before the commit of a row's change. When the change before it has
// not been heard of, that one counts with the time that it has taken so far, and
// this one is not followed: what is heard could be of either.
func (a *arrivals) begin(id string) {
	if !strings.HasSuffix(id, a.suffix) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.began[id] {
		a.began[id] = true
		return
	}
	a.d = append(a.d, time.Since(a.done[id]))
	a.late++
	a.forget(id)
	a.skip[id] = true
}

func (a *arrivals) committed(id string, at time.Time) {
	if !strings.HasSuffix(id, a.suffix) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.skip[id] {
		delete(a.skip, id)
		return
	}
	a.done[id] = at
	a.settle(id)
}

func (a *arrivals) forget(id string) {
	delete(a.began, id)
	delete(a.done, id)
	delete(a.heard, id)
}

// hear may come before committed: the log leaves before COMMIT returns.
func (a *arrivals) hear(id string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began[id] && a.heard[id].IsZero() {
		a.heard[id] = now
		a.settle(id)
	}
}

func (a *arrivals) settle(id string) {
	done, heard := a.done[id], a.heard[id]
	if done.IsZero() || heard.IsZero() {
		return
	}
	a.d = append(a.d, max(heard.Sub(done), 0))
	a.forget(id)
}

// news is hear for a node, which is told by a hint and by Kafka: what comes second is
// not taken for a later change.
func (a *arrivals) news(inv *rowtide.Invalidation) {
	a.mu.Lock()
	first := inv.Version > a.newest[inv.Key.ID]
	a.newest[inv.Key.ID] = max(a.newest[inv.Key.ID], inv.Version)
	a.mu.Unlock()
	if first {
		a.hear(inv.Key.ID)
	}
}

// Applied implements localsync.Observer.
func (a *arrivals) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) { a.news(&inv) }

// Hinted implements localsync.Observer.
func (a *arrivals) Hinted(inv rowtide.Invalidation) { a.news(&inv) }

// settled waits until every commit has been heard of.
func (a *arrivals) settled(ctx context.Context) error {
	for deadline := time.Now().Add(awaitLimit); ; time.Sleep(poll) {
		a.mu.Lock()
		missing := len(a.began)
		a.mu.Unlock()
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d commits were not heard of", missing)
		}
	}
}

func (a *arrivals) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.d, a.late = nil, 0
}

// audience are the arrivals of each listener; an empty one follows nothing.
type audience []*arrivals

func (all audience) settled(ctx context.Context) error {
	for i, a := range all {
		if err := a.settled(ctx); err != nil {
			return fmt.Errorf("listener %d: %w", i+1, err)
		}
	}
	return nil
}

// commits warms up, forgets that, and returns when all listeners have heard of all
// commits of the run proper, with the rate that was achieved.
func (b *bench) commits(ctx context.Context, db *sql.DB, all audience, rate, warm, seconds int) (achieved float64, err error) {
	if _, err := b.commit(ctx, db, all, rate, warm); err != nil {
		return 0, err
	}
	if err := all.settled(ctx); err != nil {
		return 0, err
	}
	for _, a := range all {
		a.reset()
	}
	if achieved, err = b.commit(ctx, db, all, rate, seconds); err != nil {
		return 0, err
	}
	return achieved, all.settled(ctx)
}

// commit updates rows at the rate, open loop: each commit has its instant,
// whether or not the one before has returned. Where the source does not keep up,
// at most writers commits are under way, and the achieved rate is lower.
func (b *bench) commit(ctx context.Context, db *sql.DB, all audience, rate, seconds int) (achieved float64, err error) {
	slots := make(chan struct{}, writers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	start := time.Now()
	for i := range rate * seconds {
		time.Sleep(time.Until(start.Add(time.Second * time.Duration(i) / time.Duration(rate))))
		if ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id := strconv.Itoa(i % latencyKeys)
			for _, a := range all {
				a.begin(id)
			}
			_, e := db.ExecContext(ctx, "UPDATE bench.item SET c1=c1+1, price=price+1 WHERE id=?", id)
			now := time.Now()
			for _, a := range all {
				a.committed(id, now)
			}
			if e != nil {
				mu.Lock()
				err = errors.Join(err, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return float64(rate*seconds) / time.Since(start).Seconds(), errors.Join(err, ctx.Err())
}
