package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/allegro/bigcache/v3"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/go-redis/cache/v9"
	"github.com/maypok86/otter/v2"
	jetcache "github.com/mgtv-tech/jetcache-go"
	jetlocal "github.com/mgtv-tech/jetcache-go/local"
	"github.com/viccon/sturdyc"

	"github.com/rowtide/rowtide/localsync"
)

const (
	localKeys = 100_000
	// localBytes bounds what the byte caches hold, so that keys of 10 KB are fewer.
	localBytes = 100 << 20
	// bytesBar and typedBar are what the project asks of itself.
	bytesBar, typedBar = 1.15, 1.2
)

// reader is one cache's read of the ith key.
type reader struct {
	name string
	get  func(i int32) bool
}

var how = [2]string{"sequential", "parallel"}

var errUnwanted = errors.New("a local hit asked its loader")

// local measures reads of what is in the process.
func (b *bench) local(ctx context.Context) error {
	for _, size := range []int{100, 1000, 10_000} {
		keys := names(min(localKeys, localBytes/size))
		fmt.Printf("  values of %d bytes, %d keys, Zipf 0.99\n", size, len(keys))
		if err := b.localBytes(ctx, keys, size); err != nil {
			return err
		}
		if err := b.localTyped(ctx, keys, size); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) localBytes(ctx context.Context, keys []string, size int) error {
	value := make([]byte, size)
	cfg := bigcache.DefaultConfig(48 * time.Hour)
	cfg.CleanWindow, cfg.Shards, cfg.HardMaxCacheSize, cfg.Verbose = 0, 64, 512, false
	raw, err := bigcache.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	jet := jetcache.New(jetcache.WithLocal(jetlocal.NewFreeCache(512*jetlocal.MB, time.Hour)), jetcache.WithStatsDisabled(true))
	defer jet.Close()
	gr := cache.New(&cache.Options{LocalCache: cache.NewTinyLFU(2*len(keys), time.Hour)})
	long := make([]string, len(keys)) // as ours are named
	for i, k := range keys {
		long[i] = "event:1:" + k
		if err := errors.Join(raw.Set(long[i], value), jet.Set(ctx, k, jetcache.Value(value)), gr.Set(&cache.Item{Ctx: ctx, Key: k, Value: value, TTL: time.Hour})); err != nil {
			return err
		}
	}
	node, err := b.open(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = node.Close(ctx) }()
	m, err := localsync.NewModule(node, localsync.ModuleConfig[string]{Name: "event", Refresh: time.Hour}, localsync.Bytes(), constant[string](value))
	if err != nil {
		return err
	}
	if err := fill(ctx, m, keys); err != nil {
		return err
	}
	rs := []reader{
		{"bigcache Get", func(i int32) bool { v, err := raw.Get(long[i]); return err == nil && len(v) == size }},
		{"Rowtide Get, bytes", func(i int32) bool { v, err := m.Get(ctx, keys[i]); return err == nil && len(v) == size }},
		{"jetcache-go Get, bytes", func(i int32) bool { var v []byte; return jet.Get(ctx, keys[i], &v) == nil && len(v) == size }},
		{"go-redis/cache Get, bytes", func(i int32) bool { var v []byte; return gr.Get(ctx, keys[i], &v) == nil && len(v) == size }},
	}
	return b.beside(rs, len(keys), func(alone, together, allocs []float64) {
		for i, ns := range [][]float64{alone, together} {
			bar(ns[1]/ns[0] <= bytesBar, "bytes get, %s, at most %.2f of bigcache's, has %.2f", how[i], bytesBar, ns[1]/ns[0])
		}
	})
}

func (b *bench) localTyped(ctx context.Context, keys []string, size int) error {
	value := document{42, strings.Repeat("x", size)}
	ot := otter.Must(&otter.Options[string, document]{MaximumSize: 2 * len(keys)})
	unwanted := otter.LoaderFunc[string, document](func(context.Context, string) (document, error) { return document{}, errUnwanted })
	ri, err := ristretto.NewCache(&ristretto.Config[string, document]{NumCounters: 20 * localKeys, MaxCost: 10 * localKeys, BufferItems: 64})
	if err != nil {
		return err
	}
	defer ri.Close()
	st := sturdyc.New[document](2*len(keys), 64, time.Hour, 10)
	fetch := func(context.Context) (document, error) { return document{}, errUnwanted }
	jet := jetcache.New(jetcache.WithLocal(jetlocal.NewFreeCache(512*jetlocal.MB, time.Hour, "typed")), jetcache.WithStatsDisabled(true))
	defer jet.Close()
	gr := cache.New(&cache.Options{LocalCache: cache.NewTinyLFU(2*len(keys), time.Hour)})
	for i, k := range keys {
		ot.Set(k, value)
		ri.Set(k, value, 1)
		if i%1000 == 0 { // its writes are buffered, and dropped when there are many
			ri.Wait()
		}
		st.Set(k, value)
		if err := errors.Join(jet.Set(ctx, k, jetcache.Value(value)), gr.Set(&cache.Item{Ctx: ctx, Key: k, Value: value, TTL: time.Hour})); err != nil {
			return err
		}
	}
	ri.Wait()
	node, err := b.open(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = node.Close(ctx) }()
	m, err := localsync.NewModule(node, localsync.ModuleConfig[string]{Name: "event", Refresh: time.Hour, Objects: 2 * len(keys)}, localsync.JSON[document](), constant[string](value))
	if err != nil {
		return err
	}
	if err := fill(ctx, m, keys); err != nil {
		return err
	}
	is := func(v document) bool { return v.ID == 42 }
	rs := []reader{
		{"otter Get", func(i int32) bool { v, err := ot.Get(ctx, keys[i], unwanted); return err == nil && is(v) }},
		{"Rowtide Get, typed", func(i int32) bool { v, err := m.Get(ctx, keys[i]); return err == nil && is(v) }},
		{"otter GetIfPresent", func(i int32) bool { v, ok := ot.GetIfPresent(keys[i]); return ok && is(v) }},
		{"ristretto Get", func(i int32) bool { v, ok := ri.Get(keys[i]); return !ok || is(v) }}, // it drops some writes by design
		{"sturdyc GetOrFetch", func(i int32) bool { v, err := st.GetOrFetch(ctx, keys[i], fetch); return err == nil && is(v) }},
		{"jetcache-go Get, typed", func(i int32) bool { var v document; return jet.Get(ctx, keys[i], &v) == nil && is(v) }},
		{"go-redis/cache Get, typed", func(i int32) bool { var v document; return gr.Get(ctx, keys[i], &v) == nil && is(v) }},
	}
	return b.beside(rs, len(keys), func(alone, together, allocs []float64) {
		for i, ns := range [][]float64{alone, together} {
			bar(ns[1]/ns[0] <= typedBar && allocs[1] == 0, "typed get, %s, at most %.1f of otter's Get and no allocation, has %.2f (%.2f of GetIfPresent) and %.0f",
				how[i], typedBar, ns[1]/ns[0], ns[1]/ns[2], allocs[1])
		}
	})
}

const (
	// turnReads is short enough that most turns are not interrupted, so that the
	// median is of the reads and not of the scheduler.
	turnReads = 1000
	turns     = 70
)

// beside lets the caches read in turns, so that whatever else the machine does slows
// all, and prints medians.
func (b *bench) beside(rs []reader, keys int, judge func(alone, together, allocs []float64)) error {
	ids := zipf(keys, 1<<20)
	both := map[int][]float64{}
	allocs := make([]float64, len(rs))
	workers := runtime.GOMAXPROCS(0)
	for _, n := range []int{1, workers} {
		took := make([][]float64, len(rs))
		for t := range turns * b.runs {
			for i, r := range rs {
				ns, err := turn(r, ids, t, n)
				if err != nil {
					return err
				}
				took[i] = append(took[i], ns)
			}
		}
		for i := range rs {
			both[n] = append(both[n], median(took[i]))
		}
	}
	for i, r := range rs {
		at := 0
		allocs[i] = testing.AllocsPerRun(2000, func() { at++; r.get(ids[at]) })
		fmt.Printf("    %-28s %8.0f ns sequential %8.0f ns in parallel (%d), %2.0f allocations\n", r.name, both[1][i], both[workers][i], workers, allocs[i])
	}
	judge(both[1], both[workers], allocs)
	return nil
}

// turn is the wall clock's nanoseconds a read, with all workers reading. As many
// reads before do not count: the caches of the processor are the last one's then.
func turn(r reader, ids []int32, t, workers int) (float64, error) {
	var bad atomic.Bool
	read := func(t int) time.Duration {
		var g sync.WaitGroup
		began := time.Now()
		for w := range workers {
			from := (t*workers + w) * turnReads % (len(ids) - turnReads)
			g.Go(func() {
				for _, id := range ids[from : from+turnReads] {
					if !r.get(id) {
						bad.Store(true)
					}
				}
			})
		}
		g.Wait()
		return time.Since(began)
	}
	read(2 * t)
	took := read(2*t + 1)
	if bad.Load() {
		return 0, fmt.Errorf("%s: a read failed", r.name)
	}
	return float64(took.Nanoseconds()) / float64(turnReads*workers), nil
}
