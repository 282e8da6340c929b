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

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const (
	stormKeys  = 100
	stormNodes = 4
	stormReads = 2000 // a second and node
	// stormLoad is what a load takes: a query, and the way there.
	stormLoad = 2 * time.Millisecond
)

// storm counts loads while a hundred hot keys are overwritten a thousand times a
// second in all, and four nodes read them: once with overwrites, once with
// cache-aside that deletes.
func (b *bench) storm(ctx context.Context) error {
	own, reads, stale, err := b.stormOurs(ctx)
	if err != nil {
		return fmt.Errorf("overwrite: %w", err)
	}
	fmt.Printf("    Rowtide (overwrite): %d loads in %d requests, %.2f in 1,000; %d reads marked stale\n", own, reads, 1000*float64(own)/float64(reads), stale)
	loads, reads, err := b.stormDelete(ctx)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	fmt.Printf("    go-redis/cache (delete, pub/sub): %d loads in %d requests, %.2f in 1,000\n", loads, reads, 1000*float64(loads)/float64(reads))
	bar(own == 0, "loads in the storm 0, has %d", own)
	return nil
}

// readers read random keys at stormReads from every node, until stop is called,
// which gives the number of reads.
func readers(ctx context.Context, get func(node, key int) error) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var g sync.WaitGroup
	var n atomic.Int64
	errs := make(chan error, stormNodes)
	for node := range stormNodes {
		g.Go(func() {
			pace(ctx, stormReads, 1<<30, func(int, time.Time) {
				if err := get(node, rand.IntN(stormKeys)); err != nil && ctx.Err() == nil {
					select {
					case errs <- err:
					default:
					}
				}
				n.Add(1)
			})
		})
	}
	return func() (int, error) {
		cancel()
		g.Wait()
		select {
		case err := <-errs:
			return 0, err
		default:
			return int(n.Load()), nil
		}
	}
}

func (b *bench) stormOurs(ctx context.Context) (loads, reads int, stale uint64, err error) {
	p, err := b.publish(ctx, strings.Split(b.kafka, ","))
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var loaded atomic.Int64
	nodes, modules := make([]*localsync.Cache, stormNodes), make([]*localsync.Module[int, []byte], stormNodes)
	for i := range nodes {
		if nodes[i], err = localsync.Open(ctx, localsync.Options{
			Redis: b.rdb, Brokers: p.cfg.Brokers, Topic: p.cfg.Topic, Prefix: p.prefix, MaxBytes: 4 << 20, Logger: slog.New(slog.DiscardHandler),
		}); err != nil {
			return 0, 0, 0, err
		}
		defer func() { _ = nodes[i].Close(ctx) }()
		<-nodes[i].Ready()
		modules[i], err = localsync.NewModule(nodes[i], localsync.ModuleConfig[int]{Name: "event"}, localsync.Bytes(), func(_ context.Context, ks []int) (map[int][]byte, error) {
			loaded.Add(int64(len(ks)))
			time.Sleep(stormLoad)
			out := make(map[int][]byte, len(ks))
			for _, k := range ks {
				out[k] = make([]byte, 150)
			}
			return out, nil
		})
		if err != nil {
			return 0, 0, 0, err
		}
	}
	var entries []rowtide.Entry
	for k := range stormKeys {
		entries = append(entries, p.entry(k, 1))
	}
	if err := p.send(ctx, entries); err != nil { // the keys are hot: they are in Redis before
		return 0, 0, 0, err
	}
	stop := readers(ctx, func(node, key int) error {
		_, err := modules[node].Get(ctx, key)
		return err
	})
	a := newArrivals(b.seconds*writeRate, 1)
	err = a.write(ctx, func(writes []int) error {
		var entries []rowtide.Entry
		for _, w := range writes {
			entries = append(entries, p.entry(w%stormKeys, rowtide.Version(w+2)))
		}
		return p.send(ctx, entries)
	})
	reads, readErr := stop()
	if err == nil {
		err = readErr
	}
	for _, n := range nodes {
		stale += n.Stats().Modules[0].Stale
	}
	return int(loaded.Load()), reads, stale, err
}

// stormDelete is cache-aside as its users write it: a change deletes the key and
// says so on a channel, on which every node drops its copy.
func (b *bench) stormDelete(ctx context.Context) (loads, reads int, err error) {
	channel := fmt.Sprintf("storm%x", rand.Uint32())
	key := func(k int) string { return channel + ":" + strconv.Itoa(k) }
	var loaded atomic.Int64
	caches := make([]*cache.Cache, stormNodes)
	for i := range caches {
		c := cache.New(&cache.Options{Redis: b.rdb, LocalCache: cache.NewTinyLFU(10*stormKeys, time.Minute)})
		caches[i] = c
		end, err := b.subscribe(ctx, channel, c.DeleteFromLocalCache)
		if err != nil {
			return 0, 0, err
		}
		defer end()
	}
	get := func(node, k int) error {
		var v []byte
		return caches[node].Once(&cache.Item{Ctx: ctx, Key: key(k), Value: &v, TTL: time.Hour, Do: func(*cache.Item) (any, error) {
			loaded.Add(1)
			time.Sleep(stormLoad)
			return make([]byte, 150), nil
		}})
	}
	for k := range stormKeys { // the keys are hot: they are there before
		if err := get(0, k); err != nil {
			return 0, 0, err
		}
	}
	loaded.Store(0)
	stop := readers(ctx, get)
	a := newArrivals(b.seconds*writeRate, 1)
	err = a.write(ctx, func(writes []int) error {
		_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, w := range writes {
				p.Del(ctx, key(w%stormKeys))
				p.Publish(ctx, channel, key(w%stormKeys))
			}
			return nil
		})
		return err
	})
	reads, readErr := stop()
	if err == nil {
		err = readErr
	}
	return int(loaded.Load()), reads, err
}
