package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/allegro/bigcache/v3"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const (
	refreshedKeys = 10_000
	dayRounds     = 24 * 60 // one refresh of every key a minute
	naiveRounds   = 60      // what bigcache is given: a day of it would not fit
	coldKeys      = 40_000
	hotRefreshed  = 500
	coldRounds    = 120
	tightBytes    = 64 << 20
	memoryBar     = 1.5
)

// memory measures what refreshes cost: a day of a refresh a minute of values that do
// not change, and what refreshes of a few keys do to all the others.
func (b *bench) memory(ctx context.Context) error {
	value := make([]byte, 1000)
	keys := names(coldKeys)
	n, err := b.refreshed(ctx, value, keys[:refreshedKeys], 256<<20)
	if err != nil {
		return err
	}
	defer n.close(ctx)
	for range dayRounds {
		if err := n.refresh(ctx, keys[:refreshedKeys]); err != nil {
			return err
		}
	}
	s := n.node.Stats()
	ratio := float64(s.Store.Bytes) / float64(s.Store.Live)
	fmt.Printf("    Rowtide, %d keys of 1 KB, %d rounds: %d MB for %d MB live, %d refreshes\n", refreshedKeys, dayRounds,
		s.Store.Bytes>>20, s.Store.Live>>20, s.Modules[0].Refreshes)
	naive, err := naiveCache(ctx, 0)
	if err != nil {
		return err
	}
	for range naiveRounds {
		for _, k := range keys[:refreshedKeys] {
			if err := naive.Set(k, value); err != nil {
				return err
			}
		}
	}
	fmt.Printf("    bigcache, set again at each refresh, %d rounds: %d MB\n", naiveRounds, naive.Capacity()>>20)
	if err := naive.Close(); err != nil {
		return err
	}
	bar(ratio <= memoryBar, "memory after a day of refreshes at most %.1f of what is live, has %.2f", memoryBar, ratio)
	return b.cold(ctx, value, keys)
}

// cold refreshes a few keys in a store that has room for all, and counts the others.
func (b *bench) cold(ctx context.Context, value []byte, keys []string) error {
	n, err := b.refreshed(ctx, value, keys, tightBytes)
	if err != nil {
		return err
	}
	defer n.close(ctx)
	for range coldRounds {
		if err := n.refresh(ctx, keys[:hotRefreshed]); err != nil {
			return err
		}
	}
	lost := 0
	for _, k := range keys[hotRefreshed:] {
		if _, ok := n.node.Peek(n.m.Key(k)); !ok {
			lost++
		}
	}
	naive, err := naiveCache(ctx, tightBytes>>20)
	if err != nil {
		return err
	}
	defer func() { _ = naive.Close() }()
	for _, k := range keys {
		if err := naive.Set(k, value); err != nil {
			return err
		}
	}
	for range coldRounds {
		for _, k := range keys[:hotRefreshed] {
			if err := naive.Set(k, value); err != nil {
				return err
			}
		}
	}
	gone := 0
	for _, k := range keys[hotRefreshed:] {
		if _, err := naive.Get(k); err != nil {
			gone++
		}
	}
	others := coldKeys - hotRefreshed
	fmt.Printf("    %d hot of %d keys refreshed %d times in %d MB: lost of the others Rowtide %d, bigcache %d (%d %%)\n",
		hotRefreshed, coldKeys, coldRounds, tightBytes>>20, lost, gone, 100*gone/others)
	bar(lost == 0, "live keys lost to refreshes of others 0, has %d", lost)
	return nil
}

func naiveCache(ctx context.Context, hardMB int) (*bigcache.BigCache, error) {
	cfg := bigcache.DefaultConfig(24 * time.Hour)
	cfg.CleanWindow, cfg.Shards, cfg.HardMaxCacheSize, cfg.Verbose, cfg.MaxEntriesInWindow = 0, 64, hardMB, false, 1000
	return bigcache.New(ctx, cfg)
}

// aging is a node whose clock is turned on by hand. The module has no loader: a
// refresh asks Redis.
type aging struct {
	bus  *beats
	ns   atomic.Int64
	node *localsync.Cache
	m    *localsync.Module[string, []byte]
}

func (a *aging) now() time.Time { return time.Unix(1_800_000_000, a.ns.Load()) }

func (a *aging) close(ctx context.Context) { _ = a.node.Close(ctx) }

// refreshed is a node that holds all keys.
func (b *bench) refreshed(ctx context.Context, value []byte, keys []string, maxBytes int) (*aging, error) {
	a := &aging{bus: newBeats(true)}
	prefix := fmt.Sprintf("day%d", maxBytes)
	var err error
	if a.node, err = b.open(ctx, func(o *localsync.Options) {
		o.Bus, o.Now, o.MaxBytes, o.Prefix = a.bus, a.now, maxBytes, prefix
		o.RedisTimeout = time.Minute // a slow machine is no reason not to refresh
	}); err != nil {
		return nil, err
	}
	cfg := localsync.ModuleConfig[string]{Name: "event", TTL: 24 * time.Hour, Refresh: 30 * time.Second}
	if a.m, err = localsync.NewModule[string, []byte](a.node, cfg, localsync.Bytes(), nil); err != nil {
		return nil, err
	}
	pipe := b.rdb.Pipeline()
	for _, k := range keys {
		e := rowtide.Entry{Key: a.m.Key(k), Version: 1, BuiltAt: time.Now(), TTL: time.Hour, Payload: value}
		pipe.Set(ctx, e.Key.Redis(prefix), e.AppendEnvelope(nil), time.Hour)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	a.bus.beat(a.now()) // else the first round's would put all in doubt: the first record may have been missed
	return a, fill(ctx, a.m, keys)
}

// refresh lets a minute pass and has every key read, which refreshes it.
func (a *aging) refresh(ctx context.Context, keys []string) error {
	a.ns.Add(int64(time.Minute))
	a.bus.beat(a.now())
	for some := range slices.Chunk(keys, 500) {
		if got, err := a.m.GetMany(ctx, some); err != nil || len(got) != len(some) {
			return fmt.Errorf("refresh: %d of %d keys: %w", len(got), len(some), err)
		}
	}
	for a.node.Stats().Modules[0].Loading > 0 {
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}
