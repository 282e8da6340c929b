package localsync_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

var errBroker = errors.New("broker is away")

// awayBus is a bus that is away until there is true.
func awayBus(partitions int32) (b *fakeBus, there *atomic.Bool) {
	b, there = newFakeBus(), &atomic.Bool{}
	b.partitions = partitions
	b.away = func() error {
		if !there.Load() {
			return errBroker
		}
		return nil
	}
	return b, there
}

func degraded(b *fakeBus) func(*localsync.Options) {
	return func(o *localsync.Options) { o.Bus, o.Away = b, localsync.AwayDegraded }
}

func TestAwayDegraded_ServesUnderMaxStaleAndTrustsNothingFromBeforeThePin(t *testing.T) {
	for name, partitions := range map[string]int32{"as many partitions as by default": 12, "another number": 5} {
		t.Run(name, func(t *testing.T) {
			bus, there := awayBus(partitions)
			n, o := newNode(t, degraded(bus)), newOrigin()
			m := n.events(o)
			select {
			case <-n.cache.Ready():
				t.Fatal("ready without a bus")
			default:
			}
			n.put(1, 90, "v")
			for _, level := range []localsync.Level{localsync.LevelRedis, localsync.LevelLocal} {
				if info := want(t, m, 1, "v"); info.Level != level || !info.Degraded {
					t.Fatalf("%+v, want degraded from %s", info, level)
				}
			}
			n.put(1, 95, "w")
			n.silence(localsync.DefaultMaxStale + time.Second)
			if info := want(t, m, 1, "w"); info.Level != localsync.LevelRedis {
				t.Fatalf("%+v, want it checked past MaxStale", info)
			}
			// What is loaded can claim nothing: it stays here, marked.
			o.set(2, "loaded")
			if info := want(t, m, 2, "loaded"); !info.Stale || !info.Degraded {
				t.Fatalf("%+v, want it unproven", info)
			}
			if e, ok := n.inRedis(2); ok {
				t.Fatalf("redis was given %+v by a node that hears nothing", e)
			}
			if s := n.cache.Stats().Bus; !s.Away || s.Silent != 1 || s.Partitions != 0 {
				t.Fatalf("%+v, want it to say that the bus is away", s)
			}

			n.put(1, 100, "told before the pin")
			there.Store(true)
			await(t, "ready", n.cache.Ready())
			await(t, "the bus to run", bus.running)
			n.wantNoPeek(1)
			n.silence(1) // what is read at the very instant of a doubt is in doubt
			if info := want(t, m, 1, "told before the pin"); info.Degraded || info.Stale {
				t.Fatalf("%+v, want it checked and sound", info)
			}
			if s := n.cache.Stats().Bus; s.Away || s.Silent != 0 || s.Partitions != int(partitions) || s.Resized != 0 {
				t.Fatalf("%+v, want a bus as any other", s)
			}
			n.commit(1, 110, "heard")
			want(t, m, 1, "heard")
			n.wantPeek(1, 110, "heard")
		})
	}
}

// A read that began before the pin and ends after it is not trusted either.
func TestAwayDegraded_ReadAcrossThePinIsCheckedAgain(t *testing.T) {
	bus, there := awayBus(4)
	n := newNode(t, degraded(bus))
	m := n.events(newOrigin())
	n.put(1, 90, "old")
	var across atomic.Bool
	n.afterRead(func(string, []string) {
		if across.CompareAndSwap(false, true) {
			there.Store(true)
			await(t, "ready", n.cache.Ready())
		}
	})
	want(t, m, 1, "old")
	n.put(1, 100, "new") // and its record came before the pin
	want(t, m, 1, "new")
}

func TestAwayDegraded_ControlRecordsAreTakenOverWhenTheBusComes(t *testing.T) {
	bus, there := awayBus(4)
	bus.controls = []rowtide.ModuleControl{{Name: "event", Generation: 7}}
	n := newNode(t, degraded(bus))
	n.events(newOrigin())
	there.Store(true)
	await(t, "ready", n.cache.Ready())
	if g := n.module("event").Generation; g != 7 {
		t.Fatalf("generation %d, want 7", g)
	}
}

func TestAwayDegraded_CloseDoesNotWaitForTheBus(t *testing.T) {
	bus, _ := awayBus(4)
	n := newNode(t, degraded(bus))
	if err := n.cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.cache.Ready():
		t.Fatal("ready though never reached")
	default:
	}
}

// No Redis, no bus: the loader serves. Then Redis comes.
func TestAwayDegraded_LoaderServesUntilRedisComes(t *testing.T) {
	addr := deadAddr(t)
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	bus, there := awayBus(4)
	c, err := localsync.Open(t.Context(), localsync.Options{Redis: rdb, Bus: bus, Away: localsync.AwayDegraded, Logger: silentLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	o := newOrigin()
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}), o.load)
	if err != nil {
		t.Fatal(err)
	}
	o.set(1, "loaded")
	if info := want(t, m, 1, "loaded"); !info.Stale || !info.Degraded || info.Level != localsync.LevelLoader {
		t.Fatalf("%+v, want the loader's, marked", info)
	}
	mr := miniredis.NewMiniRedis()
	if err := mr.StartAddr(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mr.Close)
	e := rowtide.Entry{Key: eventKey(1), Version: 100, BuiltAt: time.Now(), TTL: time.Hour, Payload: []byte("of redis")}
	if err := mr.Set(eventKey(1).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	there.Store(true)
	await(t, "ready", c.Ready())
	eventually(t, "redis is read", func() bool {
		v, err := m.Get(t.Context(), 1)
		return err == nil && v == "of redis"
	})
}

func TestAwayWait_OpenReturnsOnceRedisAndTheBusAreThere(t *testing.T) {
	addr := deadAddr(t)
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	bus, there := awayBus(4)
	opened := make(chan *localsync.Cache, 1)
	go func() {
		c, err := localsync.Open(t.Context(), localsync.Options{Redis: rdb, Bus: bus, Away: localsync.AwayWait, Logger: silentLog()})
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	mr := miniredis.NewMiniRedis()
	if err := mr.StartAddr(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mr.Close)
	select {
	case <-opened:
		t.Fatal("open without a bus")
	case <-time.After(300 * time.Millisecond): // longer than one pause
	}
	there.Store(true)
	select {
	case c := <-opened:
		await(t, "ready", c.Ready())
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("never opened")
	}
}

func TestAwayWait_EndsWithTheContextAndSaysWhatWasMissing(t *testing.T) {
	bus, _ := awayBus(4)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := localsync.Open(ctx, localsync.Options{Redis: smallRedis(t), Bus: bus, Away: localsync.AwayWait, Logger: silentLog()})
	if !errors.Is(err, errBroker) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want what was missing and the deadline", err)
	}
}

// A broker that takes connections and says nothing does not hold Open past its
// context.
func TestAwayWait_HangingBrokerDoesNotOutliveTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = localsync.Open(ctx, localsync.Options{Redis: smallRedis(t), Brokers: []string{l.Addr().String()}, Away: localsync.AwayWait, Logger: silentLog()})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
		t.Fatalf("%v after %v, want the deadline's error at once", err, time.Since(began))
	}
}

func TestAway_UnknownPolicyIsRefused(t *testing.T) {
	_, err := localsync.Open(t.Context(), localsync.Options{Redis: smallRedis(t), Bus: newFakeBus(), Away: 9})
	if err == nil || !strings.Contains(err.Error(), "set Away to AwayFail, AwayWait or AwayDegraded") {
		t.Fatalf("got %v, want the remedy", err)
	}
}
