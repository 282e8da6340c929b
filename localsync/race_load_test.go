package localsync_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// R15: "could not find out" is never remembered as "absent" where others see it.
func TestR15_ErrorIsNotAbsence(t *testing.T) {
	n, o := newNode(t), newOrigin()
	core := n.events(o)
	n.settle(100)
	away := errors.New("database is away")
	o.fail(away)
	_, err := core.Get(t.Context(), 1)
	if !errors.Is(err, localsync.ErrLoad) || !errors.Is(err, away) || errors.Is(err, localsync.ErrNotFound) {
		t.Fatalf("got %v, want ErrLoad with its cause", err)
	}
	if _, ok := n.inRedis(1); ok {
		t.Fatal("redis was told of an absence")
	}
	o.fail(nil)
	o.set(1, "v")
	want(t, core, 1, "v")
}

func TestR15_OptionalModuleRemembersAnErrorHereAndBriefly(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.OnError = localsync.Optional })
	n.settle(100)
	o.fail(errors.New("database is away"))
	for range 3 {
		if info := want(t, m, 1, ""); !info.Degraded {
			t.Fatalf("%+v, want Degraded", info)
		}
	}
	if got := o.loads(); got != 1 {
		t.Fatalf("loader was called %d times, want once", got)
	}
	if _, ok := n.inRedis(1); ok {
		t.Fatal("redis was told of an absence")
	}
	n.wantNoPeek(1)
	o.fail(nil)
	o.set(1, "v")
	n.pass(6 * time.Second)
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Fatalf("%+v, want it healed", info)
	}
}

// R17: a loaded value claims the watermark from before the load.
func TestR17_VersionIsTakenBeforeTheValue(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	n.settle(500)
	close(release)
	if a := reply(t, got); a.info.Version != 100 {
		t.Fatalf("%+v, want version 100", a)
	}
	if e, _ := n.inRedis(1); e.Version != 100 || e.Flags != rowtide.FlagFill {
		t.Fatalf("redis holds version %d flags %#x, want a fill at 100", e.Version, e.Flags)
	}
}

// R23: the bus goes on while a loader and Redis hang.
func TestR23_ApplyNeverWaitsForLoads(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(2, 90, "resident")
	want(t, m, 2, "resident")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	reading := make(chan struct{})
	var once sync.Once
	n.onCommand(func(cmd string, _ []string) {
		if cmd == "MGET" {
			once.Do(func() { close(reading) })
			<-release
		}
	})
	n.invalidate(2, 91)
	other := ask(t.Context(), m, 2)
	await(t, "the redis read", reading)

	applied := make(chan struct{})
	go func() {
		defer close(applied)
		for v := rowtide.Version(200); v < 300; v++ {
			n.invalidate(1, v)
			n.invalidate(2, v)
		}
	}()
	await(t, "200 invalidations", applied)
	close(release)
	reply(t, got)
	reply(t, other)
}

// R26: the first reader gives up, the load goes on for the second.
func TestR26_ReaderThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	reached, release := pause(o)
	var loadErr error
	inner := o.gate
	o.gate = func(ctx context.Context, ids []int64) {
		inner(ctx, ids)
		loadErr = ctx.Err()
	}
	ctx, giveUp := context.WithCancel(t.Context())
	first := ask(ctx, m, 1)
	await(t, "the load", reached)
	second := ask(t.Context(), m, 1)
	giveUp()
	if a := reply(t, first); !errors.Is(a.err, context.Canceled) {
		t.Fatalf("first reader got %+v, want its own cancellation", a)
	}
	close(release)
	if a := reply(t, second); a.err != nil || a.value != "v" {
		t.Fatalf("second reader got %+v, want v", a)
	}
	if loadErr != nil || o.loads() != 1 {
		t.Fatalf("the load saw %v, %d calls; want one undisturbed call", loadErr, o.loads())
	}
}
