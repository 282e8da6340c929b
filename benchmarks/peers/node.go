package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// document is the typed value; size is its body's.
type document struct {
	ID   int64  `json:"id"`
	Body string `json:"body"`
}

// beats is a bus on which nothing happens but heartbeats. A benchmark with a clock
// of its own calls beat itself.
type beats struct {
	manual bool

	mu   sync.Mutex
	sink localsync.Sink
	on   chan struct{}
}

const beatPartitions = 12

func newBeats(manual bool) *beats { return &beats{manual: manual, on: make(chan struct{})} }

func (b *beats) Open(context.Context) (int32, error) { return beatPartitions, nil }

func (b *beats) Run(ctx context.Context, sink localsync.Sink) error {
	b.mu.Lock()
	b.sink = sink
	b.mu.Unlock()
	close(b.on)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if !b.manual {
			b.beat(time.Now())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *beats) Close() error { return nil }

func (b *beats) beat(at time.Time) {
	r := rowtide.Batch{Producer: 1, Watermark: 1, SentAt: at}
	bytes := r.AppendBatch(nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range int32(beatPartitions) {
		b.sink.Record(p, bytes)
	}
}

// open opens a node of a prefix that nobody else uses.
func (b *bench) open(ctx context.Context, edit func(*localsync.Options)) (*localsync.Cache, error) {
	opt := localsync.Options{
		Redis: b.rdb, Bus: newBeats(false), Prefix: fmt.Sprintf("p%x", rand.Uint32()), MaxBytes: 512 << 20,
		ReplicaLag: time.Millisecond, ReportEvery: -1, Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&opt)
	}
	c, err := localsync.Open(ctx, opt)
	if err != nil {
		return nil, err
	}
	<-c.Ready()
	if bus, ok := opt.Bus.(*beats); ok {
		<-bus.on
		if !bus.manual { // a loaded value is to have a version: two beats, and the lag between them
			time.Sleep(500 * time.Millisecond)
		}
	}
	return c, nil
}

// fill reads all keys, so that they are local; twice, so that objects are decoded.
func fill[K comparable, V any](ctx context.Context, m *localsync.Module[K, V], keys []K) error {
	for range 2 {
		for some := range slices.Chunk(keys, 100) {
			if got, err := m.GetMany(ctx, some); err != nil || len(got) != len(some) {
				return fmt.Errorf("fill: %d of %d keys: %w", len(got), len(some), err)
			}
		}
	}
	return nil
}

// constant is a loader that has one value for all.
func constant[K comparable, V any](v V) func(context.Context, []K) (map[K]V, error) {
	return func(_ context.Context, ks []K) (map[K]V, error) {
		out := make(map[K]V, len(ks))
		for _, k := range ks {
			out[k] = v
		}
		return out, nil
	}
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("item-%06d", i)
	}
	return out
}
