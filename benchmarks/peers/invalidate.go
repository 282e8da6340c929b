package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/publisher"
)

const (
	writeRate = 1000 // a second
	// writtenKeys are overwritten in turn, so that a key has time to be cached again.
	writtenKeys = 1000
	invalidBar  = 10 * time.Millisecond
	mostNodes   = 16
	// firstCounted leaves out the second in which connections are made and scripts
	// loaded: a stall of 100 ms there is 2% of the writes of five seconds.
	firstCounted = writeRate
)

// arrivals are the times that writes took to the nodes, of all nodes together.
type arrivals struct {
	due   []atomic.Int64 // when a write's turn was, by its number; nanoseconds since began
	began time.Time
	took  []time.Duration
	n     atomic.Int64
}

func newArrivals(writes, nodes int) *arrivals {
	return &arrivals{due: make([]atomic.Int64, firstCounted+writes), began: time.Now(), took: make([]time.Duration, writes*nodes)}
}

func (a *arrivals) heard(write int) {
	if write < firstCounted {
		return
	}
	if i := a.n.Add(1) - 1; int(i) < len(a.took) {
		a.took[i] = time.Since(a.began) - time.Duration(a.due[write].Load())
	}
}

// settle waits for the last ones, and gives those that came.
func (a *arrivals) settle(ctx context.Context) []time.Duration {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && int(a.n.Load()) < len(a.took) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
	}
	return a.took[:min(int(a.n.Load()), len(a.took))]
}

// write gives numbers at writeRate to send, all that are due at a time, as a daemon
// does: what comes while one flush is under way is the next.
func (a *arrivals) write(ctx context.Context, send func(writes []int) error) error {
	due := make(chan int, len(a.due))
	go func() {
		defer close(due)
		pace(ctx, writeRate, len(a.due), func(i int, at time.Time) {
			a.due[i].Store(int64(at.Sub(a.began)))
			due <- i
		})
	}()
	for i := range due {
		batch := []int{i}
		for more := true; more; {
			select {
			case i, open := <-due:
				if more = open; open {
					batch = append(batch, i)
				}
			default:
				more = false
			}
		}
		if err := send(batch); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// invalidate measures the time from a write's turn until a node serves nothing
// older: its floor is raised, or the client library has dropped its copy, or (pub/sub)
// the message is there.
func (b *bench) invalidate(ctx context.Context) error {
	fmt.Printf("    %d writes a second; of all nodes together, ms\n", writeRate)
	for _, way := range []struct {
		name    string
		measure func(context.Context, int, *arrivals) error
		ours    bool
	}{
		{"Rowtide, Apache Kafka", b.overKafka(b.kafka), true},
		{"Rowtide, in-process Kafka", b.overKafka(b.fake), false},
		{"rueidis client-side caching", b.overTracking, false},
		{"Redis pub/sub", b.overPubSub, false},
	} {
		if strings.HasSuffix(way.name, "in-process Kafka") && b.fake == "" {
			continue
		}
		if way.ours { // the broker's JVM compiles its hot paths in its first requests
			if err := way.measure(ctx, 1, newArrivals(10*writeRate, 1)); err != nil {
				return err
			}
		}
		for _, nodes := range []int{1, 4, mostNodes} {
			var p99s []float64
			for range b.runs {
				a := newArrivals(b.seconds*writeRate, nodes)
				if err := way.measure(ctx, nodes, a); err != nil {
					return fmt.Errorf("%s, %d nodes: %w", way.name, nodes, err)
				}
				d := a.settle(ctx)
				fmt.Printf("    %-28s %2d nodes: p50 %s p99 %s p99.9 %s, %d of %d heard\n", way.name, nodes,
					ms(rank(d, 500)), ms(rank(d, 990)), ms(rank(d, 999)), len(d), len(a.took))
				p99s = append(p99s, float64(rank(d, 990)))
			}
			if way.ours && nodes == mostNodes {
				m := time.Duration(median(p99s))
				bar(m <= invalidBar, "p99 with %d nodes at most %s ms, has %s", mostNodes, ms(invalidBar), ms(m))
			}
		}
	}
	return nil
}

// listener is a node's observer.
type listener struct {
	localsync.NopObserver
	a     *arrivals
	known []atomic.Bool // by number of the write
}

func (l *listener) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) { l.hear(inv.Version) }
func (l *listener) Hinted(inv rowtide.Invalidation)                    { l.hear(inv.Version) }

// hear counts a write once, whichever way it came first.
func (l *listener) hear(v rowtide.Version) {
	if n := int(v) - 2; !l.known[n].Swap(true) { //nolint:gosec // it was made from an int, some ten thousand at most
		l.a.heard(n)
	}
}

// overKafka writes as the daemon's publisher does.
func (b *bench) overKafka(brokers string) func(context.Context, int, *arrivals) error {
	return func(ctx context.Context, nodes int, a *arrivals) (err error) {
		p, err := b.publish(ctx, strings.Split(brokers, ","))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		for range nodes {
			node, err := localsync.Open(ctx, localsync.Options{
				Redis: b.rdb, Brokers: p.cfg.Brokers, Topic: p.cfg.Topic, Prefix: p.prefix, MaxBytes: 4 << 20,
				Observer: &listener{a: a, known: make([]atomic.Bool, len(a.due))}, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				return err
			}
			defer func() { _ = node.Close(ctx) }()
			<-node.Ready()
		}
		a.began = time.Now()
		if err := a.write(ctx, func(writes []int) error {
			entries := make([]rowtide.Entry, len(writes))
			for i, w := range writes {
				entries[i] = p.entry(w%writtenKeys, rowtide.Version(w+2))
			}
			return p.send(ctx, entries)
		}); err != nil {
			return err
		}
		a.settle(ctx)
		return nil
	}
}

// publishing is the daemon's way out: what Redis has taken is announced while it
// takes the next, in broadcasts that begin at least broadcastEvery apart.
type publishing struct {
	*publisher.Publisher
	cfg    publisher.Config
	prefix string
	taken  chan []rowtide.Entry
	close  func() error
}

// broadcastEvery is the daemon's default (aggregator.broadcast_every).
const broadcastEvery = 2 * time.Millisecond

func (b *bench) publish(ctx context.Context, brokers []string) (*publishing, error) {
	prefix := fmt.Sprintf("inv%x", rand.Uint32())
	cfg := publisher.Config{Brokers: brokers, Topic: prefix + ".invalidations"}.WithDefaults()
	client, err := sarama.NewClient(brokers, publisher.ProducerConfig())
	if err != nil {
		return nil, err
	}
	if _, err := publisher.EnsureTopic(client, cfg); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	k, err := publisher.NewKafka(cfg, client, quiet, publisher.NopObserver{})
	if err != nil {
		return nil, err
	}
	h := publisher.NewHints(b.rdb, prefix, quiet)
	p := &publishing{
		Publisher: publisher.New(publisher.NewRedis(b.rdb, prefix, quiet, publisher.NopObserver{}, publisher.WithHints(h)), k),
		cfg:       cfg, prefix: prefix, taken: make(chan []rowtide.Entry, 1000),
	}
	ctx, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	var failed error
	g.Go(func() { _ = k.Run(ctx) })
	g.Go(func() { _ = h.Run(ctx) })
	g.Go(func() { failed = p.announce(ctx) })
	p.close = func() error {
		close(p.taken)
		stop()
		g.Wait()
		return errors.Join(failed, client.Close())
	}
	return p, nil
}

func (p *publishing) announce(ctx context.Context) error {
	for entries := range p.taken {
		for more := true; more; {
			select {
			case next, open := <-p.taken:
				entries, more = append(entries, next...), open
			default:
				more = false
			}
		}
		began := time.Now()
		entries = newest(entries)
		if err := p.Broadcast(ctx, entries, entries[len(entries)-1].Version, began); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // it was told to stop
			}
			return err
		}
		time.Sleep(broadcastEvery - time.Since(began))
	}
	return nil
}

func (p *publishing) entry(key int, v rowtide.Version) rowtide.Entry {
	return rowtide.Entry{Key: rowtide.Key{Module: "event", Version: 1, ID: strconv.Itoa(key)}, Version: v, BuiltAt: time.Now(), TTL: time.Hour, Payload: make([]byte, 150)}
}

// send is one flush.
func (p *publishing) send(ctx context.Context, entries []rowtide.Entry) error {
	entries = newest(entries)
	if err := p.Overwrite(ctx, entries); err != nil {
		return err
	}
	p.taken <- entries
	return nil
}

// newest leaves one entry a key, the last.
func newest(entries []rowtide.Entry) []rowtide.Entry {
	last := make(map[rowtide.Key]int, len(entries))
	for i, e := range entries {
		last[e.Key] = i
	}
	out := make([]rowtide.Entry, 0, len(last))
	for i, e := range entries {
		if last[e.Key] == i {
			out = append(out, e)
		}
	}
	return out
}

// overTracking has clients that cache every key, and cache it again when Redis has
// told them that it changed.
func (b *bench) overTracking(ctx context.Context, nodes int, a *arrivals) error {
	prefix := fmt.Sprintf("csc%x:", rand.Uint32())
	key := func(w int) string { return prefix + strconv.Itoa(w%writtenKeys) }
	var last [writtenKeys]atomic.Int64 // number of each key's last write, and 1
	for i := range writtenKeys {
		if err := b.rdb.Set(ctx, key(i), "x", time.Hour).Err(); err != nil {
			return err
		}
	}
	for range nodes {
		dropped := make(chan string, 100*writtenKeys)
		c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{b.redis}, OnInvalidations: func(ms []rueidis.RedisMessage) {
			for _, m := range ms {
				k, _ := m.ToString()
				if id, err := strconv.Atoi(strings.TrimPrefix(k, prefix)); err == nil && last[id].Load() > 0 {
					a.heard(int(last[id].Load()) - 1)
					dropped <- k
				}
			}
		}})
		if err != nil {
			return err
		}
		again := make(chan struct{})
		go func() {
			defer close(again)
			for k := range dropped {
				c.DoCache(ctx, c.B().Get().Key(k).Cache(), time.Hour)
			}
		}()
		defer func() {
			c.Close()
			close(dropped)
			<-again
		}()
		for i := range writtenKeys {
			_ = c.DoCache(ctx, c.B().Get().Key(key(i)).Cache(), time.Hour).Error() // nil is cached too
		}
	}
	a.began = time.Now()
	if err := a.write(ctx, func(writes []int) error {
		_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, w := range writes {
				last[w%writtenKeys].Store(int64(w) + 1)
				p.Set(ctx, key(w), make([]byte, 150), time.Hour)
			}
			return nil
		})
		return err
	}); err != nil {
		return err
	}
	a.settle(ctx)
	return nil
}

// overPubSub has one message a write.
func (b *bench) overPubSub(ctx context.Context, nodes int, a *arrivals) error {
	channel := fmt.Sprintf("pub%x", rand.Uint32())
	for range nodes {
		end, err := b.subscribe(ctx, channel, func(message string) {
			w, _ := strconv.Atoi(message)
			a.heard(w)
		})
		if err != nil {
			return err
		}
		defer end()
	}
	a.began = time.Now()
	if err := a.write(ctx, func(writes []int) error {
		_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, w := range writes {
				p.Set(ctx, fmt.Sprint(channel, ":", w%writtenKeys), make([]byte, 150), time.Hour)
				p.Publish(ctx, channel, w)
			}
			return nil
		})
		return err
	}); err != nil {
		return err
	}
	a.settle(ctx)
	return nil
}

// subscribe hears a channel until end is called.
func (b *bench) subscribe(ctx context.Context, channel string, hear func(message string)) (end func(), err error) {
	sub := b.rdb.Subscribe(ctx, channel)
	if _, err := sub.Receive(ctx); err != nil {
		return nil, err
	}
	messages := sub.Channel(redis.WithChannelSize(100 * writtenKeys))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m := range messages {
			hear(m.Payload)
		}
	}()
	return func() {
		_ = sub.Close()
		<-done
	}, nil
}
