package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const outageRate = 2000 // commits a second

// redisOutage has Redis hang under a steady load, and watches the daemon's memory
// until it has caught up. Redis keeps its data: a process that stands still, not
// one that is gone.
func (b *bench) redisOutage(ctx context.Context) (err error) {
	db, err := b.openFilled(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	d, err := b.startDaemon(ctx, b.nextName(), latest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	const before = 5 // seconds of load, for a daemon that has all its buffers
	if _, err := b.commit(ctx, db, nil, outageRate, before); err != nil {
		return err
	}
	if err := b.caughtUp(ctx, d); err != nil {
		return err
	}

	began := time.Now()
	if err := b.redis.Pause(); err != nil {
		return err
	}
	seconds := max(1, int(b.outage.Seconds()))
	stop := watchMemory(d.pid())
	achieved, err := b.commit(ctx, db, nil, outageRate, seconds)
	if err := errors.Join(err, b.redis.Resume()); err != nil {
		stop()
		return err
	}
	hung, back := time.Since(began), time.Now()
	err = b.caughtUp(ctx, d)
	took, curve := time.Since(back), stop()
	if err != nil {
		return err
	}
	first, last := curve[0], curve[len(curve)-1]
	fmt.Printf("  Redis hung for %.0f s under %.0f commits/s; caught up %.1f s later, %.0f transactions/s\n",
		hung.Seconds(), achieved, took.Seconds(), float64(seconds)*outageRate/took.Seconds())
	fmt.Printf("  daemon's memory: start %.1f, most %.1f, end %.1f MB; over the time:", first/mb, slices.Max(curve)/mb, last/mb)
	for i := range points {
		fmt.Printf(" %.1f", curve[i*(len(curve)-1)/(points-1)]/mb)
	}
	fmt.Println()
	return nil
}

const (
	mb     = 1 << 20
	points = 12 // of the printed curve
)

// caughtUp waits until the daemon's checkpoint is at the log's end.
func (b *bench) caughtUp(ctx context.Context, d *daemon) error {
	head, err := b.head(ctx)
	if err != nil {
		return err
	}
	return d.await(ctx, awaitLimit+b.outage, func(s daemonStatus) bool { return s.Position == head })
}

// watchMemory takes a sample of the process's memory at once, every second, and
// when it is stopped.
func watchMemory(pid int) (stop func() []float64) {
	end, done := make(chan struct{}), make(chan struct{})
	var curve []float64
	sample := func() {
		if rss, err := resident(pid); err == nil { // a dead daemon is an error elsewhere
			curve = append(curve, rss)
		}
	}
	sample()
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sample()
			case <-end:
				sample()
				return
			}
		}
	}()
	return func() []float64 {
		close(end)
		<-done
		return curve
	}
}
