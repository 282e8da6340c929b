package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/localsync"
)

// latencyKeys rows are updated in turn, so that a row is not updated again while
// its last update is still under way.
const latencyKeys = 20_000

// writers commit side by side at most.
const writers = 64

// nodeRate is the rate of commits that commit -> node is measured at.
const nodeRate = 1000

// latency measures how long after COMMIT returned a change is in Redis, on Kafka
// and at a web node.
func (b *bench) latency(ctx context.Context) error {
	db, err := b.openFilled(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := b.warmBroker(ctx, db); err != nil {
		return err
	}
	for _, rate := range b.rates {
		for _, o := range []observer{atRedis, atKafka} {
			if err := b.arrive(ctx, db, o, rate); err != nil {
				return err
			}
		}
	}
	if err := b.toNode(ctx, db); err != nil || b.kafka == nil {
		return err
	}
	// A JVM on the same two cores is a good part of the tail; this shows the rest.
	fmt.Println("  the same with an in-process Kafka broker:")
	apache := b.bus
	defer func() { b.bus = apache }()
	if err := b.startFakeKafka(); err != nil {
		return err
	}
	return b.toNode(ctx, db)
}

// toNode measures commit -> node at a fixed rate of commits, from the moment
// COMMIT returned to the moment a localsync node had raised the key's floor, and
// each hop of the way by itself, in the same run.
func (b *bench) toNode(ctx context.Context, db *sql.DB) error {
	hops, err := b.latencyHops(ctx, db)
	if err != nil {
		return err
	}
	var p50, p99 []time.Duration
	for i := range b.runs {
		d, err := b.commitToNode(ctx, db)
		if err != nil {
			return err
		}
		p50, p99 = append(p50, rank(d, 50)), append(p99, rank(d, 99))
		fmt.Printf("  run %d: commit -> node p50 %s p99 %s p99.9 %s, %d commits at %d/s\n", i+1, ms(rank(d, 50)), ms(rank(d, 99)), ms(rankMille(d, 999)), len(d), nodeRate)
	}
	slices.Sort(p50)
	slices.Sort(p99)
	var sum50, sum99 time.Duration
	for _, h := range hops {
		fmt.Printf("  hop alone: %-34s p50 %s p99 %s\n", h.name, ms(rank(h.d, 50)), ms(rank(h.d, 99)))
		sum50, sum99 = sum50+rank(h.d, 50), sum99+rank(h.d, 99)
	}
	m50, m99 := p50[len(p50)/2], p99[len(p99)/2]
	fmt.Printf("  commit -> node, median of runs: p50 %s p99 %s; hops' sum p50 %s p99 %s; ratio p50 %.2f p99 %.2f\n",
		ms(m50), ms(m99), ms(sum50), ms(sum99), float64(m50)/float64(sum50), float64(m99)/float64(sum99))
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d.Nanoseconds())/1e6) }

func rank(d []time.Duration, p int) time.Duration { return rankMille(d, p*10) }

func rankMille(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)*p/1000, len(s)-1)]
}

// commitToNode runs a daemon and a node beside the commits.
func (b *bench) commitToNode(ctx context.Context, db *sql.DB) (_ []time.Duration, err error) {
	name := b.nextName()
	d, err := b.startDaemon(ctx, name, latest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	a := newArrivals()
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	node, err := localsync.Open(ctx, localsync.Options{
		Redis: rdb, Brokers: b.brokers, Topic: name + ".invalidations", Prefix: name, MaxBytes: 16 << 20, Observer: a,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	defer node.Close(ctx) //nolint:errcheck // a benchmark's node
	<-node.Ready()
	_, err = b.commits(ctx, db, a, nodeRate)
	return a.d, err
}

// warmBroker lets the broker's JVM compile its hot paths, which it does in its
// first ten thousand requests.
func (b *bench) warmBroker(ctx context.Context, db *sql.DB) (err error) {
	if b.warm {
		return nil
	}
	b.warm = true
	d, err := b.startDaemon(ctx, b.nextName(), latest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	_, err = b.commit(ctx, db, nil, nodeRate, 40)
	return err
}
