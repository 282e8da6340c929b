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

const (
	// nodeRate is the rate of commits that commit -> node is measured at.
	nodeRate = 1000
	// nodeBar is what the project asks of the 99th percentile with the largest crowd,
	// on two cores with Apache Kafka.
	nodeBar = 10 * time.Millisecond
	// joinSeconds of load follow the joining of nodes and do not count: connections
	// are made and scripts loaded.
	joinSeconds = 1
	// nodeShare of -seconds is each crowd's turn: there are six in a run, three with
	// each broker.
	nodeShare = 3
)

// crowds are the numbers of nodes that hear of the same commits.
var crowds = []int{1, 4, 16}

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
	if err := b.toNodes(ctx, db); err != nil || b.kafka == nil {
		return err
	}
	// A JVM on the same two cores is a good part of the tail; this shows the rest.
	fmt.Println("  the same with an in-process Kafka broker:")
	apache := b.bus
	defer func() { b.bus = apache }()
	if err := b.startFakeKafka(); err != nil {
		return err
	}
	return b.toNodes(ctx, db)
}

// toNodes measures commit -> node at a fixed rate of commits, from the moment
// COMMIT returned to the moment a localsync node had raised the key's floor, for all
// nodes together; and each hop of the way by itself, in the same run.
func (b *bench) toNodes(ctx context.Context, db *sql.DB) error {
	hops, err := b.latencyHops(ctx, db)
	if err != nil {
		return err
	}
	tails := make([]tail, len(crowds))
	for range b.runs {
		if err := b.commitToNodes(ctx, db, tails); err != nil {
			return fmt.Errorf("commit to nodes: %w", err)
		}
	}
	for i, n := range crowds {
		place := fmt.Sprintf("each of %d nodes", n)
		if n == 1 {
			place = "node"
		}
		tails[i].print(place, nodeRate)
	}
	if has := tails[len(tails)-1].p99.median(); b.kafka != nil {
		bar(has <= msOf(nodeBar), "commit -> node p99 at most %.0f ms with %d nodes at %d/s, has %.2f", msOf(nodeBar), crowds[len(crowds)-1], nodeRate, has)
	}
	var sum50, sum99 time.Duration
	for _, h := range hops {
		fmt.Printf("  hop alone: %-34s p50 %s p99 %s\n", h.name, ms(rank(h.d, 50)), ms(rank(h.d, 99)))
		sum50, sum99 = sum50+rank(h.d, 50), sum99+rank(h.d, 99)
	}
	one := tails[0]
	fmt.Printf("  hops' sum p50 %s p99 %s; commit -> one node is p50 %.2f p99 %.2f of it\n",
		ms(sum50), ms(sum99), one.p50.median()/msOf(sum50), one.p99.median()/msOf(sum99))
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

// commitToNodes runs a daemon beside the commits, which more and more nodes of this
// process join, and adds to the tail of each crowd.
func (b *bench) commitToNodes(ctx context.Context, db *sql.DB, tails []tail) (err error) {
	name := b.nextName()
	d, err := b.startDaemon(ctx, name, latest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	var all audience
	for i, n := range crowds {
		for len(all) < n {
			a := newArrivals()
			leave, err := b.join(ctx, name, a)
			if err != nil {
				return err
			}
			defer leave()
			all = append(all, a)
		}
		achieved, err := b.commits(ctx, db, all, nodeRate, joinSeconds, max(1, b.seconds/nodeShare))
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		tails[i].add(achieved, all...)
	}
	return nil
}

// join opens a node as a web process has it, with a Redis client, a consumer and a
// subscription of its own.
func (b *bench) join(ctx context.Context, daemon string, a *arrivals) (leave func(), err error) {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	node, err := localsync.Open(ctx, localsync.Options{
		Redis: rdb, Brokers: b.brokers, Topic: daemon + ".invalidations", Prefix: daemon, MaxBytes: 4 << 20, Observer: a,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	leave = func() {
		_ = node.Close(ctx) // a benchmark's node
		_ = rdb.Close()
	}
	select {
	case <-node.Ready():
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
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
