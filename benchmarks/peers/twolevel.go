package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-redis/cache/v9"
	jetcache "github.com/mgtv-tech/jetcache-go"
	"github.com/mgtv-tech/jetcache-go/encoding"
	jetlocal "github.com/mgtv-tech/jetcache-go/local"
	"github.com/mgtv-tech/jetcache-go/remote"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/viccon/sturdyc"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

const (
	hotKeys   = 10_000
	mixOps    = 20_000 // a turn
	mixers    = 4      // goroutines that read
	twoLevels = 5      // times faster than jetcache-go
)

// twoLevel is a cache over Redis over a loader.
type twoLevel struct {
	name string
	// get reads through all levels; the loader answers at once with the document.
	get func(ctx context.Context, key string) (document, error)
	// remote puts the document of a key into Redis only, in the cache's own format.
	remote func(ctx context.Context, p redis.Pipeliner, key string) error

	mixed, hits []time.Duration
	spent       [2]time.Duration // on both
}

// twoLevel measures reads of which nine in ten are local, nine in a hundred are
// in Redis and one in a hundred nowhere; then local hits alone.
func (b *bench) twoLevel(ctx context.Context) error {
	value := document{42, strings.Repeat("x", 1000)}
	cs, closeAll, err := b.twoLevels(ctx, value)
	defer closeAll()
	if err != nil {
		return err
	}
	hot := names(hotKeys)
	for _, c := range cs {
		for range 2 {
			for _, k := range hot {
				if _, err := c.get(ctx, k); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
		}
	}
	for t := range 2 * b.runs {
		for _, c := range cs {
			if err := b.mix(ctx, c, hot, t); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	ops := float64(2 * b.runs * mixOps)
	for _, c := range cs {
		fmt.Printf("    %-24s mixed: p50 %8s p99 %8s us, %7.0f a second; local hits: p50 %8s p99 %8s us, %8.0f a second\n", c.name,
			us(rank(c.mixed, 500)), us(rank(c.mixed, 990)), ops/c.spent[0].Seconds(), us(rank(c.hits, 500)), us(rank(c.hits, 990)), ops/c.spent[1].Seconds())
	}
	own, jet := cs[0], cs[1]
	hits := jet.spent[1].Seconds() / own.spent[1].Seconds()
	bar(hits >= twoLevels, "two-level get that hits locally, %d times as fast as jetcache-go's, has %.1f", twoLevels, hits)
	p50 := rank(jet.mixed, 500).Seconds() / rank(own.mixed, 500).Seconds()
	bar(p50 >= twoLevels, "two-level get of the mix, the same by the median, has %.1f", p50)
	// One read in ten is a round trip to Redis for each of them, and takes most of the
	// time of all: no cache before Redis can be much faster than another by this.
	fmt.Printf("  throughput of the mix: %.1f of jetcache-go's\n", jet.spent[0].Seconds()/own.spent[0].Seconds())
	return nil
}

// mix is one turn: both measurements, with keys of their own.
func (b *bench) mix(ctx context.Context, c *twoLevel, hot []string, t int) error {
	ids := zipf(len(hot), mixOps)
	keys := make([]string, mixOps)
	dice := rand.New(rand.NewPCG(uint64(t), 1))
	pipe := b.rdb.Pipeline()
	for i := range keys {
		switch d := dice.IntN(100); {
		case d < 90:
			keys[i] = hot[ids[i]]
		case d < 99:
			keys[i] = fmt.Sprintf("redis-%d-%d", t, i)
			if err := c.remote(ctx, pipe, keys[i]); err != nil {
				return err
			}
		default:
			keys[i] = fmt.Sprintf("nowhere-%d-%d", t, i)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	if err := c.readAll(ctx, keys, &c.mixed, &c.spent[0]); err != nil {
		return err
	}
	for i := range keys {
		keys[i] = hot[ids[i]]
	}
	return c.readAll(ctx, keys, &c.hits, &c.spent[1])
}

func (c *twoLevel) readAll(ctx context.Context, keys []string, took *[]time.Duration, spent *time.Duration) error {
	out := make([]time.Duration, len(keys))
	errs := make([]error, mixers)
	var g sync.WaitGroup
	began := time.Now()
	for w := range mixers {
		g.Go(func() {
			for i := w; i < len(keys); i += mixers {
				at := time.Now()
				v, err := c.get(ctx, keys[i])
				out[i] = time.Since(at)
				if err != nil || v.ID != 42 {
					errs[w] = fmt.Errorf("read %s: %d, %w", keys[i], v.ID, err)
					return
				}
			}
		})
	}
	g.Wait()
	*spent += time.Since(began)
	*took = append(*took, out...)
	return errors.Join(errs...)
}

// sturdyRedis is the second level that sturdyc leaves to its users.
type sturdyRedis struct{ rdb *redis.Client }

func (s sturdyRedis) Get(ctx context.Context, key string) ([]byte, bool) {
	v, err := s.rdb.Get(ctx, "st:"+key).Bytes()
	return v, err == nil
}

func (s sturdyRedis) Set(ctx context.Context, key string, value []byte) {
	s.rdb.Set(ctx, "st:"+key, value, time.Hour)
}

func (s sturdyRedis) GetBatch(context.Context, []string) map[string][]byte { return nil }
func (s sturdyRedis) SetBatch(context.Context, map[string][]byte)          {}

// twoLevels are the contenders, ours first and jetcache-go second.
func (b *bench) twoLevels(ctx context.Context, value document) (cs []*twoLevel, closeAll func(), err error) {
	var closers []func()
	closeAll = func() {
		for _, c := range closers {
			c()
		}
	}
	plain, err := json.Marshal(value)
	if err != nil {
		return nil, closeAll, err
	}
	prefix := fmt.Sprintf("two%x", rand.Uint32())
	node, err := b.open(ctx, func(o *localsync.Options) { o.Prefix = prefix })
	if err != nil {
		return nil, closeAll, err
	}
	closers = append(closers, func() { _ = node.Close(ctx) })
	m, err := localsync.NewModule(node, localsync.ModuleConfig[string]{Name: "event", Refresh: time.Hour, Objects: 4 * hotKeys}, localsync.JSON[document](), constant[string](value))
	if err != nil {
		return nil, closeAll, err
	}
	jet := jetcache.New(jetcache.WithRemote(remote.NewGoRedisV9Adapter(b.rdb)), jetcache.WithStatsDisabled(true),
		jetcache.WithLocal(jetlocal.NewFreeCache(512*jetlocal.MB, time.Hour, "two")))
	closers = append(closers, jet.Close)
	gr := cache.New(&cache.Options{Redis: b.rdb, LocalCache: cache.NewTinyLFU(4*hotKeys, time.Hour)})
	st := sturdyc.New[document](10*hotKeys, 64, time.Hour, 10, sturdyc.WithDistributedStorage(sturdyRedis{b.rdb}))
	rd, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{b.redis}})
	if err != nil {
		return nil, closeAll, err
	}
	closers = append(closers, rd.Close)
	return []*twoLevel{
		{name: "Rowtide", get: m.Get, remote: func(ctx context.Context, p redis.Pipeliner, key string) error {
			e := rowtide.Entry{Key: m.Key(key), Version: 1, BuiltAt: time.Now(), TTL: time.Hour, Payload: plain}
			return p.Set(ctx, e.Key.Redis(prefix), e.AppendEnvelope(nil), time.Hour).Err()
		}},
		{name: "jetcache-go Once", get: func(ctx context.Context, key string) (v document, err error) {
			err = jet.Once(ctx, "jet:"+key, jetcache.Value(&v), jetcache.Do(func(context.Context) (any, error) { return value, nil }))
			return v, err
		}, remote: func(ctx context.Context, p redis.Pipeliner, key string) error {
			bytes, err := jetBytes(value)
			return errors.Join(err, p.Set(ctx, "jet:"+key, bytes, time.Hour).Err())
		}},
		{name: "go-redis/cache Once", get: func(ctx context.Context, key string) (v document, err error) {
			err = gr.Once(&cache.Item{Ctx: ctx, Key: "gr:" + key, Value: &v, TTL: time.Hour, Do: func(*cache.Item) (any, error) { return value, nil }})
			return v, err
		}, remote: func(ctx context.Context, p redis.Pipeliner, key string) error {
			bytes, err := gr.Marshal(value)
			return errors.Join(err, p.Set(ctx, "gr:"+key, bytes, time.Hour).Err())
		}},
		{name: "sturdyc GetOrFetch", get: func(ctx context.Context, key string) (document, error) {
			return st.GetOrFetch(ctx, key, func(context.Context) (document, error) { return value, nil })
		}, remote: func(ctx context.Context, p redis.Pipeliner, key string) error {
			bytes, err := json.Marshal(map[string]any{"created_at": time.Now(), "value": value, "is_missing_record": false})
			return errors.Join(err, p.Set(ctx, "st:"+key, bytes, time.Hour).Err())
		}},
		{name: "rueidis DoCache", get: func(ctx context.Context, key string) (v document, err error) {
			bytes, err := rd.DoCache(ctx, rd.B().Get().Key("rd:"+key).Cache(), time.Hour).AsBytes()
			if rueidis.IsRedisNil(err) {
				return value, rd.Do(ctx, rd.B().Set().Key("rd:"+key).Value(string(plain)).Ex(time.Hour).Build()).Error()
			}
			if err != nil {
				return v, err
			}
			return v, json.Unmarshal(bytes, &v)
		}, remote: func(ctx context.Context, p redis.Pipeliner, key string) error {
			return p.Set(ctx, "rd:"+key, plain, time.Hour).Err()
		}},
	}, closeAll, nil
}

// jetBytes is a value in jetcache-go's default codec.
func jetBytes(v any) ([]byte, error) { return encoding.GetCodec("msgpack").Marshal(v) }
