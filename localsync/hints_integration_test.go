//go:build integration

package localsync_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

// listener is a node that hears hints, on a real Redis of its own.
type listener struct {
	t      *testing.T
	server *testenv.RedisServer
	rdb    *redis.Client
	bus    *fakeBus
	clock  *clock
	h      *hinted
	said   chan string
	cache  *localsync.Cache
}

func newListener(t *testing.T) *listener {
	t.Helper()
	server, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	l := &listener{t: t, server: server, bus: newFakeBus(), clock: &clock{}, h: &hinted{}, said: make(chan string, 100)}
	l.rdb = redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = l.rdb.Close() })
	l.cache, err = localsync.Open(t.Context(), localsync.Options{
		Redis: l.rdb, Bus: l.bus, Now: l.clock.Now, MaxBytes: 1 << 20, Observer: l.h, ReportEvery: -1, RedisTimeout: patience,
		Logger: slog.New(slog.NewTextHandler(lines(l.said), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.cache.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	await(t, "the bus to run", l.bus.running)
	return l
}

// put is the daemon's write to Redis, of a value that tells its version.
func (l *listener) put(id int64, v rowtide.Version) {
	l.t.Helper()
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: l.clock.Now(), TTL: time.Hour, Payload: []byte(number(uint64(v)))}
	if err := l.rdb.Set(l.t.Context(), e.Key.Redis("rowtide"), e.AppendEnvelope(nil), 0).Err(); err != nil {
		l.t.Fatal(err)
	}
}

// listens waits until the channel has its one subscriber, and returns its connection.
func (l *listener) listens() (connection string) {
	l.t.Helper()
	channel := hints.Channel(l.rdb, "rowtide")
	eventually(l.t, "the node listens", func() bool {
		n, err := l.rdb.PubSubNumSub(l.t.Context(), channel).Result()
		return err == nil && n[channel] == 1
	})
	list, err := l.server.Do(l.t.Context(), "CLIENT", "LIST", "TYPE", "pubsub")
	if err != nil || strings.Count(list, "\n") != 1 {
		l.t.Fatalf("subscriptions: %v\n%s\nwant one", err, list)
	}
	connection, _, _ = strings.Cut(list, " ")
	return connection
}

// hint tells of event 1 over Redis alone, and waits until the node has taken it in.
func (l *listener) hint(v rowtide.Version) {
	l.t.Helper()
	b := rowtide.Batch{SentAt: l.clock.Now(), Items: []rowtide.Invalidation{{Key: eventKey(1), Version: v}}}
	if n, err := l.rdb.Publish(l.t.Context(), hints.Channel(l.rdb, "rowtide"), b.AppendBatch(nil)).Result(); n != 1 || err != nil {
		l.t.Fatalf("%d heard the hint, %v; want one", n, err)
	}
	eventually(l.t, "the hint", func() bool { return l.h.last.Load() == uint64(v) })
}

// Redis cuts off who listens too slowly, or whom an operator tells it to. The node goes
// on by the bus, listens again by itself, and takes nothing else amiss.
func TestIntegration_HintsSubscriptionThatIsCutIsOpenedAgain(t *testing.T) {
	l, o := newListener(t), newOrigin()
	m, err := localsync.NewModule(l.cache, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}), o.load)
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(3) {
		l.put(id, 100)
		want(t, m, id, number(100))
	}
	fromRedis := func(v rowtide.Version) {
		t.Helper()
		if info := want(t, m, 1, number(uint64(v))); info.Level != localsync.LevelRedis || info.Stale || info.Degraded {
			t.Fatalf("%+v, want it from redis, and all well", info)
		}
	}
	for v := rowtide.Version(200); v < 500; v += 100 {
		connection := l.listens()
		l.put(1, v)
		l.hint(v)
		fromRedis(v)
		if killed, err := l.server.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub"); killed != "1" || err != nil {
			t.Fatalf("%s subscriptions were cut, %v; want one", killed, err)
		}
		began := time.Now()
		// What is told meanwhile comes over the bus.
		l.put(1, v+1)
		l.bus.batch(eventKey(1).Partition(l.bus.partitions), l.clock.Now(), 0, rowtide.Invalidation{Key: eventKey(1), Version: v + 1})
		fromRedis(v + 1)
		if again := l.listens(); again == connection {
			t.Errorf("the connection %s was not cut", connection)
		}
		t.Logf("listens again after %v", time.Since(began))
		l.put(1, v+2)
		l.hint(v + 2)
		fromRedis(v + 2)
		for id, version := range map[int64]uint64{1: uint64(v) + 2, 2: 100} {
			if info := want(t, m, id, number(version)); info.Level != localsync.LevelLocal || info.Stale || info.Degraded {
				t.Errorf("event %d: %+v, want it local, and all well", id, info)
			}
		}
	}
	s := l.cache.Stats()
	if s.Bus.Hinted != 6 || s.Bus.Applied != 3 || s.Bus.Gaps != 0 || s.Bus.Silent != 0 || s.Modules[0].RedisErrors != 0 || o.loads() != 0 {
		t.Errorf("%+v, %d loads; want six hints, three invalidations, and nothing else", s, o.loads())
	}
	if len(l.said) > 0 {
		t.Errorf("the log is not silent: %s", <-l.said)
	}
}
