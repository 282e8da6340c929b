package localsync_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide/localsync"
)

// What five of nine Go caches do wrong: a loader is under way while its key is
// invalidated, and the old value then stays for the whole TTL. One run per place
// where the invalidation may fall.
func TestInFlightRace_OldValueNeverOutlivesTheInvalidation(t *testing.T) {
	const keys = 200
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) { c.TTL, c.Refresh = 24*time.Hour, 24*time.Hour })
	n.settle(100)
	for id := range int64(keys) {
		o.set(id, "old")
		reached, release := pause(o)
		got := ask(t.Context(), m, id)
		await(t, "the load", reached)
		o.set(id, "new")
		if id%2 == 0 {
			n.commit(id, 200, "new")
		} else {
			n.put(id, 200, "new") // heard only after the load
		}
		close(release)
		reply(t, got)
		if id%2 != 0 {
			n.invalidate(id, 200)
		}
		if info := want(t, m, id, "new"); info.Stale {
			t.Fatalf("event %d: %+v, want the new value, proven", id, info)
		}
	}
	n.pass(time.Hour)
	for id := range int64(keys) {
		want(t, m, id, "new")
		n.wantPeek(id, 200, "new")
	}
}

// What libraries that broadcast fills do wrong: nodes evict each other's values by
// reading. Two nodes read, nobody writes: nothing is said, and nothing is missed
// but the first read of each key.
func TestBroadcastStorm_ReadsSayNothingAndMissNothing(t *testing.T) {
	const keys, reads = 100, 2000
	n, o := newNode(t), newOrigin()
	for id := range int64(keys) {
		o.set(id, fmt.Sprint("v", id))
	}
	f := n.fleet(2, o)
	var readers sync.WaitGroup
	for i, m := range f {
		readers.Go(func() {
			for r := range int64(reads / len(f)) {
				id := (r*7 + int64(i)) % keys
				if v, err := m.shows.Get(t.Context(), id); err != nil || v != fmt.Sprint("v", id) {
					t.Errorf("event %d is %q, %v", id, v, err)
				}
			}
		})
	}
	readers.Wait()
	local := f.sum(func(s localsync.ModuleStats) uint64 { return s.Local })
	if first := uint64(keys * len(f)); local != reads-first {
		t.Errorf("%d local reads of %d, want all but the %d first", local, reads, first)
	}
	if o.loads() > keys {
		t.Errorf("%d loads of %d keys", o.loads(), keys)
	}
	for i, m := range f {
		if s := m.cache.Stats().Bus; s.Records != 0 || s.Applied != 0 {
			t.Errorf("node %d heard %d records, want none", i, s.Records)
		}
	}
	// The only messages in Redis are for who waits for a load of the very moment.
	if sent, waited := n.commands("PUBLISH"), f.sum(waits); uint64(sent) > waited {
		t.Errorf("%d messages for %d waits", sent, waited)
	}
}
