package localsync_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// A new generation is one store; each entry is loaded again when it is read, and
// kept as any other, also when nothing has changed in the source meanwhile.
func TestGeneration_EntriesAreLoadedAgainOnce(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	for _, id := range []int64{1, 2, 3} {
		n.put(id, rowtide.Version(100), "old") // as new as any load can claim to be
		o.set(id, "new")
	}
	want(t, m, 1, "old")
	want(t, m, 2, "old")
	n.pass(time.Second)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.pass(afterLag)
	if got := o.loads(); got != 0 {
		t.Fatalf("%d loads before any read", got)
	}
	n.wantNoPeek(1)
	for _, id := range []int64{1, 3} { // resident, and in Redis only
		if info := want(t, m, id, "new"); info.Level != localsync.LevelLoader || info.Stale {
			t.Fatalf("event %d: %+v, want it loaded", id, info)
		}
		if info := want(t, m, id, "new"); info.Level != localsync.LevelLocal {
			t.Fatalf("event %d: %+v, want local", id, info)
		}
	}
	if got := o.loads(); got != 2 {
		t.Fatalf("%d loads, want 2", got)
	}
	// An older one, heard late, is nothing; and what Redis holds of this one is good.
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 0 }))
	e := rowtide.Entry{Key: eventKey(2), Version: 101, Generation: 1, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("rebuilt")}
	if err := n.mr.Set(eventKey(2).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	if info := want(t, m, 2, "rebuilt"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
	if got := n.module("event").Generation; got != 1 {
		t.Fatalf("generation %d, want 1", got)
	}
}

// R25, R3: right after a mass change a replica may not have it. What is loaded then
// is served as Stale, one load for all readers of a second, and goes to no other node.
func TestR25_LoadedRightAfterAMassChangeProvesNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 100, "before")
	want(t, m, 1, "before")
	n.pass(time.Second)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.pass(time.Millisecond)
	for _, id := range []int64{1, 2} { // resident, and nowhere
		o.set(id, "perhaps before")
		for range 5 {
			if info := want(t, m, id, "perhaps before"); !info.Stale {
				t.Fatalf("event %d: %+v, want it stale", id, info)
			}
		}
		if e, ok := n.inRedis(id); ok && e.Generation != 0 {
			t.Fatalf("redis was given %+v", e)
		}
		n.wantNoPeek(id)
	}
	if got := o.loads(); got != 2 {
		t.Fatalf("%d loads, want one a key", got)
	}
	n.settle(200)
	for _, id := range []int64{1, 2} {
		o.set(id, "after")
		if _, err := m.Get(t.Context(), id); err != nil { // one is refreshed behind its reader
			t.Fatal(err)
		}
		n.idle(t)
		if info := want(t, m, id, "after"); info.Stale {
			t.Fatalf("event %d: %+v, want it proven", id, info)
		}
		if e, ok := n.inRedis(id); !ok || e.Generation != 1 || string(e.Payload) != "after" {
			t.Fatalf("redis has %+v", e)
		}
	}
}

// What stands in is served while nothing better can be had for a moment: after it
// Redis is asked, however long nobody read, and those who wait for one load share it.
func TestR25_WhatStandsInIsAskedForAgain(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.invalidate(1, 150)
	n.pass(time.Millisecond)
	for _, id := range []int64{1, 2} { // with a floor, and without
		o.set(id, "before")
		want(t, m, id, "before")
	}
	for _, id := range []int64{1, 2} {
		e := rowtide.Entry{Key: eventKey(id), Version: 150, Generation: 1, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("after")}
		if err := n.mr.Set(eventKey(id).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
			t.Fatal(err)
		}
	}
	n.pass(3 * time.Minute)
	for _, id := range []int64{1, 2} {
		if info := want(t, m, id, "after"); info.Stale || info.Level != localsync.LevelRedis {
			t.Fatalf("event %d: %+v, want redis", id, info)
		}
	}
}

// The same where nobody can load: Redis's entry of the older generation is all there is.
// Its readers cost Redis one look a second, and the daemon's is served at once.
func TestR25_WhatNobodyCanLoadStandsInToo(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	n.put(1, 100, "before")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.pass(time.Millisecond)
	for round, looks := range []int{1, 2} {
		for range 5 {
			if info := want(t, m, 1, "before"); !info.Stale {
				t.Fatalf("%+v, want it stale", info)
			}
		}
		if got := n.commands("MGET"); got != looks {
			t.Fatalf("round %d: %d looks at redis, want %d", round, got, looks)
		}
		n.pass(1100 * time.Millisecond)
	}
	want(t, m, 1, "before")
	e := rowtide.Entry{Key: eventKey(1), Version: 150, Generation: 1, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("after")}
	if err := n.mr.Set(eventKey(1).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	n.invalidate(1, 150)
	n.pass(time.Millisecond)
	if info := want(t, m, 1, "after"); info.Stale || info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
}

func TestR25_ReadersWhoWaitTogetherShareTheLoadThatProvesNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 100, "before")
	want(t, m, 1, "before")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.pass(time.Millisecond)
	o.set(1, "perhaps before")
	reached, release := pause(o)
	first := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	var others []<-chan answer
	for range 20 {
		others = append(others, ask(t.Context(), m, 1))
	}
	<-time.After(50 * time.Millisecond) // most have joined; those who have not are served what stands in
	close(release)
	for _, a := range append(others, first) {
		if got := reply(t, a); got.value != "perhaps before" || !got.info.Stale {
			t.Errorf("%+v, want the load's, marked", got)
		}
	}
	if o.loads() != 1 {
		t.Errorf("%d loads, want 1", o.loads())
	}
}

// R19, R3: a node that declares the new key space early hears of changes in it only
// once the daemon writes it.
func TestR19_LoadedRightAfterABumpProvesNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Version = 2 }))
	m := n.events(o) // of version 1
	n.settle(100)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Version = 1 }))
	n.pass(time.Millisecond)
	o.set(1, "perhaps before")
	if info := want(t, m, 1, "perhaps before"); !info.Stale {
		t.Fatalf("%+v, want it stale", info)
	}
	if e, ok := n.inRedis(1); ok {
		t.Fatalf("redis was given %+v", e)
	}
}

// What a loader wrote after the bump carries the new generation: the next node
// takes it from Redis.
func TestGeneration_LoadedValueIsOfTheGenerationThatWasKnownBefore(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	want(t, m, 1, "v")
	if e, ok := n.inRedis(1); !ok || e.Generation != 0 {
		t.Fatalf("%+v, want generation 0", e)
	}
	n.settle(200)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 7 }))
	n.pass(afterLag)
	want(t, m, 1, "v")
	if e, ok := n.inRedis(1); !ok || e.Generation != 7 {
		t.Fatalf("%+v, want generation 7", e)
	}
}

func TestR27_BumpDuringALoadIsNotLost(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "before")
	first := true
	o.gate = func(context.Context, []int64) {
		if first { // the rows have been read, the answer is not there yet
			first = false
			n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
			o.set(1, "after")
			n.pass(time.Millisecond)
		}
	}
	want(t, m, 1, "before")
	n.wantNoPeek(1)
	n.settle(200)
	want(t, m, 1, "after")
}
