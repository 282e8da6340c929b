//go:build integration

package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/publisher"
)

// both is the two ends of the bus, on a real broker: what broadcasts, and a node.
type both struct {
	localsync.NopObserver
	t      *testing.T
	cfg    publisher.Config
	client sarama.Client
	rdb    *redis.Client
	node   *localsync.Cache
	shows  *localsync.Module[int, []byte]
	loads  atomic.Int64

	suspects atomic.Int64
}

func (b *both) Suspect(int32, error) { b.suspects.Add(1) }

func newBoth(t *testing.T) *both {
	t.Helper()
	b := &both{t: t}
	b.cfg = publisher.Config{
		Brokers: testenv.Kafka(t), Prefix: testenv.UniqueName(t, "p"), Topic: testenv.UniqueName(t, "inv"), Partitions: 3, Heartbeat: 20 * time.Millisecond,
	}.WithDefaults()
	var err error
	if b.client, err = sarama.NewClient(b.cfg.Brokers, publisher.ProducerConfig()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	if _, err := publisher.EnsureTopic(b.client, b.cfg); err != nil {
		t.Fatal(err)
	}
	b.rdb = redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { b.rdb.Close() })
	return b
}

// open opens the node, with a module whose loader gives "loaded".
func (b *both) open() {
	b.t.Helper()
	var err error
	b.node, err = localsync.Open(b.t.Context(), localsync.Options{
		Redis: b.rdb, Brokers: b.cfg.Brokers, Topic: b.cfg.Topic, Prefix: b.cfg.Prefix, MaxBytes: 8 << 20, Observer: b, ReplicaLag: 50 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := b.node.Close(context.WithoutCancel(b.t.Context())); err != nil {
			b.t.Error(err)
		}
	})
	b.shows, err = localsync.NewModule(b.node, localsync.ModuleConfig[int]{Name: "show"}, localsync.Bytes(), func(_ context.Context, ids []int) (map[int][]byte, error) {
		b.loads.Add(1)
		out := map[int][]byte{}
		for _, id := range ids {
			out[id] = []byte("loaded")
		}
		return out, nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// daemon is one run of the broadcasting part, until stop is called.
func (b *both) daemon() (bus *publisher.Kafka, stop func()) {
	b.t.Helper()
	bus, err := publisher.NewKafka(b.cfg, b.client, slog.New(slog.DiscardHandler), publisher.NopObserver{})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = bus.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := bus.Close(); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return bus, stop
}

func show(id int, v rowtide.Version) rowtide.Entry {
	return rowtide.Entry{
		Key: rowtide.Key{Module: "show", Version: 1, ID: fmt.Sprint(id)}, Version: v, BuiltAt: time.Now(), TTL: time.Hour, Payload: fmt.Appendf(nil, "v%d", v),
	}
}

func (b *both) put(e rowtide.Entry) {
	b.t.Helper()
	if err := b.rdb.Set(b.t.Context(), e.Key.Redis(b.cfg.Prefix), e.AppendEnvelope(nil), time.Minute).Err(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *both) broadcast(bus *publisher.Kafka, es ...rowtide.Entry) {
	b.t.Helper()
	if err := bus.Broadcast(b.t.Context(), es, es[0].Version, time.Now()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *both) floors(ids int, v rowtide.Version) {
	b.t.Helper()
	eventually(b.t, "the node has heard of all", 20*time.Second, func() (bool, string) {
		for id := range ids {
			if got := b.node.Floor(show(id, v).Key); got != v {
				return false, fmt.Sprintf("show %d at %s, want %s", id, got, v)
			}
		}
		return true, ""
	})
}

func (b *both) shows12(v rowtide.Version) []rowtide.Entry {
	var out []rowtide.Entry
	for id := range 12 {
		out = append(out, show(id, v))
	}
	return out
}

func TestNodes_SeeNoBreakAtARestart(t *testing.T) {
	b := newBoth(t)
	bus, stop := b.daemon()
	b.broadcast(bus, b.shows12(1)...)
	b.open()
	for v := rowtide.Version(2); v < 6; v++ { // four restarts
		b.broadcast(bus, b.shows12(v)...)
		b.floors(12, v)
		stop()
		bus, stop = b.daemon()
	}
	b.broadcast(bus, b.shows12(6)...)
	b.floors(12, 6)
	if got := b.suspects.Load(); got != 0 {
		t.Errorf("%d times in doubt, want none", got)
	}
}

// Two daemons at once tell every node everything; a node may check in vain.
func TestNodes_HearTwoDaemonsAtOnce(t *testing.T) {
	b := newBoth(t)
	first, _ := b.daemon()
	b.open()
	b.broadcast(first, b.shows12(1)...)
	second, _ := b.daemon()
	var wg sync.WaitGroup
	for _, bus := range []*publisher.Kafka{first, second} {
		wg.Go(func() {
			for v := rowtide.Version(2); v <= 40; v++ {
				if err := bus.Broadcast(t.Context(), b.shows12(v), v, time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.floors(12, 40)
	if got := b.suspects.Load(); got > 3 {
		t.Errorf("%d times in doubt, want at most once per partition", got)
	}
}

func TestNodes_SwapPushedValuesInPlace(t *testing.T) {
	b := newBoth(t)
	bus, _ := b.daemon()
	b.open()
	b.put(show(1, 5))
	if v, err := b.shows.Get(t.Context(), 1); err != nil || string(v) != "v5" {
		t.Fatalf("%q, %v", v, err)
	}
	pushed := show(1, 6) // Redis is left behind, so that only the bus can have told
	pushed.Push = true
	b.broadcast(bus, pushed)
	eventually(t, "the value is swapped in", 20*time.Second, func() (bool, string) {
		e, ok := b.node.Peek(pushed.Key)
		return ok && e.Version == 6 && string(e.Payload) == "v6", fmt.Sprintf("%t %s %q", ok, e.Version, e.Payload)
	})
	v, info, err := b.shows.Lookup(t.Context(), 1)
	if err != nil || string(v) != "v6" || info.Level != localsync.LevelLocal {
		t.Errorf("%q, %+v, %v; want v6 from the local store", v, info, err)
	}
}

// Kafka is not told at all here: what Redis passes on is enough to serve the change.
func TestNodes_ServeAChangeBeforeKafkaTellsOfIt(t *testing.T) {
	b := newBoth(t)
	bus, _ := b.daemon()
	b.open()
	b.put(show(1, 5))
	b.broadcast(bus, show(1, 5))
	if v, err := b.shows.Get(t.Context(), 1); err != nil || string(v) != "v5" {
		t.Fatalf("%q, %v", v, err)
	}
	eventually(t, "the node listens", 20*time.Second, func() (bool, string) {
		n, err := b.rdb.PubSubNumSub(t.Context(), hints.Channel(b.rdb, b.cfg.Prefix)).Result()
		return err == nil && n[hints.Channel(b.rdb, b.cfg.Prefix)] == 1, fmt.Sprint(n, err)
	})
	h := publisher.NewHints(b.rdb, b.cfg.Prefix, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	defer wg.Wait()
	defer stop()
	r := publisher.NewRedis(b.rdb, b.cfg.Prefix, slog.New(slog.DiscardHandler), publisher.NopObserver{}, publisher.WithHints(h))
	if err := r.Overwrite(t.Context(), []rowtide.Entry{show(1, 6)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change is served", 20*time.Second, func() (bool, string) {
		v, info, err := b.shows.Lookup(t.Context(), 1)
		return err == nil && string(v) == "v6" && !info.Stale, fmt.Sprintf("%q %+v %v", v, info, err)
	})
	if got := b.node.Stats().Bus; got.Hinted != 1 || got.Watermark > 5 || got.Applied > 1 {
		t.Errorf("%+v, want one hint, and nothing more from the bus", got)
	}
}

// Settings and generations reach a node that is running, and one that opens later.
func TestNodes_FollowTheControlTopic(t *testing.T) {
	b := newBoth(t)
	control, err := publisher.NewControl(b.cfg, b.client, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	put := func(m rowtide.ModuleControl) {
		t.Helper()
		if err := control.Put(t.Context(), []rowtide.ModuleControl{m}); err != nil {
			t.Fatal(err)
		}
	}
	put(rowtide.ModuleControl{Name: "show", Generation: 1})
	bus, _ := b.daemon()
	b.open()
	if got := b.node.Stats().Modules[0].Generation; got != 1 {
		t.Fatalf("generation %d at once, want 1", got)
	}
	b.broadcast(bus, show(2, 7)) // a watermark to load at
	old := show(1, 5)
	old.Generation = 1
	b.put(old)
	read := func() (string, localsync.Info) {
		t.Helper()
		v, info, err := b.shows.Lookup(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return string(v), info
	}
	if v, _ := read(); v != "v5" {
		t.Fatalf("%q, want v5", v)
	}
	put(rowtide.ModuleControl{Name: "show", Generation: 2, Since: 6})
	eventually(t, "the entry is loaded again and kept", 20*time.Second, func() (bool, string) {
		v, info := read()
		return v == "loaded" && info.Level == localsync.LevelLocal, fmt.Sprintf("%q %+v", v, info)
	})
	loads := b.loads.Load()
	put(rowtide.ModuleControl{Name: "show", Generation: 2, Since: 6, Settings: rowtide.ModuleSettings{TTL: time.Millisecond, Refresh: time.Millisecond}})
	eventually(t, "the new ttl is in force", 20*time.Second, func() (bool, string) {
		_, info := read()
		return info.Level != localsync.LevelLocal, fmt.Sprintf("%+v, %d loads before", info, loads)
	})
}
