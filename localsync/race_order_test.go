package localsync_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

// R6: Redis evicted a key, and with it the proof of what is old. A load that may
// be older than what this node has heard of does not take its place, and neither
// does one that can claim nothing yet.
func TestR6_LoadWithoutProofDoesNotTakeTheEvictedKeysPlace(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	o.set(1, "old")
	want(t, m, 1, "old") // no watermark has been heard
	if e, ok := n.inRedis(1); ok {
		t.Fatalf("redis was given %q at %d by a load that can claim nothing", e.Payload, e.Version)
	}
	n.settle(100)
	n.commit(2, 200, "new")
	n.evict(2)
	o.set(2, "old") // a replica that lags behind the change
	if info := want(t, m, 2, "old"); !info.Stale {
		t.Fatalf("%+v, want it marked", info)
	}
	if e, ok := n.inRedis(2); ok {
		t.Fatalf("redis was given %q at %d, below what was heard", e.Payload, e.Version)
	}
	n.wantNoPeek(2)
}

// R16: keys of one transaction are promised one by one. Between the overwrites
// each read is right by itself; once the record is heard, all are new.
func TestR16_KeysOfATransactionTurnOverOneByOneAndAllOnceHeard(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	from, to := int64(1), int64(2)
	for n.part(to) != n.part(from) {
		to++
	}
	n.commit(from, 90, "100 euros")
	n.commit(to, 90, "0 euros")
	both := func(a, b string) {
		t.Helper()
		got, err := m.GetMany(t.Context(), []int64{from, to})
		if err != nil || got[from] != a || got[to] != b {
			t.Fatalf("got %v, %v; want %q and %q", got, err, a, b)
		}
	}
	both("100 euros", "0 euros")
	n.put(from, 200, "0 euros")
	both("100 euros", "0 euros")
	n.put(to, 200, "100 euros")
	n.bus.batch(n.part(from), n.clock.Now(), n.wm,
		rowtide.Invalidation{Key: eventKey(from), Version: 200}, rowtide.Invalidation{Key: eventKey(to), Version: 200})
	both("0 euros", "100 euros")
	if o.loads() != 0 {
		t.Fatalf("%d loads, want none", o.loads())
	}
}

// R18: the clocks of daemon and Redis writer are years off. Order goes by
// versions, ages by the node's own clock.
func TestR18_SkewedClocksDecideNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	put := func(v rowtide.Version, built time.Time, value string) overwrite.Result {
		e := rowtide.Entry{Key: eventKey(1), Version: v, BuiltAt: built, TTL: time.Hour, Payload: []byte(value)}
		return n.overwrite(eventKey(1).Redis("rowtide"), overwrite.CDC, string(e.AppendEnvelope(nil)), "0")
	}
	past, future := n.clock.Now().AddDate(-10, 0, 0), n.clock.Now().AddDate(10, 0, 0)
	put(200, past, "new")
	if info := want(t, m, 1, "new"); info.Age != 0 || info.Stale {
		t.Fatalf("%+v, want it fresh", info)
	}
	if r := put(150, future, "old"); r != overwrite.Stale {
		t.Fatalf("an older version from the future: %v", r)
	}
	n.bus.batch(n.part(1), future, n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 150})
	n.pass(30 * time.Second)
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLocal || info.Age != 30*time.Second {
		t.Fatalf("%+v, want it untouched and 30 s old", info)
	}
	put(300, past, "newest")
	n.bus.batch(n.part(1), past, n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 300})
	want(t, m, 1, "newest")
}

// R20: a failover of the source makes positions start over. The new lineage's
// epoch puts its versions above all of the old one's.
func TestR20_NewEpochBeatsAHigherPosition(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	version := func(epoch, file uint32, pos uint64) rowtide.Version {
		v, err := rowtide.NewVersion(epoch, file, pos)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before, after := version(3, 900, 1<<30), version(4, 1, 4)
	n.settle(before)
	n.commit(1, before, "old primary")
	want(t, m, 1, "old primary")
	n.commit(1, after, "new primary")
	if info := want(t, m, 1, "new primary"); info.Version != after || info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want %v from redis", info, after)
	}
	// The old primary's daemon is late, in Redis and on the bus.
	late := version(3, 901, 4)
	if r := n.overwrite(eventKey(1).Redis("rowtide"), overwrite.CDC, string(n.envelope(1, late, "late")), "0"); r != overwrite.Stale {
		t.Fatalf("redis took the old lineage: %v", r)
	}
	n.invalidate(1, late)
	want(t, m, 1, "new primary")
	n.wantPeek(1, after, "new primary")
}

// R21: Redis failed over and lost a write that this node has read.
func TestR21_NodeDoesNotStepBackWithRedis(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	n.commit(1, 200, "new")
	want(t, m, 1, "new")
	if err := n.mr.Set(eventKey(1).Redis("rowtide"), string(n.envelope(1, 90, "old"))); err != nil {
		t.Fatal(err)
	}
	o.fail(errors.New("database is away"))
	n.pass(time.Second)
	n.bus.lose(n.part(1)) // a reason to look at Redis again
	n.beat()
	n.pass(time.Millisecond)
	if info := want(t, m, 1, "new"); !info.Stale {
		t.Fatalf("%+v, want it marked: nobody could confirm it", info)
	}
	n.wantFloorOrPeek(1, 200)
	n.put(1, 200, "new") // the daemon reads the log again from before the failover
	n.pass(2 * time.Second)
	if info := want(t, m, 1, "new"); info.Stale {
		t.Fatalf("%+v, want it confirmed", info)
	}
}

// wantFloorOrPeek wants the node to know better than anything below v.
func (n *node) wantFloorOrPeek(id int64, v rowtide.Version) {
	n.t.Helper()
	if got := n.cache.Floor(eventKey(id)); got < v {
		n.t.Fatalf("floor is %d, want at least %d", got, v)
	}
}

// R24: two keys whose names have the same 64-bit FNV-1a hash share a floor and a
// place. That may cost a read, and never gives one the other's value.
func TestR24_CollidingHashesNeverMixKeysUp(t *testing.T) {
	const a, b = "hAR7-YYQIzQkn4", "10w.fccWV-ElUG" // behind "event:1:"
	if fnv(rowtide.Key{Module: "event", Version: 1, ID: a}) != fnv(rowtide.Key{Module: "event", Version: 1, ID: b}) {
		t.Fatal("the names do not collide")
	}
	n := newNode(t)
	rows := map[string]string{a: "of a", b: "of b"}
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[string]{Name: "event", LoadTimeout: patience},
		localsync.Codec[string](text{}), func(_ context.Context, ks []string) (map[string]string, error) {
			out := map[string]string{}
			for _, k := range ks {
				out[k] = rows[k]
			}
			return out, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	check := func() {
		t.Helper()
		for range 2 {
			for _, k := range []string{a, b} {
				if v, info, err := m.Lookup(t.Context(), k); err != nil || v != rows[k] || info.Stale {
					t.Fatalf("%s is %q, %+v, %v; want %q", k, v, info, err, rows[k])
				}
			}
		}
		got, err := m.GetMany(t.Context(), []string{a, b})
		if err != nil || got[a] != rows[a] || got[b] != rows[b] {
			t.Fatalf("together: %q, %v; want %q", got, err, rows)
		}
	}
	check()
	// A change of one of them raises the floor of both.
	k := rowtide.Key{Module: "event", Version: 1, ID: a}
	rows[a] = "of a, changed"
	e := rowtide.Entry{Key: k, Version: 200, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte(rows[a])}
	n.overwrite(k.Redis("rowtide"), overwrite.CDC, string(e.AppendEnvelope(nil)), "0")
	n.bus.batch(k.Partition(n.bus.partitions), n.clock.Now(), n.wm, rowtide.Invalidation{Key: k, Version: 200})
	n.settle(300)
	check()
}

// R11, R7: the very first record after the pin is lost. What is heard next cannot tell,
// so that what was kept until then is checked.
func TestR11_WhatWasKeptBeforeTheFirstRecordIsChecked(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.put(1, 90, "old")
	want(t, m, 1, "old")
	n.put(1, 95, "new")
	n.bus.lose(n.part(1))
	n.clock.ns.Add(int64(time.Millisecond))
	n.beat()
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
	if got := n.cache.Stats().Bus.Gaps; got != 0 {
		t.Errorf("%d gaps told, want none: every node begins so", got)
	}
}

// What is under way when the first record comes is not done again: it is checked when it
// is next read, as all that was kept before.
func TestR11_LoadUnderWayAtTheFirstRecordCounts(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	o.set(1, "of the source")
	reached, release := pause(o)
	ch := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	n.clock.ns.Add(int64(time.Millisecond))
	n.beat()
	close(release)
	if a := reply(t, ch); a.err != nil || a.value != "of the source" || o.loads() != 1 {
		t.Fatalf("%+v after %d loads, want the value after one", a, o.loads())
	}
	n.put(1, 90, "of the change")
	want(t, m, 1, "of the change")
}
