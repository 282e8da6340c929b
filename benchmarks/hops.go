package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/publisher"
)

const (
	// gcPercent is the daemon's own: its hops are measured under it too.
	gcPercent = 300
	// foldAtOnce transactions wait while the reading stands still: some megabytes,
	// as in the daemon.
	foldAtOnce = 4096
	// entriesPerBroadcast is near what a daemon under full load announces at once.
	entriesPerBroadcast = 2000
)

// usage is CPU seconds, by who used them.
type usage struct{ client, sql, redis, kafka float64 }

// usage of the servers and of the client with the process id; 0 is this process.
func (b *bench) usage(client int) usage {
	u := usage{sql: cpuSeconds(b.sql.Pid()), redis: cpuSeconds(b.redis.Pid())}
	if b.kafka != nil {
		u.kafka = cpuSeconds(b.kafka.Pid())
	}
	if client != 0 {
		u.client = cpuSeconds(client)
	} else {
		u.client = ownCPU()
	}
	return u
}

func (u usage) since(v usage) usage {
	return usage{u.client - v.client, u.sql - v.sql, u.redis - v.redis, u.kafka - v.kafka}
}

func (u usage) plus(v usage) usage {
	return usage{u.client + v.client, u.sql + v.sql, u.redis + v.redis, u.kafka + v.kafka}
}

func (u usage) times(f float64) usage {
	return usage{u.client * f, u.sql * f, u.redis * f, u.kafka * f}
}

func (u usage) total() float64 { return u.client + u.sql + u.redis + u.kafka }

func ownCPU() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

// hops measures what each hop of the way costs by itself, and the whole.
func (b *bench) hops(ctx context.Context) error {
	if err := b.write(ctx, singleRows); err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	n := float64(b.changes())
	if _, err := b.rowtide(ctx); err != nil { // so that the broker's JVM is warm
		return err
	}
	calls, err := b.scriptCalls(ctx)
	if err != nil {
		return err
	}
	rate := 0.0
	var decode, read, fold, script, produce, whole usage
	for _, h := range []struct {
		used *usage
		run  func() (usage, error)
	}{
		{&decode, func() (usage, error) { return b.cost(func() error { _, err := b.decodeOnly(ctx); return err }) }},
		{&read, func() (usage, error) { return b.cost(func() error { return b.follow(ctx, skip{}) }) }},
		{&fold, func() (usage, error) { return b.foldCost(ctx) }},
		{&script, func() (usage, error) { _, used, err := b.bareLoop(ctx, calls); return used, err }},
		{&produce, func() (usage, error) { return b.produceCost(ctx) }},
		{&whole, func() (usage, error) {
			r, err := b.rowtide(ctx)
			rate += r.rate / float64(b.runs)
			return r.used.times(n), err
		}},
	} {
		for range b.runs {
			debug.FreeOSMemory() // the garbage of the run before is not this one's
			used, err := h.run()
			if err != nil {
				return err
			}
			*h.used = h.used.plus(used.times(1 / (n * float64(b.runs))))
		}
	}
	// An idle broker's own pastime, for one, is no part of decoding.
	decode = usage{client: decode.client, sql: decode.sql}
	assemble := usage{client: read.client - decode.client}
	script = usage{client: script.client, redis: script.redis}
	produce = usage{client: produce.client, kafka: produce.kafka}
	sum := decode.plus(assemble).plus(fold).plus(script).plus(produce)
	fmt.Printf("  %-38s  %8s %8s %8s %8s %8s\n", "CPU, us a row change", "daemon", "source", "Redis", "Kafka", "all")
	row("decode (go-mysql alone)", decode)
	row("assemble transactions", assemble)
	row("fold and render", fold)
	row("Redis, 50 keys a script call", script)
	row("Kafka, 2,000 keys a broadcast", produce)
	row("sum of the hops", sum)
	row("the whole, measured", whole)
	fmt.Printf("  whole %.2f of the sum for the daemon, %.2f for all; %.0f transactions/s with %.0f%% of the cores\n",
		whole.client/sum.client, whole.total()/sum.total(), rate, rate*whole.total()*100/float64(runtime.NumCPU()))
	return nil
}

func row(name string, u usage) {
	fmt.Printf("  %-38s  %8.2f %8.2f %8.2f %8.2f %8.2f\n", name, u.client*1e6, u.sql*1e6, u.redis*1e6, u.kafka*1e6, u.total()*1e6)
}

// cost is what fn used.
func (b *bench) cost(fn func() error) (usage, error) {
	before := b.usage(0)
	err := fn()
	return b.usage(0).since(before), err
}

// skip takes transactions and drops them.
type skip struct{}

// HandleTx implements binlog.Handler.
func (skip) HandleTx(context.Context, *rowtide.Tx) error { return nil }

// follow lets h have all transactions of the log, as the daemon's source makes
// them.
func (b *bench) follow(ctx context.Context, h binlog.Handler) (err error) {
	head, err := b.head(ctx)
	if err != nil {
		return err
	}
	end, err := rowtide.ParsePosition(head)
	if err != nil {
		return err
	}
	cfg := binlog.Config{Addr: b.sql.Addr, User: "root", ServerID: 4714}.WithDefaults()
	src := binlog.New(cfg, []string{"bench.item"}, slog.New(slog.DiscardHandler), binlog.NopObserver{})
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := src.Preflight(ctx, nil, nil); err != nil {
		return err
	}
	b.daemons++
	store := binlog.NewFileStore(filepath.Join(filepath.Dir(b.bin), fmt.Sprintf("hop%d.json", b.daemons)))
	if _, err := src.Resume(ctx, store); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	u := &until{Handler: h, head: end, stop: cancel}
	if err := src.Run(ctx, u); err != nil {
		return err
	}
	if !u.there {
		return errors.New("the source did not come to the end of its log")
	}
	return nil
}

// until ends the reading at the log's end.
type until struct {
	binlog.Handler
	head  rowtide.Position
	there bool
	stop  func()
}

// HandleTx implements binlog.Handler.
func (u *until) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	if u.there {
		return nil
	}
	err := u.Handler.HandleTx(ctx, tx)
	if tx.Position.File == u.head.File && tx.Position.Pos == u.head.Pos {
		u.there = true
		u.stop()
	}
	return err
}

// aggregate runs an aggregator like the daemon's between feed and c.
func aggregate(ctx context.Context, c *collector, feed func(*aggregator.Aggregator) error) error {
	modules, err := aggregator.Compile([]aggregator.ModuleConfig{aggregator.ModuleConfig{
		Name: "item", Key: "{id}",
		From: &aggregator.FromConfig{Table: "bench.item", Columns: []string{"id", "name", "price", "state", "updated_at"}},
	}.WithDefaults()})
	if err != nil {
		return err
	}
	c.moved = make(chan struct{}, 1)
	out := aggregator.Outside{Sink: c, Checkpoint: c}
	agg := aggregator.New(aggregator.Config{BroadcastEvery: -1}.WithDefaults(), modules, out, slog.New(slog.DiscardHandler), aggregator.NopObserver{})
	done := make(chan error, 1)
	go func() { done <- agg.Run(context.WithoutCancel(ctx)) }()
	err = feed(agg)
	agg.CloseIntake()
	return errors.Join(err, <-done)
}

// entries are what the daemon would write for the log.
func (b *bench) entries(ctx context.Context) ([]rowtide.Entry, error) {
	c := &collector{keep: true}
	err := aggregate(ctx, c, func(a *aggregator.Aggregator) error { return b.follow(ctx, a) })
	return c.entries, err
}

// foldCost is what folding and rendering the whole log cost: the source stands
// still whenever the aggregator works.
func (b *bench) foldCost(ctx context.Context) (usage, error) {
	f := &folder{sink: &collector{}}
	err := aggregate(ctx, f.sink, func(a *aggregator.Aggregator) error {
		f.agg = a
		if err := b.follow(ctx, f); err != nil {
			return err
		}
		return f.fold(ctx) // what was left over
	})
	return usage{client: f.used}, err
}

// folder hands transactions on in groups, and counts what that costs.
type folder struct {
	agg  *aggregator.Aggregator
	sink *collector
	txs  []rowtide.Tx
	used float64
}

// HandleTx implements binlog.Handler.
func (f *folder) HandleTx(ctx context.Context, tx *rowtide.Tx) error {
	kept := *tx
	kept.Changes = slices.Clone(tx.Changes)
	if f.txs = append(f.txs, kept); len(f.txs) < foldAtOnce {
		return nil
	}
	return f.fold(ctx)
}

func (f *folder) fold(ctx context.Context) error {
	if len(f.txs) == 0 {
		return nil
	}
	before := ownCPU()
	for i := range f.txs {
		if err := f.agg.HandleTx(ctx, &f.txs[i]); err != nil {
			return err
		}
	}
	err := f.sink.await(ctx, f.txs[len(f.txs)-1].Version)
	f.used += ownCPU() - before
	clear(f.txs)
	f.txs = f.txs[:0]
	return err
}

// produceCost announces the log's entries, as the daemon does.
func (b *bench) produceCost(ctx context.Context) (used usage, err error) {
	entries, err := b.entries(ctx)
	if err != nil {
		return used, err
	}
	cfg := publisher.Config{Brokers: b.brokers, Topic: b.nextName() + ".invalidations"}.WithDefaults()
	client, err := sarama.NewClient(b.brokers, publisher.ProducerConfig())
	if err != nil {
		return used, err
	}
	defer func() { _ = client.Close() }()
	if _, err := publisher.EnsureTopic(client, cfg); err != nil {
		return used, err
	}
	k, err := publisher.NewKafka(cfg, client, slog.New(slog.DiscardHandler), publisher.NopObserver{})
	if err != nil {
		return used, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return b.cost(func() error {
		for part := range slices.Chunk(entries, entriesPerBroadcast) {
			if err := k.Broadcast(ctx, part, part[len(part)-1].Version, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}
