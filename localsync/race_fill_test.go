package localsync_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

// R6, R7: a change is evicted from Redis before this node hears of it, a load that was
// under way fills the empty place with what was before, and the change's record is lost.
// What Redis holds then is this node's own old value, and proves nothing.
func TestR7_FillFromAboutTheTimeOfAGapIsNoProof(t *testing.T) {
	for name, overtaken := range map[string]bool{"the gap comes after it": false, "the gap overtakes it": true} {
		t.Run(name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m := n.events(o)
			n.settle(100)
			o.set(1, "old")
			reached, release := pause(o)
			reader := ask(t.Context(), m, 1)
			await(t, "the load", reached)
			n.put(1, 200, "new")
			o.set(1, "new")
			n.evict(1)
			gap := func() {
				n.bus.lose(n.part(1))
				n.wm = 200
				n.beat()
			}
			if overtaken {
				var once sync.Once
				n.onCommand(func(cmd string, args []string) {
					if cmd == "EVALSHA" && args[0] == overwriteHash {
						once.Do(gap)
					}
				})
			}
			close(release)
			a := reply(t, reader)
			if e, ok := n.inRedis(1); !ok || e.Version != 100 {
				t.Fatalf("redis has %+v, want the old value in the empty place", e)
			}
			if overtaken && (a.value != "new" || !a.info.Stale) {
				t.Fatalf("%+v, want the load done again, and marked", a)
			}
			if !overtaken {
				gap()
				n.pass(time.Millisecond)
			}
			if info := want(t, m, 1, "new"); !info.Stale {
				t.Fatalf("%+v, want it marked: it cannot be proven yet", info)
			}
			n.pass(afterLag)
			if info := want(t, m, 1, "new"); info.Stale || info.Version != 200 {
				t.Fatalf("%+v, want it proven", info)
			}
			if e, _ := n.inRedis(1); e.Version != 200 || string(e.Payload) != "new" {
				t.Fatalf("redis has %+v, want it mended", e)
			}
		})
	}
}

// All that was loaded long before a gap, or that the daemon wrote, is taken from Redis as
// ever: the loader is not to be asked for everything.
func TestR7_GapAsksTheLoaderForNothingElse(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "loaded")
	want(t, m, 1, "loaded")
	n.put(2, 110, "written")
	n.invalidate(2, 110)
	want(t, m, 2, "written")
	n.pass(2 * patience) // that is RedisTimeout here
	n.put(3, 120, "written just now")
	before := o.loads()
	n.bus.lose(n.part(1))
	n.bus.lose(n.part(2))
	n.bus.lose(n.part(3))
	n.beat()
	n.pass(time.Millisecond)
	for id, value := range map[int64]string{1: "loaded", 2: "written", 3: "written just now"} {
		want(t, m, id, value)
	}
	if got := o.loads(); got != before {
		t.Fatalf("%d loads, want none", got-before)
	}
}

// A last value is better than none.
func TestR7_FillFromAboutTheTimeOfAGapIsServedMarkedIfTheLoaderFails(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	e := rowtide.Entry{Key: eventKey(1), Version: 90, Flags: rowtide.FlagFill, BuiltAt: n.clock.Now(), TTL: time.Hour, Payload: []byte("another node's")}
	if err := n.mr.Set(e.Key.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	n.bus.lose(n.part(1))
	n.beat()
	n.pass(time.Millisecond)
	o.fail(errors.New("database is away"))
	if info := want(t, m, 1, "another node's"); !info.Stale {
		t.Fatalf("%+v, want it marked", info)
	}
}
