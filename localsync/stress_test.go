package localsync_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// history is the truth of one key: what was committed and what was heard.
type history struct{ committed, heard atomic.Uint64 }

// TestStress_NothingOlderThanWhatWasHeardIsServed runs readers against changes,
// lost and repeated messages, evictions and lagging loads. A read that begins
// after version v was heard gives v or newer, or says Stale; one reader never
// sees a key's version go back; and at rest reads give the last commits.
func TestStress_NothingOlderThanWhatWasHeardIsServed(t *testing.T) {
	t.Run("bytes", func(t *testing.T) { stress(t, 0) })
	t.Run("objects", func(t *testing.T) { stress(t, 8) }) // of 16 keys
}

func stress(t *testing.T, objects int) {
	t.Helper()
	n := newNode(t, func(o *localsync.Options) { o.Now, o.ReplicaLag = nil, 5*time.Millisecond })
	const keys = 16
	var truth [keys]history
	load := func(_ context.Context, ids []int64) (map[int64]string, error) {
		out := map[int64]string{}
		for _, id := range ids {
			out[id] = number(truth[id].committed.Load())
		}
		if rand.IntN(4) == 0 {
			<-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond) // the database takes its time
		}
		return out, nil
	}
	m, err := localsync.NewModule(n.cache, localsync.ModuleConfig[int64]{
		Name: "event", Refresh: 3 * time.Millisecond, TTL: time.Minute, Batch: 5, Objects: objects,
	}, localsync.Codec[string](text{}), load)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(1500 * time.Millisecond)
	var version atomic.Uint64
	var g sync.WaitGroup
	g.Go(func() { // one daemon: a log has one order
		pace := time.NewTicker(500 * time.Microsecond)
		defer pace.Stop()
		for time.Now().Before(end) {
			<-pace.C
			id := rand.Int64N(keys)
			v := version.Add(1)
			truth[id].committed.Store(v)
			n.put(id, rowtide.Version(v), number(v))
			inv := rowtide.Invalidation{Key: eventKey(id), Version: rowtide.Version(v)}
			switch rand.IntN(8) {
			case 0: // lost; the next record or heartbeat shows the hole
				n.bus.lose(n.part(id))
			case 1:
				n.bus.batch(n.part(id), time.Now(), inv.Version, inv, inv)
				truth[id].heard.Store(v)
			default:
				n.bus.batch(n.part(id), time.Now(), inv.Version, inv)
				truth[id].heard.Store(v)
			}
			if rand.IntN(10) == 0 {
				n.evict(rand.Int64N(keys))
			}
		}
	})
	var reads, stale atomic.Uint64
	for range 6 {
		g.Go(func() {
			var last [keys]rowtide.Version
			for time.Now().Before(end) {
				id := rand.Int64N(keys)
				floor := truth[id].heard.Load()
				v, info, err := m.Lookup(context.Background(), id)
				reads.Add(1)
				switch {
				case err != nil:
					t.Errorf("event %d: %v", id, err)
					return
				case info.Stale:
					stale.Add(1)
				case versionOf(v) < floor:
					t.Errorf("event %d: served %d after %d was heard (%+v)", id, versionOf(v), floor, info)
					return
				case info.Version < last[id]:
					t.Errorf("event %d: went back from %d to %d (%+v)", id, last[id], info.Version, info)
					return
				default:
					last[id] = info.Version
				}
			}
		})
	}
	g.Wait()
	n.wm = rowtide.Version(version.Load())
	for id := range int64(keys) {
		n.invalidate(id, rowtide.Version(truth[id].committed.Load()))
	}
	n.beat()
	for id := range int64(keys) {
		got, info, err := m.Lookup(t.Context(), id)
		if err != nil || versionOf(got) != truth[id].committed.Load() {
			t.Errorf("event %d at rest: %q, %v, %+v; want %d", id, got, err, info, truth[id].committed.Load())
		}
	}
	s := n.module("event")
	t.Logf("%d commits, %d reads (%d stale), %+v", version.Load(), reads.Load(), stale.Load(), s)
}
