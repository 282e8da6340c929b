package localsync_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// watcher records what an observer is told.
type watcher struct {
	localsync.NopObserver
	mu      sync.Mutex
	applied []rowtide.Invalidation
	floors  []rowtide.Version // at the time of the call
	suspect []error
	cache   func() *localsync.Cache
}

func (w *watcher) Applied(inv rowtide.Invalidation, _ *rowtide.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applied = append(w.applied, inv)
	w.floors = append(w.floors, w.cache().Floor(inv.Key))
}

func (w *watcher) Suspect(_ int32, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspect = append(w.suspect, cause)
}

func (w *watcher) suspects() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.suspect)
}

// watched is a node whose watcher can ask the cache.
func watched(t *testing.T, edit ...func(*localsync.Options)) (*node, *watcher) {
	w := &watcher{}
	n := newNode(t, append(edit, func(o *localsync.Options) { o.Observer = w })...)
	w.cache = func() *localsync.Cache { return n.cache }
	return n, w
}

func TestApplied_IsToldAfterTheFloorIsRaised(t *testing.T) {
	n, w := watched(t)
	n.invalidate(1, 200)
	if len(w.applied) != 1 || w.applied[0].Key != eventKey(1) || w.floors[0] != 200 {
		t.Fatalf("told of %+v at floors %v, want event 1 at 200", w.applied, w.floors)
	}
}

func TestInvalidated_NextReadTakesRedisNotTheLoader(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	want(t, m, 1, "old")
	n.commit(1, 200, "new")
	n.wantNoPeek(1)
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelRedis || info.Version != 200 {
		t.Fatalf("%+v, want 200 from redis", info)
	}
	if info := want(t, m, 1, "new"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
	if o.loads() != 0 {
		t.Fatalf("loader was called %d times", o.loads())
	}
}

// A hole in the sequence puts in doubt what was kept before, and only that: each
// entry is checked against Redis once, and nothing is thrown away.
func TestR7_GapPutsEntriesInDoubtAndTheyAreChecked(t *testing.T) {
	n, w := watched(t)
	o := newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "same")
	want(t, m, 1, "same")
	p := n.part(1)

	other := int64(2) // a key of another partition stays above doubt
	for n.part(other) == p {
		other++
	}
	n.commit(other, 91, "other")
	want(t, m, other, "other")

	n.pass(time.Second)
	n.put(1, 200, "changed") // and its invalidation is lost
	n.bus.lose(p)
	if info := want(t, m, 1, "same"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v: nothing can be known yet", info)
	}
	n.bus.batch(p, n.clock.Now(), 100) // the heartbeat repeats the head
	if w.suspects() != 1 {
		t.Fatalf("%d gaps were told, want 1", w.suspects())
	}
	n.wantNoPeek(1)
	n.pass(time.Millisecond)
	if info := want(t, m, 1, "changed"); info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want redis", info)
	}
	if info := want(t, m, 1, "changed"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local again", info)
	}
	if info := want(t, m, other, "other"); info.Level != localsync.LevelLocal {
		t.Fatalf("other partition: %+v, want local", info)
	}
	if got := n.cache.Stats().Bus.Gaps; got != 1 {
		t.Fatalf("%d gaps counted, want 1", got)
	}
}

func TestGap_WithRedisAwayTheSuspectIsServedStaleAndTheLoaderSpared(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "v")
	want(t, m, 1, "v")
	n.pass(time.Second)
	n.bus.lose(n.part(1))
	n.beat()
	n.pass(time.Millisecond)
	n.mr.SetError("LOADING")
	for range 3 {
		if info := want(t, m, 1, "v"); !info.Stale {
			t.Fatalf("%+v, want Stale", info)
		}
	}
	if o.loads() != 0 {
		t.Fatalf("loader was called %d times", o.loads())
	}
	n.mr.SetError("")
	n.pass(2 * time.Second)
	if info := want(t, m, 1, "v"); info.Stale || info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want it checked", info)
	}
}

func TestSequence(t *testing.T) {
	beat := func(producer, sequence uint64) rowtide.Batch {
		return rowtide.Batch{Producer: producer, Sequence: sequence}
	}
	items := func(producer, sequence uint64) rowtide.Batch {
		b := beat(producer, sequence)
		b.Items = []rowtide.Invalidation{{Key: eventKey(1), Version: 1}}
		return b
	}
	run := rowtide.NewProducer
	tests := []struct {
		name    string
		records []rowtide.Batch
		want    int
	}{
		{"dense", []rowtide.Batch{items(1, 1), items(1, 2), beat(1, 2), items(1, 3)}, 0},
		{"joined in the middle", []rowtide.Batch{items(1, 41), items(1, 42)}, 0},
		{"joined at a heartbeat", []rowtide.Batch{beat(1, 41), items(1, 42)}, 0},
		{"hole", []rowtide.Batch{items(1, 1), items(1, 3)}, 1},
		{"hole at the tail shows by heartbeat", []rowtide.Batch{items(1, 1), beat(1, 2)}, 1},
		{"hole is told once", []rowtide.Batch{items(1, 1), items(1, 3), beat(1, 3), items(1, 4)}, 1},
		{"duplicates", []rowtide.Batch{items(1, 1), items(1, 2), items(1, 1), items(1, 2), items(1, 3)}, 0},
		{"new producer from its start", []rowtide.Batch{items(1, 9), items(2, 1), beat(1, 9), items(2, 2)}, 0},
		{"new producer before its first batch", []rowtide.Batch{items(1, 9), beat(2, 0), items(2, 1)}, 0},
		{"new producer whose first records are missing", []rowtide.Batch{items(1, 9), items(2, 2)}, 1},
		{"new producer known by heartbeat only", []rowtide.Batch{items(1, 9), beat(2, 1)}, 1},
		{"restart", []rowtide.Batch{items(run(1, 0), 1), items(run(1, 0), 2), items(run(2, 2), 3), items(run(2, 2), 4)}, 0},
		{"restart heard by heartbeat", []rowtide.Batch{items(run(1, 0), 1), beat(run(2, 1), 1), items(run(2, 1), 2)}, 0},
		{"restart from a late heartbeat", []rowtide.Batch{items(run(1, 0), 2), beat(run(1, 0), 1), items(run(2, 1), 2)}, 0},
		{"restart, the end of the run before is missing", []rowtide.Batch{items(run(1, 0), 1), items(run(2, 2), 3)}, 1},
		{"restart, the end of the run before is missing, heard by heartbeat", []rowtide.Batch{items(run(1, 0), 1), beat(run(2, 2), 2)}, 1},
		{"restart, its first record is missing", []rowtide.Batch{items(run(1, 0), 1), items(run(2, 1), 3)}, 1},
		{"restart, its first record is missing, heard by heartbeat", []rowtide.Batch{items(run(1, 0), 1), beat(run(2, 1), 2)}, 1},
		{"restart after an older run had higher numbers", []rowtide.Batch{items(run(1, 0), 900), items(run(2, 0), 1), items(run(3, 2), 3)}, 1},
		{"two daemons from the same record", []rowtide.Batch{items(run(1, 0), 5), items(run(2, 5), 6), items(run(1, 0), 6), items(run(1, 0), 7), items(run(2, 5), 7), beat(run(1, 0), 7)}, 0},
		{"two daemons, one starts behind the other's newest record", []rowtide.Batch{items(run(1, 0), 5), items(run(1, 0), 6), items(run(2, 5), 6), items(run(1, 0), 7)}, 1},
		{"two daemons, a record of one is missing behind the same number of the other", []rowtide.Batch{items(run(1, 0), 5), items(run(2, 5), 6), items(run(1, 0), 6), items(run(2, 5), 8), items(run(1, 0), 7)}, 1},
		{"two daemons, the second's first is missing behind the same number of the other", []rowtide.Batch{items(run(1, 0), 5), items(run(1, 0), 6), items(run(2, 5), 7)}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, w := watched(t)
			n.bus.deliver(func(s localsync.Sink) {
				for _, b := range tt.records {
					s.Record(n.part(1), b.AppendBatch(nil))
				}
			})
			if got := w.suspects(); got != tt.want {
				t.Fatalf("%d gaps, want %d", got, tt.want)
			}
		})
	}
}

func TestUnreadableRecord_PutsItsPartitionInDoubt(t *testing.T) {
	n, w := watched(t)
	newer := (&rowtide.Batch{Producer: 1, Sequence: 1}).AppendBatch(nil)
	newer[1] = rowtide.BatchFormat + 1
	n.bus.deliver(func(s localsync.Sink) {
		s.Record(0, []byte("not a record"))
		s.Record(1, newer)
		s.Record(99, newer) // no such partition
		s.Lost(99, errors.New("x"))
	})
	if w.suspects() != 2 || !errors.Is(w.suspect[1], rowtide.ErrNewerFormat) {
		t.Fatalf("told %v, want two", w.suspect)
	}
	if got := n.cache.Stats().Bus.Undecodable; got != 3 {
		t.Fatalf("%d counted, want 3", got)
	}
}

// When the bus is silent, age counts: past MaxStale an entry is checked against
// Redis, and reads say that the node is degraded.
func TestSilence_DegradesAndRevalidatesPastMaxStale(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	if info := want(t, m, 1, "old"); info.Degraded {
		t.Fatalf("%+v before the silence", info)
	}
	n.silence(4 * time.Second)
	info := want(t, m, 1, "old")
	if !info.Degraded || info.Level != localsync.LevelLocal || info.Stale {
		t.Fatalf("%+v, want degraded, local, within MaxStale", info)
	}
	if got := n.cache.Stats().Bus; got.Silent != 4 || got.Lag < 4*time.Second {
		t.Fatalf("%+v, want four silent partitions", got)
	}
	n.put(1, 200, "new") // the invalidation is not heard
	n.silence(2 * time.Second)
	info = want(t, m, 1, "new")
	if !info.Degraded || info.Level != localsync.LevelRedis {
		t.Fatalf("%+v, want degraded, redis", info)
	}
	if info = want(t, m, 1, "new"); info.Level != localsync.LevelLocal {
		t.Fatalf("%+v, want local", info)
	}
	// Redis away too: the value is served up to its hard age, and says so.
	n.mr.SetError("LOADING")
	n.silence(6 * time.Second)
	if info = want(t, m, 1, "new"); !info.Stale || !info.Degraded {
		t.Fatalf("%+v, want stale and degraded", info)
	}
	n.mr.SetError("")
	n.pass(2 * time.Second)
	if info = want(t, m, 1, "new"); info.Degraded || info.Stale {
		t.Fatalf("%+v, want it over", info)
	}
}

func TestPush_SwapsResidentValuesOnly(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "old")
	want(t, m, 1, "old")
	for _, id := range []int64{1, 2} {
		n.put(id, 200, "new")
		n.bus.batch(n.part(id), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(id), Version: 200, Value: []byte("new")})
	}
	n.wantPeek(1, 200, "new")
	n.wantNoPeek(2)
	n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 300, Empty: true})
	if info := want(t, m, 1, ""); info.Level != localsync.LevelLocal || info.Version != 300 {
		t.Fatalf("%+v, want a local EMPTY at 300", info)
	}
}

// Forgetting floors is conservative: what was under way while they were known is
// refused if it is older than any that was forgotten.
func TestFloors_ForgettingRefusesWhatWasUnderWay(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.put(1, 90, "old")
	var once sync.Once
	n.afterRead(func(string, []string) {
		once.Do(func() { // the reader is suspended for a quarter of an hour
			n.commit(1, 200, "new")
			n.forgetFloors()
		})
	})
	want(t, m, 1, "new")
	n.wantPeek(1, 200, "new")
	if s := n.module("event"); s.Refused != 1 {
		t.Fatalf("%+v, want one refusal", s)
	}
	// What is read afterwards is kept, however old its version.
	n.afterRead(nil)
	n.pass(time.Millisecond)
	n.put(3, 10, "ancient")
	want(t, m, 3, "ancient")
	n.wantPeek(3, 10, "ancient")
}

// forgetFloors turns the generations of event 1's shard.
func (n *node) forgetFloors() {
	for range 3 {
		n.pass(6 * time.Minute)
		n.invalidate(1000+shardMate(1), 50)
	}
	if got := n.cache.Floor(eventKey(1)); got != 0 {
		n.t.Errorf("floor is %d, want it forgotten", got)
	}
}

// R1, R6: a load that hung until the floor of a change was forgotten does not take
// the evicted change's place in Redis.
func TestR6_LoadThatHungPastTheFloorsIsDoneAgain(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	o.set(1, "old")
	reached, release := pause(o)
	got := ask(t.Context(), m, 1)
	await(t, "the load", reached)
	n.commit(1, 200, "new")
	n.evict(1)
	n.wm = 200
	n.forgetFloors()
	o.set(1, "new")
	close(release)
	if a := reply(t, got); a.value != "new" || a.err != nil || a.info.Stale {
		t.Fatalf("read gave %+v, want new", a)
	}
	if e, _ := n.inRedis(1); e.Version != 200 || o.loads() != 2 {
		t.Fatalf("redis has version %d after %d loads, want 200 after 2", e.Version, o.loads())
	}
}

// More keys changed at once than are remembered: until the watermark has passed what
// was forgotten nothing can be proven, which costs a key one load a second and not
// several for each reader.
func TestFloors_ForgettingTooEarlyIsNoStormOfLoads(t *testing.T) {
	n, o := newNode(t, func(o *localsync.Options) { o.MaxFloors = 64 }), newOrigin()
	m := n.events(o)
	n.settle(100)
	for id := range int64(2000) { // of one transaction: the watermark stays
		n.invalidate(1000+id, 200)
	}
	n.pass(time.Millisecond)
	o.set(1, "v")
	for range 10 {
		want(t, m, 1, "v")
	}
	if o.loads() > 1 {
		t.Errorf("%d loads for ten reads, want 1", o.loads())
	}
	n.settle(200)
	want(t, m, 1, "v")
	n.idle(t)
	if info := want(t, m, 1, "v"); info.Stale {
		t.Errorf("%+v once the watermark is past it", info)
	}
}

// R10, R14: a delete that is told again, after the floor of the insert behind it was
// forgotten, is not the news that it was.
func TestR10_RepeatedDeleteIsNotKeptOnceFloorsAreForgotten(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, "first")
	want(t, m, 1, "first")
	n.invalidate(1, 300)
	n.wm = 300
	n.beat()
	n.forgetFloors()
	n.bus.batch(n.part(1), n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 200, Empty: true})
	if e, ok := n.cache.Peek(eventKey(1)); ok {
		t.Fatalf("the node would serve %+v", e)
	}
	n.commit(1, 300, "second")
	want(t, m, 1, "second")
}

// shardMate is a number d such that event 1000+d shares event 1's shard in a
// store of 64 MiB (64 shards by the low bits of FNV-1a).
func shardMate(id int64) int64 {
	for d := int64(0); ; d++ {
		if fnv(eventKey(id))%64 == fnv(eventKey(1000+d))%64 {
			return d
		}
	}
}

func fnv(k rowtide.Key) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(k.Redis("")[1:]) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
