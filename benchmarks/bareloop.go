package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// The bare loop has the daemon's own shape: so many keys a script call, so many
// calls a round trip, so many goroutines.
const (
	keysPerCall      = 50
	callsPerPipeline = 20
	loops            = 2
)

// scriptCall is the keys and arguments of one call of the script.
type scriptCall struct {
	keys []string
	args []any
}

// scriptCalls are the calls that write what the daemon would for the log, in its
// order, made beforehand.
func (b *bench) scriptCalls(ctx context.Context) ([]scriptCall, error) {
	entries, err := b.entries(ctx)
	if err != nil {
		return nil, err
	}
	var calls []scriptCall
	for part := range slices.Chunk(entries, keysPerCall) {
		c := scriptCall{args: []any{string(overwrite.CDC)}}
		for i := range part {
			c.keys = append(c.keys, part[i].Key.Redis("bare"))
			c.args = append(c.args, part[i].AppendEnvelope(nil), part[i].TTL.Milliseconds())
		}
		calls = append(calls, c)
	}
	return calls, nil
}

// emptyRedis returns when the memory of all keys is free, so that nobody else pays
// for it.
func (b *bench) emptyRedis(ctx context.Context) error {
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr, ReadTimeout: awaitLimit})
	defer func() { _ = rdb.Close() }()
	return rdb.FlushAll(ctx).Err()
}

// bareLoop writes the calls to an empty Redis with nothing before or behind it,
// and returns keys per second and what they cost.
func (b *bench) bareLoop(ctx context.Context, calls []scriptCall) (rate float64, used usage, err error) {
	if err := b.emptyRedis(ctx); err != nil {
		return 0, used, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr})
	defer func() { _ = rdb.Close() }()
	sha, err := rdb.ScriptLoad(ctx, overwrite.Script).Result()
	if err != nil {
		return 0, used, err
	}
	before := b.usage(0)
	g, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for part := range slices.Chunk(calls, (len(calls)+loops-1)/loops) {
		g.Go(func() error {
			for some := range slices.Chunk(part, callsPerPipeline) {
				pipe := rdb.Pipeline()
				for _, c := range some {
					pipe.EvalSha(ctx, sha, c.keys, c.args...)
				}
				if _, err := pipe.Exec(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(keysOf(calls)) / time.Since(began).Seconds(), b.usage(0).since(before), err
}

func keysOf(calls []scriptCall) int {
	n := 0
	for _, c := range calls {
		n += len(c.keys)
	}
	return n
}

// collector is a sink that writes nothing; with keep it remembers every entry.
type collector struct {
	keep bool

	mu        sync.Mutex
	entries   []rowtide.Entry
	watermark rowtide.Version
	moved     chan struct{} // holds a token after each broadcast
}

// Overwrite implements aggregator.Sink.
func (c *collector) Overwrite(_ context.Context, entries []rowtide.Entry) error {
	if !c.keep {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		// The aggregator uses its memory again.
		e.Key.ID, e.Payload = strings.Clone(e.Key.ID), bytes.Clone(e.Payload)
		c.entries = append(c.entries, e)
	}
	return nil
}

// Broadcast implements aggregator.Sink.
func (c *collector) Broadcast(_ context.Context, _ []rowtide.Entry, watermark rowtide.Version, _ time.Time) error {
	c.mu.Lock()
	c.watermark = watermark
	c.mu.Unlock()
	select {
	case c.moved <- struct{}{}:
	default:
	}
	return nil
}

// await returns when everything up to v has been broadcast.
func (c *collector) await(ctx context.Context, v rowtide.Version) error {
	for {
		c.mu.Lock()
		done := c.watermark >= v
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-c.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Save implements aggregator.Checkpointer.
func (c *collector) Save(context.Context, rowtide.Position, []string) error { return nil }
