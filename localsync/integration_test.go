//go:build integration

package localsync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

// rig is one node on the real Redis and Kafka, and a hand that plays the daemon.
type rig struct {
	t      *testing.T
	rdb    *redis.Client
	prefix string
	b      *broker
	h      *heard
	cache  *localsync.Cache
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, testenv.Kafka(t))
}

func newRigOn(t *testing.T, brokers []string) *rig {
	t.Helper()
	r := &rig{t: t, prefix: testenv.UniqueName(t, "ls"), h: newHeard()}
	r.rdb = redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { _ = r.rdb.Close() })
	r.b = newBroker(t, brokers, testenv.UniqueName(t, "inv"))
	r.b.create(4)
	t.Cleanup(func() { _ = r.b.admin.DeleteTopic(r.b.topic) })
	r.cache = r.open(r.h)
	return r
}

// open opens one more node. A new topic's leaders may take a moment.
func (r *rig) open(h *heard) *localsync.Cache {
	r.t.Helper()
	opt := localsync.Options{
		Redis: r.rdb, Brokers: r.b.brokers, Topic: r.b.topic, Prefix: r.prefix, MaxBytes: 8 << 20,
		Observer: h, Logger: silentLog(), ReplicaLag: 50 * time.Millisecond, Silence: time.Second,
	}
	var c *localsync.Cache
	eventually(r.t, "the node opens", func() bool {
		var err error
		c, err = localsync.Open(r.t.Context(), opt)
		return err == nil
	})
	r.t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

func (r *rig) put(id int64, v rowtide.Version, value string) {
	r.t.Helper()
	e := rowtide.Entry{Key: eventKey(id), Version: v, BuiltAt: time.Now(), TTL: time.Minute, Payload: []byte(value)}
	if value == "" {
		e.Flags = rowtide.FlagEmpty | rowtide.FlagDeleted
	}
	codes, err := redis.NewScript(overwrite.Script).Run(r.t.Context(), r.rdb,
		[]string{eventKey(id).Redis(r.prefix)}, string(overwrite.CDC), e.AppendEnvelope(nil), 60_000).Int64Slice()
	if err != nil || codes[0] != int64(overwrite.Written) {
		r.t.Fatalf("overwrite: %v, %v", codes, err)
	}
}

func (r *rig) invalidate(id int64, v rowtide.Version) {
	r.b.send(eventKey(id).Partition(4), rowtide.Invalidation{Key: eventKey(id), Version: v})
}

func (r *rig) module(c *localsync.Cache, o *origin) *events {
	r.t.Helper()
	m, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}), o.load)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// beat is one heartbeat of the daemon, with watermark 1.
func (r *rig) beat() {
	for p := range int32(4) {
		_ = r.b.produce(p) // what is missed shows in what is waited for
	}
}

// settle sends heartbeats until the node has an aged watermark: a load then
// claims a version. Nodes that heard nothing for a moment give Redis nothing, so
// heartbeats go on until the test ends.
func (r *rig) settle(m *events, o *origin) {
	r.t.Helper()
	id := int64(1 << 40)
	eventually(r.t, "the watermark has aged", func() bool {
		r.beat()
		id++
		o.set(id, "x")
		_, info, err := m.Lookup(r.t.Context(), id)
		return err == nil && info.Version == 1
	})
	ctx, stop := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-tick.C:
				r.beat()
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	}()
	r.t.Cleanup(func() { stop(); <-done })
}

func TestIntegration_ACommitTurnsEveryNodeOver(t *testing.T) {
	r, o := newRig(t), newOrigin()
	h2 := newHeard()
	first, second := r.module(r.cache, o), r.module(r.open(h2), o)
	r.put(1, 100, "old")
	want(t, first, 1, "old")
	want(t, second, 1, "old")
	start := time.Now()
	r.put(1, 200, "new")
	r.invalidate(1, 200)
	r.h.want(t, 200)
	h2.want(t, 200)
	t.Logf("redis write, broadcast and two nodes: %v", time.Since(start))
	for _, m := range []*events{first, second} {
		if info := want(t, m, 1, "new"); info.Level != localsync.LevelRedis || info.Version != 200 {
			t.Fatalf("%+v, want 200 from redis", info)
		}
	}
	r.put(1, 300, "")
	r.invalidate(1, 300)
	r.h.want(t, 300)
	if _, err := first.Get(t.Context(), 1); !errors.Is(err, localsync.ErrNotFound) {
		t.Fatalf("after the delete: %v", err)
	}
}

// The overwrite script itself, in the hands of a fill.
func TestIntegration_FillsAreVersioned(t *testing.T) {
	r, o := newRig(t), newOrigin()
	m := r.module(r.cache, o)
	r.settle(m, o)
	if err := r.rdb.ScriptFlush(t.Context()).Err(); err != nil { // NOSCRIPT on the way
		t.Fatal(err)
	}
	o.set(1, "loaded")
	if info := want(t, m, 1, "loaded"); info.Level != localsync.LevelLoader {
		t.Fatalf("%+v, want the loader", info)
	}
	e := r.inRedis(1)
	if string(e.Payload) != "loaded" || e.Flags != rowtide.FlagFill || e.Version != 1 {
		t.Fatalf("redis holds %+v, want the fill", e)
	}
	if ttl := r.rdb.PTTL(t.Context(), eventKey(1).Redis(r.prefix)).Val(); ttl < 20*time.Hour {
		t.Fatalf("its ttl is %v", ttl)
	}

	// Redis moves on during a load; the fill loses and the read gives the change.
	o.set(2, "old")
	reached, release := pause(o)
	got := ask(t.Context(), m, 2)
	await(t, "the load", reached)
	r.put(2, 500, "new")
	close(release)
	if a := reply(t, got); a.value != "new" || a.info.Level != localsync.LevelRedis {
		t.Fatalf("got %+v, want the change", a)
	}
	if e := r.inRedis(2); string(e.Payload) != "new" || e.Version != 500 {
		t.Fatalf("redis holds %+v, want the change", e)
	}
}

func (r *rig) inRedis(id int64) rowtide.Entry {
	r.t.Helper()
	b, err := r.rdb.Get(r.t.Context(), eventKey(id).Redis(r.prefix)).Bytes()
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := rowtide.DecodeEnvelope(eventKey(id), b)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func TestIntegration_GapAndUnusableBytes(t *testing.T) {
	r, o := newRig(t), newOrigin()
	m := r.module(r.cache, o)
	r.settle(m, o)
	r.put(1, 100, "old")
	want(t, m, 1, "old")
	p := eventKey(1).Partition(4)
	r.invalidate(1, 100)
	r.h.want(t, 100)
	r.put(1, 200, "new")
	r.b.skip(p)
	r.b.send(p)
	select {
	case err := <-r.h.suspect:
		t.Log(err)
	case <-time.After(patience):
		t.Fatal("the gap went unseen")
	}
	want(t, m, 1, "new")

	o.set(2, "right")
	if err := r.rdb.Set(t.Context(), eventKey(2).Redis(r.prefix), "garbage", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	want(t, m, 2, "right")
	if err := r.rdb.LPush(t.Context(), eventKey(3).Redis(r.prefix), "x").Err(); err != nil {
		t.Fatal(err)
	}
	o.set(3, "right")
	want(t, m, 3, "right")
}

func TestIntegration_GetManyOfThousands(t *testing.T) {
	r, o := newRig(t), newOrigin()
	m := r.module(r.cache, o)
	r.settle(m, o)
	var ids []int64
	for id := range int64(2000) {
		ids = append(ids, id)
		o.set(id, fmt.Sprint("v", id))
	}
	before := o.loads()
	start := time.Now()
	got, err := m.GetMany(t.Context(), ids)
	if err != nil || len(got) != 2000 {
		t.Fatalf("%d values, %v", len(got), err)
	}
	t.Logf("2000 cold keys: %v in %d loads", time.Since(start), o.loads()-before)
	if d := o.loads() - before; d != 20 {
		t.Fatalf("%d loads, want 20 of 100", d)
	}
	// Another node finds them all in Redis.
	start = time.Now()
	other := r.module(r.open(newHeard()), newOrigin())
	got, err = other.GetMany(t.Context(), ids)
	if err != nil || len(got) != 2000 || got[1999] != "v1999" {
		t.Fatalf("second node: %d values, %v", len(got), err)
	}
	t.Logf("second node, open and 2000 keys from redis: %v", time.Since(start))
}

// Kafka is killed and comes back: the node knows that it is deaf, serves on, and
// then hears everything that was produced, without a gap.
func TestIntegration_KafkaKilledAndRestarted(t *testing.T) {
	kafka, err := testenv.StartKafka(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kafka.Stop(context.Background()) })
	r, o := newRigOn(t, kafka.Brokers()), newOrigin()
	m := r.module(r.cache, o)
	r.put(1, 100, "old")
	want(t, m, 1, "old")
	r.invalidate(1, 100)
	r.h.want(t, 100)
	if err := kafka.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the silence is noticed", func() bool { return r.cache.Stats().Bus.Silent == 4 })
	// A read tells the time by the last tick.
	eventually(t, "reads say so", func() bool { return want(t, m, 1, "old").Degraded })
	if err := kafka.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for v := rowtide.Version(200); v < 210; v++ {
		r.put(1, v, number(uint64(v)))
		r.invalidate(1, v)
	}
	for v := rowtide.Version(200); v < 210; v++ {
		r.h.want(t, v)
	}
	want(t, m, 1, number(209))
	if s := r.cache.Stats().Bus; s.Gaps != 0 || s.Applied != 11 {
		t.Fatalf("%+v, want eleven applied and no gap", s)
	}
}

func TestIntegration_TopicMissing(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	defer func() { _ = rdb.Close() }()
	_, err := localsync.Open(t.Context(), localsync.Options{
		Redis: rdb, Brokers: testenv.Kafka(t), Topic: testenv.UniqueName(t, "none"), Logger: silentLog(),
	})
	if !errors.Is(err, localsync.ErrTopicMissing) || !strings.Contains(err.Error(), "daemon creates it") {
		t.Fatalf("got %v, want ErrTopicMissing", err)
	}
}
