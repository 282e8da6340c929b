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

// pause stops the first load after it has read its rows.
func pause(o *origin) (reached, release chan struct{}) {
	reached, release = make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.gate = func(context.Context, []int64) {
		first := false
		once.Do(func() { first = true })
		if first {
			close(reached)
			<-release
		}
	}
	return reached, release
}

type answer struct {
	value string
	info  localsync.Info
	err   error
}

func ask(ctx context.Context, m *events, id int64) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		v, info, err := m.Lookup(ctx, id)
		ch <- answer{v, info, err}
	}()
	return ch
}

func reply(t *testing.T, ch <-chan answer) answer {
	t.Helper()
	select {
	case a := <-ch:
		return a
	case <-time.After(patience):
		t.Fatal("no answer")
		return answer{}
	}
}

// R1: a loader reads the old row, the change overwrites Redis and is heard, the
// loader comes back. The old row is neither served nor kept.
func TestR1_LoadOvertakenByChangeGivesTheChange(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "old")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	n.commit(1, 200, "new")
	close(release)
	if a := reply(t, got); a.value != "new" || a.err != nil || a.info.Level != localsync.LevelRedis {
		t.Fatalf("read gave %+v, want new from redis", a)
	}
	n.wantPeek(1, 200, "new")
	if e, _ := n.inRedis(1); string(e.Payload) != "new" {
		t.Fatalf("redis holds %q, want new", e.Payload)
	}
}

// R1 with Redis having evicted the change: nothing proves the loaded value, so it
// is served once, marked, and kept nowhere.
func TestR1_LoadOvertakenByEvictedChangeIsServedMarkedAndNotKept(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "old")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	n.invalidate(1, 200)
	o.set(1, "new")
	close(release)
	if a := reply(t, got); a.value != "new" || a.err != nil || !a.info.Stale {
		t.Fatalf("read gave %+v, want new, marked stale", a)
	}
	n.wantNoPeek(1)
	if e, ok := n.inRedis(1); ok {
		t.Fatalf("redis was given %q at %d", e.Payload, e.Version)
	}
	// Once the watermark has aged past the change, the value can be proven.
	n.settle(200)
	if info := want(t, m, 1, "new"); info.Stale {
		t.Fatalf("%+v, want it proven", info)
	}
	n.wantPeek(1, 200, "new")
}

// R2: the change reached Redis while the loader was under way, and its
// invalidation has not been heard yet. The fill does not overwrite it.
func TestR2_FillNeverOverwritesAChangeInRedis(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	for id, v := range map[int64]rowtide.Version{1: 200, 2: 100} { // newer, and a tie
		o.set(id, "old")
		reached, release := pause(o)
		got := ask(t.Context(), m, id)
		await(t, "the load", reached)
		n.put(id, v, "new")
		close(release)
		a := reply(t, got)
		if e, _ := n.inRedis(id); string(e.Payload) != "new" || e.Version != v {
			t.Fatalf("redis holds %q at %d, want new at %d", e.Payload, e.Version, v)
		}
		if id == 1 && a.value != "new" {
			t.Fatalf("read gave %+v, want what redis had that is newer", a)
		}
	}
}

// R2 on the node: a refresh that claims the version of a resident change renews
// its age and leaves its value.
func TestR2_LoadNeverReplacesAResidentChangeOfItsVersion(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 100, "change")
	want(t, m, 1, "change")
	n.pass(2 * time.Minute)
	o.set(1, "load")
	want(t, m, 1, "change") // starts the refresh
	eventually(t, "the refresh", func() bool {
		_, info, err := m.Lookup(t.Context(), 1)
		return err == nil && info.Age == 0
	})
	if o.loads() != 1 {
		t.Fatalf("%d loads, want 1", o.loads())
	}
	n.wantPeek(1, 100, "change")
}

// Two loads of one key, the earlier one ending last, with Redis not there to
// refuse it.
func TestR2_LateLoadNeverReplacesANewerOne(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "\x00") // does not decode: readers ask the source, whatever the refresh does
	o.fail(errors.New("database is away"))
	if _, err := m.Get(t.Context(), 1); err == nil {
		t.Fatal("read what does not decode")
	}
	n.pass(2 * time.Minute)
	redisAsked, redisAnswers := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.onCommand(func(cmd string, _ []string) {
		if cmd == "MGET" {
			once.Do(func() { close(redisAsked) })
			<-redisAnswers
		}
	})
	if _, err := m.Get(t.Context(), 1); err == nil { // starts the refresh
		t.Fatal("read what does not decode")
	}
	await(t, "the refresh to read redis", redisAsked)
	reached, release := pause(o)
	o.fail(nil)
	o.set(1, "old")
	close(redisAnswers)
	await(t, "the refresh to load", reached)
	n.settle(500)
	o.set(1, "new")
	want(t, m, 1, "new")
	n.wantPeek(1, 500, "new")
	n.mr.SetError("LOADING")
	close(release)
	n.idle(t)
	n.wantPeek(1, 500, "new")
}

// R3: a load may have read a replica that is behind by up to ReplicaLag, so it
// claims what was applied that long ago and not what was just heard.
func TestR3_LoadsClaimAnAgedWatermark(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "old") // the replica has not got the change at 300 yet
	n.wm = 300
	n.beat()
	if info := want(t, m, 1, "old"); info.Version != 100 {
		t.Fatalf("%+v, want the claim of 100", info)
	}
	n.commit(1, 300, "new") // the late invalidation wins
	want(t, m, 1, "new")
	n.pass(localsync.DefaultReplicaLag + time.Second)
	o.set(2, "v")
	if info := want(t, m, 2, "v"); info.Version != 300 {
		t.Fatalf("%+v, want the claim of 300 by now", info)
	}
}

// R9: the value was read from Redis, and before it is kept the change is heard.
func TestR9_RedisReadOvertakenByChangeIsNotKept(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "old")
	var once sync.Once
	n.afterRead(func(string, []string) {
		once.Do(func() { n.commit(1, 200, "new") })
	})
	want(t, m, 1, "new")
	n.wantPeek(1, 200, "new")
	if s := n.module("event"); s.Refused != 1 || s.Loads != 0 {
		t.Fatalf("%+v, want one refusal and no load", s)
	}
}

// R10: messages out of order and twice.
func TestR10_OrderAndNumberOfInvalidationsDoNotMatter(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 300, "c")
	want(t, m, 1, "c")
	for _, v := range []rowtide.Version{200, 300, 100, 300, 1} {
		n.invalidate(1, v)
	}
	if got := n.cache.Floor(eventKey(1)); got != 300 {
		t.Fatalf("floor is %d, want 300", got)
	}
	if info := want(t, m, 1, "c"); info.Level != localsync.LevelLocal || info.Version != 300 {
		t.Fatalf("%+v, want the resident value undisturbed", info)
	}
}

// R11: what is produced after the pin and before the cache exists is delivered,
// and nothing is read into the store before the pin.
func TestR11_EndsArePinnedBeforeTheStoreOpens(t *testing.T) {
	o := newOrigin()
	bus := newFakeBus()
	bus.opened = func() {
		k := eventKey(1)
		bus.batch(k.Partition(bus.partitions), time.Time{}, 0, rowtide.Invalidation{Key: k, Version: 200})
	}
	n := newNode(t, func(o *localsync.Options) { o.Bus = bus })
	await(t, "the bus", bus.running)
	if got := n.cache.Floor(eventKey(1)); got != 200 {
		t.Fatalf("floor is %d, want 200", got)
	}
	m := n.events(o)
	o.set(1, "unproven")
	n.put(1, 90, "old") // a replica that is behind
	if info := want(t, m, 1, "unproven"); !info.Stale {
		t.Fatalf("%+v, want it marked", info)
	}
	n.wantNoPeek(1)
	await(t, "ready", n.cache.Ready())
}

// R13: reading does not keep an entry alive.
func TestR13_ReadsDoNotExtendTheHardAge(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o, func(c *localsync.ModuleConfig[int64]) {
		c.TTL, c.Refresh = 10*time.Minute, 10*time.Minute
	})
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.evict(1)
	o.fail(errors.New("database is away"))
	for range 8 {
		n.pass(time.Minute)
		if info := want(t, m, 1, "v"); info.Level != localsync.LevelLocal {
			t.Fatalf("%+v, want local", info)
		}
	}
	n.pass(4 * time.Minute)
	if v, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) {
		t.Fatalf("past the hard age: %q, %v; want ErrLoad", v, err)
	}
}

// R14: a deleted row comes back, and a load that saw the row before the delete
// does not bring it back once the EMPTY entry has aged away.
func TestR14_DeleteThenInsert(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "first")
	want(t, m, 1, "first")
	n.commit(1, 200, "")
	want(t, m, 1, "")
	n.pass(40 * time.Second) // past the EMPTY entry's TTL, far from the floor's
	n.evict(1)
	o.set(1, "first") // a replica that lags behind the delete
	if info := want(t, m, 1, "first"); !info.Stale {
		t.Fatalf("%+v, want the old row marked", info)
	}
	n.wantNoPeek(1)
	n.commit(1, 300, "second")
	if info := want(t, m, 1, "second"); info.Stale {
		t.Fatalf("%+v, want the new row proven", info)
	}
	n.wantPeek(1, 300, "second")
}
