package localsync_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// control is a record for the module event.
func control(edit func(*rowtide.ModuleControl)) rowtide.ModuleControl {
	c := rowtide.ModuleControl{Name: "event", Version: 1, Settings: rowtide.ModuleSettings{
		TTL: 24 * time.Hour, Refresh: time.Minute, EmptyTTL: 30 * time.Second, EmptyRefresh: 10 * time.Second, OnError: "keep", MaxStale: 5 * time.Second,
	}}
	edit(&c)
	return c
}

func TestControl_AgesAreInForceAtTheNextRead(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.pass(30 * time.Second)
	if info := want(t, m, 1, "v"); info.Level != localsync.LevelLocal || n.module("event").Refreshes != 0 {
		t.Fatalf("%+v, want local without a refresh", info)
	}
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.Refresh = 20 * time.Second }))
	want(t, m, 1, "v")
	n.idle(t)
	if got := n.module("event").Refreshes; got != 1 {
		t.Fatalf("%d refreshes, want 1: the entry is older than the new refresh", got)
	}
	n.pass(15 * time.Second)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.TTL, c.Settings.Refresh = 10*time.Second, 10*time.Second }))
	if info := want(t, m, 1, "v"); info.Level == localsync.LevelLocal {
		t.Fatalf("%+v: the entry is older than the new ttl", info)
	}
	// Longer again: what is kept from now on lives longer.
	n.bus.control(control(func(*rowtide.ModuleControl) {}))
	n.commit(1, 195, "w")
	want(t, m, 1, "w")
	n.pass(40 * time.Second)
	if info := want(t, m, 1, "w"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
}

func TestControl_EmptyAgesAreInForceAtTheNextRead(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	want(t, m, 1, "")
	n.bus.control(control(func(c *rowtide.ModuleControl) {
		c.Settings.EmptyTTL, c.Settings.EmptyRefresh = 2*time.Second, time.Second
	}))
	n.evict(1)
	o.set(1, "there")
	n.pass(3 * time.Second)
	want(t, m, 1, "there")
}

func TestControl_OnErrorAndMaxStaleAreFollowed(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.fail(errors.New("database is away"))
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) {
		t.Fatalf("err=%v, want ErrLoad", err)
	}
	n.bus.control(control(func(c *rowtide.ModuleControl) {
		c.Settings.OnError = "optional"
		c.Settings.MaxStale = 100 * time.Second
	}))
	if info := want(t, m, 1, ""); !info.Degraded {
		t.Fatalf("%+v, want a degraded EMPTY", info)
	}
	n.commit(2, 90, "v")
	want(t, m, 2, "v")
	n.silence(50 * time.Second) // past the default, not past the new one
	if info := want(t, m, 2, "v"); info.Level != localsync.LevelLocal || !info.Degraded {
		t.Fatalf("%+v, want local and degraded", info)
	}
}

func TestControl_WhatIsThereAtOpenIsInForceForModulesDeclaredLater(t *testing.T) {
	bus := newFakeBus()
	bus.controls = []rowtide.ModuleControl{
		control(func(c *rowtide.ModuleControl) {
			c.Settings.TTL, c.Settings.Refresh, c.Generation = time.Second, time.Second, 3
		}),
		control(func(c *rowtide.ModuleControl) { c.Name = "other" }),
	}
	n, o := newNode(t, func(opt *localsync.Options) { opt.Bus = bus }), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	want(t, m, 1, "v")
	if e, _ := n.inRedis(1); e.Generation != 3 || e.TTL != time.Second {
		t.Fatalf("loaded value in redis: %+v, want generation 3 and one second", e)
	}
	n.pass(2 * time.Second)
	n.wantNoPeek(1)
}

func TestControl_PinnedKeepsTheCodesSettings(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.Pinned = true })
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.TTL, c.Settings.Refresh = time.Second, time.Second }))
	n.pass(5 * time.Second)
	n.wantPeek(1, 90, "v")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.wantNoPeek(1) // a generation is no setting
}

func TestControl_UnusableRecordChangesNothing(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.bus.apply("event", []byte("not a record"))
	n.bus.apply("event", []byte(`{"format":2}`))
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.TTL, c.Settings.Refresh = time.Second, time.Hour }))
	n.bus.control(control(func(c *rowtide.ModuleControl) {
		c.Settings.TTL, c.Settings.Refresh, c.Settings.OnError = time.Second, time.Second, "explode"
	}))
	n.pass(5 * time.Second)
	n.wantPeek(1, 90, "v")
}

func TestControl_RemovedRecordGivesTheCodesSettingsBack(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Settings.TTL, c.Settings.Refresh = time.Second, time.Second }))
	n.bus.apply("event", nil)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.pass(5 * time.Second)
	n.wantPeek(1, 90, "v")
}

func TestGeneration_LoaderAwayGivesTheOldValueAsStale(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "old")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	o.fail(errors.New("database is away"))
	if info := want(t, m, 1, "old"); !info.Stale {
		t.Fatalf("%+v, want Stale", info)
	}
}

// Only the daemon can say what became of the row. Until then the old value is all
// there is, and Redis is not asked for it at every read.
func TestGeneration_WithoutALoaderTheOldValueIsStale(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event"}, localsync.Codec[string](text{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation = 1 }))
	n.pass(time.Millisecond)
	asked := n.mr.CommandCount()
	for range 10 {
		if info := want(t, m, 1, "v"); !info.Stale {
			t.Fatalf("%+v, want stale", info)
		}
	}
	if got := n.mr.CommandCount() - asked; got != 1 {
		t.Errorf("redis was asked %d times, want 1", got)
	}
	e := rowtide.Entry{Key: eventKey(1), Version: 90, Generation: 1, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("v")}
	if err := n.mr.Set(eventKey(1).Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	n.pass(2 * time.Second)
	if info := want(t, m, 1, "v"); info.Stale || info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want it from redis, and all well", info)
	}
}

// The bus and the control topic have no common order: a value that was built
// before all was to be read again may come after.
func TestGeneration_PushedValueFromBeforeIsNotSwappedIn(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version rowtide.Version
		since   rowtide.Version
		swapped bool
	}{
		{"built before", 149, 150, false},
		{"built with it", 150, 150, true},
		{"built after", 151, 150, true},
		{"bump without a version", 151, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m := n.events(o)
			n.settle(100)
			n.commit(1, 90, "old")
			want(t, m, 1, "old")
			n.bus.control(control(func(c *rowtide.ModuleControl) { c.Generation, c.Since = 1, tt.since }))
			n.pass(time.Millisecond)
			n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: tt.version, Value: []byte("pushed")})
			if _, ok := n.cache.Peek(eventKey(1)); ok != tt.swapped {
				t.Errorf("swapped in: %t, want %t", ok, tt.swapped)
			}
		})
	}
}

// One declared version's own settings do not fit the daemon's; the other's do, and a
// generation is no setting.
func TestControl_UnusableSettingsHoldUpNothingElse(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.events(o, func(c *localsync.ModuleConfig[int64]) { c.Version, c.Refresh = 2, 10*time.Second })
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	unusable := control(func(c *rowtide.ModuleControl) { // a TTL below version 1's Refresh
		c.Settings, c.Generation = rowtide.ModuleSettings{TTL: 20 * time.Second}, 5
	})
	for range 20 { // the order of the versions is a map's
		unusable.Generation++
		n.bus.control(unusable)
		n.wantNoPeek(1)
		for _, s := range n.cache.Stats().Modules {
			if s.Generation != unusable.Generation {
				t.Fatalf("version %d has generation %d, want %d", s.Version, s.Generation, unusable.Generation)
			}
		}
	}
	n.events(o, func(c *localsync.ModuleConfig[int64]) { c.Version = 3 })
	for _, s := range n.cache.Stats().Modules {
		if s.Generation != unusable.Generation {
			t.Errorf("version %d has generation %d, want %d: it is declared later", s.Version, s.Generation, unusable.Generation)
		}
	}
}

func TestControl_AnotherVersionOfTheDaemonIsAsSilence(t *testing.T) {
	var said bytes.Buffer
	n, o := newNode(t, func(opt *localsync.Options) { opt.Logger = slog.New(slog.NewTextHandler(&said, nil)) }), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	announce := func(version uint16) {
		n.bus.control(control(func(c *rowtide.ModuleControl) { c.Version = version }))
	}
	announce(1)
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Fatalf("%+v, want all well", info)
	}
	announce(2)
	announce(2)
	if info := want(t, m, 1, "v"); !info.Degraded || info.Level != localsync.LevelLocal {
		t.Errorf("%+v, want degraded and local", info)
	}
	n.put(1, 95, "w") // a change in the key space that was left; nobody tells
	n.pass(localsync.DefaultMaxStale + time.Second)
	if info := want(t, m, 1, "w"); !info.Degraded || info.Level != localsync.LevelRedis {
		t.Errorf("%+v, want it checked past max_stale", info)
	}
	o.set(2, "loaded")
	if info := want(t, m, 2, "loaded"); !info.Degraded {
		t.Errorf("%+v, want degraded", info)
	}
	if e, ok := n.inRedis(2); ok {
		t.Errorf("redis was given %q by a node that hears nothing of it", e.Payload)
	}
	if got := strings.Count(said.String(), "another version"); got != 1 {
		t.Errorf("%d lines, want 1:\n%s", got, &said)
	}
	n.put(1, 100, "x")
	announce(1)
	n.pass(time.Millisecond)
	if info := want(t, m, 1, "x"); info.Degraded {
		t.Errorf("%+v, want it checked once, and all well", info)
	}
	if info := want(t, m, 1, "x"); info.Degraded || info.Level != localsync.LevelLocal {
		t.Errorf("%+v, want all well", info)
	}
}

func TestControl_VersionIsComparedWithModulesDeclaredLater(t *testing.T) {
	n, o := newNode(t), newOrigin()
	n.bus.control(control(func(c *rowtide.ModuleControl) { c.Version = 2 }))
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "v")
	if info := want(t, m, 1, "v"); !info.Degraded {
		t.Errorf("%+v, want degraded: the daemon writes version 2", info)
	}
}
