package localsync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
	"github.com/rowtide/rowtide/localsync"
)

func TestGet_LevelsInTurn(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	for _, level := range []localsync.Level{localsync.LevelLoader, localsync.LevelLocal} {
		if info := want(t, m, 1, "v"); info.Level != level || info.Version != 100 || info.Stale || info.Degraded {
			t.Fatalf("%+v, want %v at 100", info, level)
		}
	}
	e, ok := n.inRedis(1)
	if !ok || string(e.Payload) != "v" || e.Version != 100 || e.Flags != rowtide.FlagFill {
		t.Fatalf("redis holds %+v, want the fill for the next node", e)
	}
	if ttl := n.mr.TTL(eventKey(1).Redis("rowtide")); ttl < 21*time.Hour || ttl > 27*time.Hour {
		t.Fatalf("its ttl is %v, want 24 h give or take a tenth", ttl)
	}
	s := n.module("event")
	if s.Local != 1 || s.Loader != 1 || s.Redis != 0 || s.Loads != 1 || s.Errors != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestGet_AbsentIsRememberedEverywhere(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	for range 3 {
		want(t, m, 1, "")
	}
	e, ok := n.inRedis(1)
	if o.loads() != 1 || !ok || e.Flags != rowtide.FlagEmpty|rowtide.FlagFill {
		t.Fatalf("%d loads, redis %+v; want one load and an EMPTY fill", o.loads(), e)
	}
	if s := n.module("event"); s.Empty != 3 || s.Errors != 0 {
		t.Fatalf("%+v, want three EMPTY", s)
	}
	n.commit(1, 200, "v")
	want(t, m, 1, "v")
}

func TestGet_OneLoadForManyReaders(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	reached, release := pause(o)
	first := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	var rest []<-chan answer
	for range 20 {
		rest = append(rest, ask(t.Context(), m, 1))
	}
	close(release)
	for _, ch := range append(rest, first) {
		if a := reply(t, ch); a.value != "v" || a.err != nil {
			t.Fatalf("got %+v", a)
		}
	}
	if o.loads() != 1 {
		t.Fatalf("%d loads, want 1", o.loads())
	}
}

func TestGet_LoaderPanicIsAnErrorForAllAndTheKeyLives(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.gate = func(context.Context, []int64) { panic("boom") }
	for range 2 {
		if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) || !strings.Contains(err.Error(), "boom") {
			t.Fatalf("got %v, want ErrLoad with the panic", err)
		}
	}
	o.gate = nil
	o.set(1, "v")
	want(t, m, 1, "v")
}

// As t.Fatal in a loader does.
func TestGet_LoaderThatEndsItsGoroutineIsAnErrorAndTheKeyLives(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.gate = func(context.Context, []int64) { runtime.Goexit() }
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) || !strings.Contains(err.Error(), "ended its goroutine") {
		t.Fatalf("got %v, want ErrLoad that says why", err)
	}
	o.gate = nil
	o.set(1, "v")
	want(t, m, 1, "v")
}

func TestGet_LoaderPastItsDeadlineIsAnErrorEvenIfItIgnoresIt(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.LoadTimeout = 50 * time.Millisecond })
	n.settle(100)
	_, release := pause(o)
	defer close(release)
	if _, err := m.Get(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, localsync.ErrLoad) {
		t.Fatalf("got %v, want ErrLoad by deadline", err)
	}
}

func TestGet_KeepLastServesTheLastValueWhenLoadingFails(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "last")
	want(t, m, 1, "last")
	n.evict(1)
	n.invalidate(1, 200)
	o.fail(errors.New("database is away"))
	for range 5 {
		if info := want(t, m, 1, "last"); !info.Stale || info.Version != 90 {
			t.Fatalf("%+v, want stale at 90", info)
		}
	}
	if o.loads() != 1 {
		t.Fatalf("%d loads within a second of a failure, want 1", o.loads())
	}
	o.fail(nil)
	o.set(1, "next")
	n.settle(200)
	if info := want(t, m, 1, "next"); info.Stale {
		t.Fatalf("%+v", info)
	}
}

func TestGet_UnusableBytesInRedisAreAMiss(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	good := n.envelope(1, 90, "wrong")
	newer := slices.Clone(good)
	newer[1] |= 0x80
	other := (&rowtide.Entry{Key: eventKey(2), Version: 90, Payload: []byte("wrong")}).AppendEnvelope(nil)
	otherVersion := (&rowtide.Entry{Key: rowtide.Key{Module: "event", Version: 2, ID: "1"}, Version: 90, Payload: []byte("wrong")}).AppendEnvelope(nil)
	tests := []struct {
		name  string
		bytes []byte
	}{
		{"foreign", []byte(`{"title":"wrong"}`)},
		{"empty", nil},
		{"short", good[:20]},
		{"flipped bit", corrupt(good)},
		{"newer format", newer},
		{"another key's", other},
		{"another module version's", otherVersion},
		{"not the codec's", n.envelope(1, 90, "\x00wrong")},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m := n.events(o)
			n.settle(100)
			o.set(1, "right")
			if err := n.mr.Set(eventKey(1).Redis("rowtide"), string(tt.bytes)); err != nil {
				t.Fatal(err)
			}
			want(t, m, 1, "right")
			if s := n.module("event"); s.Corrupt != 1 || s.Loads != 1 {
				t.Fatalf("%d: %+v, want one corrupt and one load", i, s)
			}
			want(t, m, 1, "right")
		})
	}
	before := n.module("event").Corrupt // a list under the key is no string at all
	if _, err := n.mr.Lpush(eventKey(9).Redis("rowtide"), "x"); err != nil {
		t.Fatal(err)
	}
	o.set(9, "right")
	want(t, m, 9, "right")
	if s := n.module("event"); s.Corrupt != before+1 {
		t.Errorf("%+v, want the list counted", s)
	}
}

func TestGetMany_LocalThenOneMGetThenBatches(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.Batch = 10 })
	n.settle(100)
	var ids []int64
	for id := range int64(60) {
		ids = append(ids, id, id) // twice: asked for once
		switch {
		case id < 10:
			n.put(id, 90, "local")
			want(t, m, id, "local")
		case id < 25:
			n.put(id, 90, "redis")
		case id < 50:
			o.set(id, "loader")
		}
	}
	before := n.commands("MGET")
	got, err := m.GetMany(t.Context(), ids)
	if err != nil || len(got) != 50 {
		t.Fatalf("%d values, %v; want 50", len(got), err)
	}
	for id, v := range map[int64]string{0: "local", 10: "redis", 49: "loader"} {
		if got[id] != v {
			t.Fatalf("event %d is %q, want %q", id, got[id], v)
		}
	}
	if d := n.commands("MGET") - before; d != 1 {
		t.Fatalf("%d MGETs, want 1", d)
	}
	if o.loads() != 4 { // 35 keys
		t.Fatalf("%d loader calls, want 4 of at most 10 keys", o.loads())
	}
	if s := n.module("event"); s.Local != 10 || s.Redis != 25 || s.Loader != 35 || s.Empty != 10 {
		t.Fatalf("%+v", s) // the ten single reads above came from Redis
	}
}

func TestGetMany_PartialResultsWithTypedError(t *testing.T) {
	n := newNode(t)
	n.settle(100)
	cause := errors.New("shard 2 is away")
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Batch: 2}, localsync.Codec[string](text{}),
		func(_ context.Context, ids []int64) (map[int64]string, error) {
			if slices.Contains(ids, 3) {
				return nil, cause
			}
			out := map[int64]string{}
			for _, id := range ids {
				out[id] = fmt.Sprint("v", id)
			}
			return out, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.GetMany(t.Context(), []int64{1, 2, 3, 4, 5, 6})
	var partial *localsync.PartialError[int64]
	if !errors.As(err, &partial) || !errors.Is(err, cause) || !errors.Is(err, localsync.ErrLoad) {
		t.Fatalf("got %v, want a PartialError", err)
	}
	if len(partial.Failed) != 2 || partial.Failed[3] == nil || partial.Failed[4] == nil {
		t.Fatalf("failed: %v, want 3 and 4", partial.Failed)
	}
	if len(got) != 4 || got[6] != "v6" {
		t.Fatalf("got %v, want the other four", got)
	}
	if _, err := m.GetMany(t.Context(), nil); err != nil {
		t.Fatalf("no keys: %v", err)
	}
}

func TestTooBig_IsServedCountedAndNotKept(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.MaxBytes = 1 << 20 })
	o := newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "small")
	want(t, m, 1, "small")
	big := strings.Repeat("x", 600<<10)
	o.set(2, big)
	want(t, m, 2, big)
	n.wantNoPeek(2)
	n.wantPeek(1, 100, "small")
	if s := n.cache.Stats().Store; s.TooBig != 1 || s.Entries != 1 {
		t.Fatalf("%+v, want one too big, one entry", s)
	}
}

func TestEviction_KeepsTheTableInStep(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.MaxBytes = 1 << 20 })
	o := newOrigin()
	m := n.events(o)
	n.settle(100)
	value := strings.Repeat("x", 64<<10)
	for id := range int64(64) {
		o.set(id, value)
		want(t, m, id, value)
	}
	s := n.cache.Stats().Store
	if s.Bytes > 1<<20 || s.Evicted == 0 || s.Entries > 16 || s.Entries+int(s.Evicted) != 64 {
		t.Fatalf("%+v, want at most 1 MiB and every entry accounted for", s)
	}
}

func TestNilLoader_KnowsWhatTheDaemonWrote(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	want(t, m, 2, "")
	n.put(2, 95, "w")
	want(t, m, 2, "w")
}

func TestClose_IsIdempotentWaitsForLoadsAndEndsReads(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)

	var wg sync.WaitGroup
	errs := make(chan error, 2)
	for range 2 {
		wg.Go(func() { errs <- n.cache.Close(context.Background()) })
	}
	eventually(t, "reads are refused", func() bool {
		_, err := m.Get(t.Context(), 2)
		return errors.Is(err, localsync.ErrClosed)
	})
	close(release)
	if a := reply(t, got); a.value != "v" {
		t.Fatalf("the load under way gave %+v", a)
	}
	wg.Wait()
	for range 2 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.GetMany(t.Context(), []int64{1}); !errors.Is(err, localsync.ErrClosed) {
		t.Fatalf("GetMany: %v, want ErrClosed", err)
	}
	if got := n.bus.closed.Load(); got != 1 {
		t.Fatalf("bus was closed %d times", got)
	}
}

// While a bumped module's new key space fills, the old one answers where nothing
// else does; its values are marked and not kept, so that a change in either key space
// is seen at once.
func TestR19_PreviousKeySpaceIsReadWhileTheNewOneFills(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Version: 2, Previous: 1}, localsync.Codec[string](text{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	for _, value := range []string{"old", "older node's daemon wrote this", ""} { // version 1's key
		n.put(1, n.wm-1, value)
		if info := want(t, m, 1, value); info.Level != localsync.LevelRedis || !info.Stale {
			t.Fatalf("%+v, want redis and stale", info)
		}
		n.settle(n.wm + 10)
	}
	k := rowtide.Key{Module: "event", Version: 2, ID: "1"}
	if _, ok := n.cache.Peek(k); ok {
		t.Fatal("a value of the old key space was kept")
	}
	e := rowtide.Entry{Key: k, Version: n.wm - 1, BuiltAt: n.clock.Now(), Payload: []byte("new")}
	n.overwrite(k.Redis("rowtide"), overwrite.CDC, string(e.AppendEnvelope(nil)), "0")
	if info := want(t, m, 1, "new"); info.Stale {
		t.Fatalf("%+v, want all well", info)
	}
	if _, ok := n.cache.Peek(k); !ok {
		t.Fatal("a value of the new key space was not kept")
	}
}

// The code names the former key space for as long as the daemon writes it; then the
// daemon tells for how long it stands in. A row that was deleted must not come back
// once its EMPTY entry has expired.
func TestR19_FormerKeySpaceIsLeftOnceTheNewOneIsFilled(t *testing.T) {
	n := newNode(t)
	tell := func(version, previous uint16) {
		n.bus.control(rowtide.ModuleControl{Name: "event", Version: version, Previous: previous})
	}
	open := func(version, previous uint16, pinned bool) *localsync.Module[int64, string] {
		m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "event", Version: version, Previous: previous, Pinned: pinned},
			localsync.Codec[string](text{}), nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	n.settle(100)
	n.put(1, 90, "old") // version 1's key
	tell(1, 0)
	named, silent := open(2, 1, false), open(4, 0, true)
	want(t, named, 1, "old") // the node is ahead of the daemon
	want(t, silent, 1, "")
	tell(2, 1)
	want(t, named, 1, "old")
	tell(2, 0)
	want(t, named, 1, "")
	tell(4, 1)
	want(t, silent, 1, "old") // the daemon knows it without the code
	tell(4, 0)
	want(t, silent, 1, "")
	tell(3, 1)
	late := open(3, 2, false) // the word came before the module
	want(t, late, 1, "old")
	tell(3, 0)
	want(t, late, 1, "")
}

// The row may have been deleted after the bump: the loader knows, the old key space
// does not. That is for a loader which fails.
func TestR19_LoaderGoesBeforeThePreviousKeySpace(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.Version, c.Previous = 2, 1 })
	n.settle(100)
	n.put(1, 90, "deleted since") // version 1's key
	n.put(2, 90, "old")
	if info := want(t, m, 1, ""); info.Level != localsync.LevelLoader || info.Stale {
		t.Fatalf("%+v, want the loader's", info)
	}
	o.fail(errors.New("database is away"))
	if info := want(t, m, 2, "old"); info.Level != localsync.LevelRedis || !info.Stale {
		t.Fatalf("%+v, want the old one, stale", info)
	}
	if _, ok := n.cache.Peek(rowtide.Key{Module: "event", Version: 2, ID: "2"}); ok {
		t.Fatal("a value of the old key space was kept")
	}
}
