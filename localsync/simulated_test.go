package localsync_test

import (
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// What the simulation (tests/simulation) found, told without chance.

// R3: a node that has just opened knows no watermark. What it loads may come from a
// replica that lags behind a change which Redis held and evicted.
func TestR3_LoadedBeforeAnyWatermarkIsMarked(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	o.set(1, "perhaps old")
	for range 2 {
		if info := want(t, m, 1, "perhaps old"); !info.Stale {
			t.Errorf("%+v, want stale: nothing proves it", info)
		}
	}
	n.wantNoPeek(1)
	if o.loads() != 1 {
		t.Errorf("%d loads, want 1: it is kept, with its mark", o.loads())
	}
	n.settle(100)
	want(t, m, 1, "perhaps old") // the second look
	n.idle(t)
	if info := want(t, m, 1, "perhaps old"); info.Stale {
		t.Errorf("%+v, want proven by now", info)
	}
}

// R6: a node whose bus has been quiet does not know of a change that Redis held and
// evicted; it must not bring back what was before.
func TestR6_QuietNodeKeepsWhatItLoadsToItself(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "perhaps old")
	o.set(2, "v")
	n.silence(time.Second)
	want(t, m, 1, "perhaps old")
	if e, ok := n.inRedis(1); ok {
		t.Errorf("redis was given %q", e.Payload)
	}
	n.beat()
	want(t, m, 2, "v")
	if _, ok := n.inRedis(2); !ok {
		t.Error("redis was not given a value of a node that hears")
	}
}

// R7: records were missed, the key has left Redis, and the loader's value claims the
// very version that is kept here. What was read after the loss counts.
func TestR7_LoadAfterAGapReplacesWhatItTiesWith(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	o.set(1, "old")
	n.commit(1, 200, "old")
	n.settle(200)
	want(t, m, 1, "old")

	o.set(1, "new")
	n.evict(1)
	n.bus.lose(n.part(1))
	n.beat()
	n.pass(afterLag)
	for range 2 {
		want(t, m, 1, "new")
	}
	n.wantPeek(1, 200, "new")
}

// R7: records are missed while a load is under way. Its result may be older than what
// they said: nobody is given it. That of the next load is served with its mark, since a
// replica may lag (R3), and Redis is given none before that cannot be.
func TestR7_LoadOvertakenByAGapIsDoneAgain(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "old")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	o.set(1, "new")
	n.bus.lose(n.part(1))
	n.beat()
	n.silence(time.Millisecond)
	close(release)
	if a := reply(t, got); a.value != "new" || !a.info.Stale || a.err != nil {
		t.Errorf("read gave %+v, want new with its mark", a)
	}
	if e, ok := n.inRedis(1); ok {
		t.Errorf("redis was given %q", e.Payload)
	}
	n.pass(afterLag)
	want(t, m, 1, "new")
	n.idle(t)
	if info := want(t, m, 1, "new"); info.Stale {
		t.Errorf("%+v after the lag", info)
	}
	if e, _ := n.inRedis(1); string(e.Payload) != "new" {
		t.Errorf("redis was given %q, want new", e.Payload)
	}
}

// R7: a delete is heard, the insert behind it is missed, and the delete is told again:
// that is no news, and does not vouch for what is kept.
func TestR7_RepeatedDeleteAfterAGapIsNoNews(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "first")
	want(t, m, 1, "first")
	gone := func() {
		n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 200, Empty: true})
	}
	gone()
	n.put(1, 300, "second")
	n.wm = 300
	n.bus.lose(n.part(1))
	n.beat()
	n.silence(time.Second)
	gone()
	if e, ok := n.cache.Peek(eventKey(1)); ok {
		t.Fatalf("the node would serve %+v", e)
	}
	want(t, m, 1, "second")
}

// R7: after an outage of the bus, what was said meanwhile comes first. Until it is
// through, entries are as doubtful as they were.
func TestR7_BacklogAfterSilenceIsNotTheEndOfIt(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.MaxStale = time.Second })
	n.commit(1, 200, "old")
	n.settle(200)
	want(t, m, 1, "old")
	left := n.clock.Now()
	n.silence(6 * time.Second)
	n.put(1, 300, "new") // its invalidation is still to come
	n.bus.batch(n.part(1), left.Add(time.Second), 200)
	if info := want(t, m, 1, "new"); !info.Degraded {
		t.Errorf("%+v, want degraded: records of five seconds are still to come", info)
	}
	n.invalidate(1, 300)
	if info := want(t, m, 1, "new"); info.Degraded {
		t.Errorf("%+v, want all well: a record of now was heard", info)
	}
}

// A daemon with another clock is believed after a while.
func TestR7_AnotherClockIsNoBacklogForEver(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "v")
	want(t, m, 1, "v")
	for range 5 {
		n.silence(time.Second)
		for p := range n.bus.partitions {
			n.bus.batch(p, n.clock.Now().Add(-time.Hour), 100)
		}
	}
	if info := want(t, m, 1, "v"); info.Degraded {
		t.Errorf("%+v, want all well: the clock is an hour late, not the bus", info)
	}
}
