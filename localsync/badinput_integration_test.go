//go:build integration

package localsync_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

func TestIntegration_PartitionsAddedToTheTopicAreFollowed(t *testing.T) {
	partitionsAdded(t, testenv.Kafka(t), testenv.UniqueName(t, "inv"))
}

func TestIntegration_TopicMadeAnewWithFewerPartitionsIsFollowed(t *testing.T) {
	madeAnewWithFewer(t, testenv.Kafka(t), testenv.UniqueName(t, "inv"))
}

// late is a Redis and a Kafka that are down, each on an address of its own.
func late(t *testing.T) (*testenv.RedisServer, *testenv.KafkaServer) {
	t.Helper()
	rs, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rs.Stop(context.Background()) })
	ks, err := testenv.StartKafka(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ks.Stop(context.Background()) })
	newBroker(t, ks.Brokers(), topic).create(4)
	for _, kill := range []func() error{rs.Kill, ks.Kill} {
		if err := kill(); err != nil {
			t.Fatal(err)
		}
	}
	return rs, ks
}

func lateOptions(t *testing.T, rs *testenv.RedisServer, ks *testenv.KafkaServer, h *heard, away localsync.Away) localsync.Options {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: rs.Addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	return localsync.Options{
		Redis: rdb, Brokers: ks.Brokers(), Away: away, MaxBytes: 1 << 20, Observer: h, Logger: silentLog(), Silence: time.Second,
	}
}

func overwriteIn(t *testing.T, rdb redis.UniversalClient, id int64, v rowtide.Version, value string) {
	t.Helper()
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: time.Now(), TTL: time.Minute, Payload: []byte(value)}
	err := redis.NewScript(overwrite.Script).Run(t.Context(), rdb,
		[]string{eventKey(id).Redis("rowtide")}, string(overwrite.CDC), e.AppendEnvelope(nil), 60_000).Err()
	if err != nil {
		t.Fatal(err)
	}
}

func TestIntegration_AwayWaitOpensOnceRedisAndKafkaAreStarted(t *testing.T) {
	rs, ks := late(t)
	opt := lateOptions(t, rs, ks, newHeard(), localsync.AwayWait)
	type opened struct {
		c   *localsync.Cache
		err error
	}
	done := make(chan opened, 1)
	go func() {
		c, err := localsync.Open(t.Context(), opt)
		done <- opened{c, err}
	}()
	if err := rs.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-done:
		t.Fatalf("open without kafka: %v", o.err)
	default:
	}
	if err := ks.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-done:
		if o.err != nil {
			t.Fatal(o.err)
		}
		await(t, "ready", o.c.Ready())
		if err := o.c.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	case <-time.After(3 * patience):
		t.Fatal("never opened")
	}
}

// The loader serves while nothing is there, Redis when it comes, and once Kafka
// has come too nothing from before is trusted unseen.
func TestIntegration_AwayDegradedServesUntilRedisAndKafkaAreStarted(t *testing.T) {
	rs, ks := late(t)
	h, o := newHeard(), newOrigin()
	opt := lateOptions(t, rs, ks, h, localsync.AwayDegraded)
	began := time.Now()
	c, err := localsync.Open(t.Context(), opt)
	if err != nil || time.Since(began) > time.Second {
		t.Fatalf("open: %v after %v, want it at once", err, time.Since(began))
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "event", MaxStale: time.Hour}, localsync.Codec[string](text{}), o.load)
	if err != nil {
		t.Fatal(err)
	}
	o.set(1, "loaded")
	if info := want(t, m, 1, "loaded"); !info.Degraded || !info.Stale {
		t.Fatalf("%+v, want the loader's, marked", info)
	}
	if err := rs.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	overwriteIn(t, opt.Redis, 2, 100, "old")
	eventually(t, "redis is read", func() bool {
		v, err := m.Get(t.Context(), 2)
		return err == nil && v == "old"
	})
	if info := want(t, m, 2, "old"); !info.Degraded || info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want the copy, degraded", info)
	}
	overwriteIn(t, opt.Redis, 2, 200, "new") // and its record came before the pin
	if err := ks.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Ready():
	case <-time.After(3 * patience):
		t.Fatal("never ready")
	}
	if info := want(t, m, 2, "new"); info.Stale {
		t.Fatalf("%+v, want it checked", info)
	}
	b := newBroker(t, ks.Brokers(), topic)
	overwriteIn(t, opt.Redis, 2, 300, "heard")
	b.send(eventKey(2).Partition(4), rowtide.Invalidation{Key: eventKey(2), Version: 300})
	h.want(t, 300)
	want(t, m, 2, "heard")
}

// MGET says nothing of a list; the second look does.
func TestIntegration_KeyOfAnotherTypeWithoutALoaderIsAnErrorNotAbsence(t *testing.T) {
	r := newRig(t)
	m, err := localsync.NewModule[int64, string](r.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.rdb.LPush(t.Context(), eventKey(1).Redis(r.prefix), "x").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) {
		t.Fatalf("got %v, want ErrLoad", err)
	}
	want(t, m, 2, "")
}
