package localsync_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// R22: Redis takes no writes, and the daemon has told of the change all the same. Its
// readers get what the loader says, marked, for one load a second.
func TestR22_NodeGoesRoundARedisThatTakesNoWrites(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	for _, id := range []int64{1, 2} { // resident, and in Redis only; 3 is nowhere yet
		n.put(id, 90, "old")
	}
	for _, id := range []int64{1, 2, 3} {
		o.set(id, "new")
	}
	want(t, m, 1, "old")
	for _, id := range []int64{1, 2, 3} {
		before := o.loads()
		n.invalidate(id, 200)
		n.pass(time.Millisecond)
		for round := range 2 {
			for read := range 5 {
				level := localsync.LevelLocal
				if read == 0 {
					level = localsync.LevelLoader
				}
				if info := want(t, m, id, "new"); !info.Stale || info.Level != level {
					t.Fatalf("event %d, round %d, read %d: %+v, want it stale, from %s", id, round, read, info, level)
				}
			}
			if got := o.loads() - before; got != round+1 {
				t.Fatalf("event %d, round %d: %d loads, want one each", id, round, got)
			}
			n.pass(1100 * time.Millisecond)
		}
		if e, ok := n.inRedis(id); ok != (id < 3) || ok && string(e.Payload) != "old" {
			t.Fatalf("redis was given %+v", e)
		}
		o.fail(errors.New("database is away"))
		if info := want(t, m, id, "new"); !info.Stale {
			t.Fatalf("event %d: %+v, want what the loader gave last", id, info)
		}
		o.fail(nil)
		n.put(id, 200, "new")
		n.invalidate(id, 200)
		if info := want(t, m, id, "new"); info.Stale || info.Level != localsync.LevelRedis {
			t.Fatalf("event %d: %+v, want redis once it has it", id, info)
		}
	}
}

// R22, R7: what the daemon has not come to yet is not heard of, however often it says
// that it is there.
func TestR22_DaemonThatIsBehindIsAsGoodAsSilent(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.MaxStale = 5 * time.Second })
	n.settle(100)
	n.commit(1, 100, "v")
	state := func(when string, degraded bool, level localsync.Level) {
		t.Helper()
		if info := want(t, m, 1, "v"); info.Degraded != degraded || info.Level != level {
			t.Errorf("%s: %+v, want degraded=%t from %s", when, info, degraded, level)
		}
	}
	state("in step", false, localsync.LevelRedis)
	state("in step", false, localsync.LevelLocal)
	for range 10 {
		n.bus.behind = 2500 * time.Millisecond
		n.pass(time.Second)
	}
	state("2.5 s behind", false, localsync.LevelLocal)
	n.bus.behind += time.Second
	n.pass(time.Second)
	state("3.5 s behind", true, localsync.LevelRedis) // read 11 s ago, more than MaxStale
	state("3.5 s behind", true, localsync.LevelLocal)
	if b := n.cache.Stats().Bus; b.Behind != n.bus.behind || b.Silent != b.Partitions {
		t.Errorf("%+v, want all partitions silent and how far behind it is", b)
	}
	n.bus.behind = 0
	n.beat()
	state("in step again", false, localsync.LevelLocal)
	if got := n.cache.Stats().Bus.Gaps; got != 0 {
		t.Errorf("%d gaps, want none: nothing was missed", got)
	}
}

// R22: Redis is away altogether, which is no reason to ask the loader for every reader
// of what has changed.
func TestR22_ChangedWhileRedisIsAwayIsLoadedOnceASecond(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "new")
	n.mr.Close()
	n.invalidate(1, 200)
	for range 5 {
		if info := want(t, m, 1, "new"); !info.Stale {
			t.Fatalf("%+v, want it stale", info)
		}
	}
	if got := o.loads(); got != 1 {
		t.Fatalf("%d loads, want 1", got)
	}
}

// R22, R6: what the daemon has not come to yet it cannot have written, so that it is no
// danger to share what was loaded.
func TestR22_LoadsAreSharedWhileTheDaemonIsBehind(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.bus.behind = time.Hour
	n.pass(10 * time.Second)
	o.set(1, "v")
	if info := want(t, m, 1, "v"); !info.Degraded || info.Stale {
		t.Fatalf("%+v, want it degraded", info)
	}
	if e, ok := n.inRedis(1); !ok || string(e.Payload) != "v" {
		t.Fatalf("redis has %+v, want what was loaded", e)
	}
}

// R22: a node that opens in the middle of a backlog knows it from the first record on.
func TestR22_NodeThatOpensInABacklogIsDegradedAtOnce(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.bus.behind = time.Minute
	n.beat()
	o.set(1, "v")
	if info := want(t, m, 1, "v"); !info.Degraded {
		t.Fatalf("%+v, want it degraded", info)
	}
}

// A reader that asks for its own write, which the daemon has not come to, changes
// nothing for those who do not ask.
func TestAtLeast_OneReadersWishIsNotTheOthersDoubt(t *testing.T) {
	n := newNode(t)
	m, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.settle(100)
	n.put(1, 200, "v")
	if info := wantIn(localsync.AtLeast(t.Context(), 300), t, m, 1, "v"); !info.Stale {
		t.Fatalf("%+v, want it marked: it is not at 300", info)
	}
	if info := want(t, m, 1, "v"); info.Stale || info.Version != rowtide.Version(200) {
		t.Fatalf("%+v, want what Redis has", info)
	}
}
