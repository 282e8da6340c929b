package localsync_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

func TestLease_DeadHolderIsWaitedForOnlySoLong(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(1, o, leaseWait(100*time.Millisecond))
	n.hold(1)
	start := time.Now()
	if info := want(t, f[0].shows, 1, "v"); info.Level != localsync.LevelLoader {
		t.Fatalf("%+v, want the loader's", info)
	}
	if took := time.Since(start); took < 70*time.Millisecond {
		t.Fatalf("loaded after %v, without waiting", took)
	}
	if s := f[0].stats(); s.LeaseWaits == 0 || s.LeaseTimeouts != 1 || s.Leases != 0 {
		t.Fatalf("%+v, want waits, one of them timed out", s)
	}
	if e, _ := n.inRedis(1); string(e.Payload) != "v" {
		t.Fatalf("redis holds %q, want v", e.Payload)
	}
}

// The lease of a node that died ends by itself, and one of those who wait loads.
func TestLease_EndedLeaseHasOneHeir(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(20, o, leaseWait(3*time.Second))
	n.hold(1)
	var asked []<-chan answer
	for _, m := range f {
		asked = append(asked, ask(t.Context(), m.shows, 1))
	}
	eventually(t, "all wait", func() bool { return f.sum(waits) == 20 })
	n.mr.Del(leaseKey(1))
	for _, ch := range asked {
		if a := reply(t, ch); a.err != nil || a.value != "v" {
			t.Fatalf("got %+v, want v", a)
		}
	}
	if o.loads() != 1 || f.sum(timeouts) != 0 {
		t.Fatalf("%d loads, %d timeouts; want one load", o.loads(), f.sum(timeouts))
	}
}

func TestLease_LostNewsIsMadeUpForByAnotherLook(t *testing.T) {
	n, o := newNode(t), newOrigin()
	f := n.fleet(1, o, leaseWait(200*time.Millisecond))
	// The subscription is there already: its opening is a reason to look, too.
	n.hold(2)
	n.fillOnceHeld(f[0], 2)
	n.hold(1)
	got := ask(t.Context(), f[0].shows, 1)
	eventually(t, "it waits", func() bool { return f.sum(waits) == 2 })
	n.fill(1, 100, "v")
	if a := reply(t, got); a.value != "v" || a.info.Level != localsync.LevelRedis {
		t.Fatalf("got %+v, want v from redis", a)
	}
	if o.loads() != 0 {
		t.Fatalf("%d loads, want none", o.loads())
	}
}

func TestLease_HolderThatFailsSendsTheOthersOff(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(2, o, leaseWait(8*time.Second))
	down := errors.New("database is away")
	o.fail(down)
	reached, release := pause(o)
	first := ask(t.Context(), f[0].shows, 1)
	await(t, "the load", reached)
	second := ask(t.Context(), f[1].shows, 1)
	eventually(t, "the second waits", func() bool { return f.sum(waits) == 1 })
	o.fail(nil)
	start := time.Now()
	close(release)
	if a := reply(t, first); !errors.Is(a.err, down) {
		t.Fatalf("first got %+v, want its own error", a)
	}
	if a := reply(t, second); a.value != "v" || a.err != nil {
		t.Fatalf("second got %+v, want v", a)
	}
	if took := time.Since(start); took > 3*time.Second || f.sum(timeouts) != 0 {
		t.Fatalf("the second waited %v, %d timeouts; want it sent off", took, f.sum(timeouts))
	}
}

func TestLease_WithoutTheRightToSubscribeNobodyWaits(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	o.set(2, "w")
	n.mu.Lock()
	n.deny = "SUBSCRIBE"
	n.mu.Unlock()
	f := n.fleet(1, o)
	n.hold(1)
	n.hold(2)
	want(t, f[0].shows, 1, "v")
	want(t, f[0].shows, 2, "w")
	if f.sum(timeouts) != 0 || n.commands("SUBSCRIBE") > 1 {
		t.Fatalf("%d timeouts, %d attempts to subscribe", f.sum(timeouts), n.commands("SUBSCRIBE"))
	}
}

func TestLease_WithoutTheRightToLeaseNodesLoadAsTheyWould(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	if _, err := n.mr.Lpush(leaseKey(1), "somebody's list"); err != nil {
		t.Fatal(err)
	}
	f := n.fleet(1, o)
	want(t, f[0].shows, 1, "v")
	if e, _ := n.inRedis(1); string(e.Payload) != "v" {
		t.Fatalf("redis holds %q, want v", e.Payload)
	}
	if s := f[0].stats(); s.Leases+s.LeaseWaits+s.RedisErrors != 0 {
		t.Fatalf("%+v, want no lease and no error", s)
	}
}

func TestLease_ReaderThatGivesUpWaitingDoesNotHurtTheOthers(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(2, o)
	reached, release := pause(o)
	holder := ask(t.Context(), f[0].shows, 1)
	await(t, "the load", reached)
	ctx, giveUp := context.WithCancel(t.Context())
	first := ask(ctx, f[1].shows, 1)
	eventually(t, "the node waits", func() bool { return f.sum(waits) == 1 })
	second := ask(t.Context(), f[1].shows, 1)
	giveUp()
	if a := reply(t, first); !errors.Is(a.err, context.Canceled) {
		t.Fatalf("first got %+v, want its own cancellation", a)
	}
	close(release)
	for _, ch := range []<-chan answer{holder, second} {
		if a := reply(t, ch); a.value != "v" || a.err != nil {
			t.Fatalf("got %+v, want v", a)
		}
	}
}

func TestLease_CloseEndsWaits(t *testing.T) {
	n, o := newNode(t), newOrigin()
	f := n.fleet(1, o)
	n.hold(2)
	n.fillOnceHeld(f[0], 2) // the subscription is there
	n.hold(1)
	got := ask(t.Context(), f[0].shows, 1)
	eventually(t, "it waits", func() bool { return f.sum(waits) == 2 })
	f[0].abandoned = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = f[0].cache.Close(ctx) // with the context's error, as documented
	}()
	await(t, "close", closed)
	if a := reply(t, got); a.err == nil {
		t.Fatalf("got %+v, want an error", a)
	}
}

func TestLease_CanBeTurnedOff(t *testing.T) {
	n, o := newNode(t), newOrigin()
	o.set(1, "v")
	f := n.fleet(1, o, leaseWait(localsync.NoLease))
	n.hold(1)
	want(t, f[0].shows, 1, "v")
	if s := f[0].stats(); s.LeaseWaits != 0 {
		t.Fatalf("%+v, want no wait", s)
	}
	_, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{Name: "x", LeaseWait: 2 * time.Second, LoadTimeout: time.Second},
		localsync.Codec[string](text{}), o.load)
	if err == nil || !strings.Contains(err.Error(), "LeaseWait") {
		t.Fatalf("got %v, want it to name LeaseWait", err)
	}
}
