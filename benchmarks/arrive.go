package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
)

const (
	// arriveBar is what the project asks of the 99th percentile at arriveBarRate.
	arriveBar     = 5 * time.Millisecond
	arriveBarRate = 1000
	// sampleFrom is the rate from which only one key in ten is listened to: the
	// listener has to share the cores with what it listens to.
	sampleFrom = 10_000
	// warmSeconds of load precede each run, for a daemon's own connections and heap.
	warmSeconds = 2
)

// observer hears of a daemon's changes from outside of it.
type observer struct {
	place string
	// listen tells a of what arrives until stop is called; from its return on
	// nothing is missed.
	listen func(ctx context.Context, b *bench, daemon string, a *arrivals) (stop func() error, err error)
}

var (
	atRedis = observer{"Redis", listenRedis}
	atKafka = observer{"Kafka", listenKafka}
)

// arrive measures commit -> o at one rate.
func (b *bench) arrive(ctx context.Context, db *sql.DB, o observer, rate int) error {
	var t tail
	for range b.runs {
		a, achieved, err := b.arriveOnce(ctx, db, o, rate)
		if err != nil {
			return fmt.Errorf("commit to %s at %d/s: %w", o.place, rate, err)
		}
		t.add(achieved, a)
	}
	t.print(o.place, rate)
	if rate == arriveBarRate {
		bar(t.p99.median() <= msOf(arriveBar), "commit -> %s p99 at most %.0f ms at %d/s", o.place, msOf(arriveBar), rate)
	}
	return nil
}

// tail is what some runs came to, in milliseconds.
type tail struct {
	p50, p99, p999, achieved figures
	late, n                  int
}

// add takes in a run's arrivals, those of all listeners together.
func (t *tail) add(achieved float64, all ...*arrivals) {
	var d []time.Duration
	for _, a := range all {
		d, t.late = append(d, a.d...), t.late+a.late
	}
	slices.Sort(d)
	t.p50, t.p99, t.p999 = append(t.p50, msOf(rank(d, 50))), append(t.p99, msOf(rank(d, 99))), append(t.p999, msOf(rankMille(d, 999)))
	t.achieved, t.n = append(t.achieved, achieved), t.n+len(d)
}

func (t *tail) print(place string, rate int) {
	fmt.Printf("  commit -> %s at %d/s (achieved %.0f/s): p50 %s p99 %s p99.9 %s ms, %d times heard\n",
		place, rate, t.achieved.median(), t.p50.fine(), t.p99.fine(), t.p999.fine(), t.n)
	if t.late > 0 {
		fmt.Printf("    %d of them count with less than they took: their row changed again before\n", t.late)
	}
}

func msOf(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func (b *bench) arriveOnce(ctx context.Context, db *sql.DB, o observer, rate int) (a *arrivals, achieved float64, err error) {
	name := b.nextName()
	d, err := b.startDaemon(ctx, name, latest)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	a = newArrivals()
	if rate >= sampleFrom {
		a.suffix = "0"
	}
	stop, err := o.listen(ctx, b, name, a)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	achieved, err = b.commits(ctx, db, audience{a}, rate, warmSeconds, b.seconds)
	return a, achieved, err
}

// listenRedis has Redis say which keys are SET. It costs Redis one short message
// a key, and the daemon nothing; polling would cost both.
func listenRedis(ctx context.Context, b *bench, daemon string, a *arrivals) (func() error, error) {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	const setting = "notify-keyspace-events"
	if err := rdb.ConfigSet(ctx, setting, "K$").Err(); err != nil {
		return nil, err
	}
	channel := "__keyspace@0__:" + rowtide.Key{Module: "item", Version: 1}.Redis(daemon)
	ps := rdb.PSubscribe(ctx, channel+"*"+a.suffix)
	if _, err := ps.Receive(ctx); err != nil { // the subscription's own answer
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			m, err := ps.ReceiveMessage(ctx)
			if err != nil {
				return // closed; a broken connection shows as commits that are not heard of
			}
			a.hear(strings.TrimPrefix(m.Channel, channel))
		}
	})
	return func() error {
		err := ps.Close()
		wg.Wait()
		return errors.Join(err, rdb.ConfigSet(ctx, setting, "").Err(), rdb.Close())
	}, nil
}

// listenKafka consumes the daemon's topic like a node, and decodes its records.
func listenKafka(_ context.Context, b *bench, daemon string, a *arrivals) (func() error, error) {
	cfg := sarama.NewConfig()
	cfg.Metadata.AllowAutoTopicCreation = false
	consumer, err := sarama.NewConsumer(b.brokers, cfg)
	if err != nil {
		return nil, err
	}
	var readers []sarama.PartitionConsumer
	var wg sync.WaitGroup
	stop := func() error {
		var errs []error
		for _, pc := range readers {
			errs = append(errs, pc.Close())
		}
		wg.Wait()
		return errors.Join(append(errs, consumer.Close())...)
	}
	topic := daemon + ".invalidations"
	partitions, err := consumer.Partitions(topic)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	for _, p := range partitions {
		pc, err := consumer.ConsumePartition(topic, p, sarama.OffsetNewest)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		readers = append(readers, pc)
		wg.Go(func() {
			for m := range pc.Messages() {
				batch, err := rowtide.DecodeBatch(m.Value)
				if err != nil {
					continue // shows as commits that are not heard of
				}
				for _, item := range batch.Items {
					if strings.HasSuffix(item.Key.ID, a.suffix) {
						a.hear(item.Key.ID)
					}
				}
			}
		})
	}
	return stop, nil
}
