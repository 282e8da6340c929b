package localsync_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// Keys change partition with the number of partitions, in either direction: what
// was kept is checked, and what comes on any partition is heard.
func TestPartitions_AnotherNumberPutsAllInDoubtAndIsFollowed(t *testing.T) {
	for name, count := range map[string]int32{"more": 7, "fewer": 2, "one": 1} {
		t.Run(name, func(t *testing.T) {
			n, w := watched(t)
			m := n.events(newOrigin())
			n.settle(100)
			const keys = 50
			for id := range int64(keys) {
				n.put(id, 110, "old")
				want(t, m, id, "old")
				n.put(id, 120, "new") // told on a partition that nobody heard
			}
			n.bus.resize(count)
			n.silence(1) // what is read at the very instant of a doubt is in doubt
			for id := range int64(keys) {
				n.wantNoPeek(id)
				if info := want(t, m, id, "new"); info.Stale || info.Degraded {
					t.Fatalf("%+v, want it proven by redis", info)
				}
				want(t, m, id, "new")
			}
			for id := range int64(keys) {
				n.commit(id, 130, "newest")
				want(t, m, id, "newest")
			}
			s := n.cache.Stats().Bus
			if s.Resized != 1 || s.Partitions != int(count) || s.Gaps != 0 || w.suspects() != 1 {
				t.Fatalf("%+v, told %v; want one change, told once", s, w.suspect)
			}
			n.bus.resize(count)
			if s := n.cache.Stats().Bus; s.Resized != 1 {
				t.Fatalf("%+v, want the same number to be no change", s)
			}
		})
	}
}

// Once the numbers differ nobody knows whose keys a partition's records are.
func TestPartitions_AfterAChangeAFaultOfOneConcernsAllKeys(t *testing.T) {
	n := newNode(t)
	m := n.events(newOrigin())
	n.settle(100)
	n.bus.resize(6)
	n.pass(time.Second)
	const keys = 30
	keep := func(v rowtide.Version) {
		t.Helper()
		for id := range int64(keys) {
			n.put(id, v, "old")
			n.invalidate(id, v)
			want(t, m, id, "old")
		}
	}
	keep(110)
	n.pass(time.Second)
	n.wantPeek(1, 110, "old")
	n.bus.lose(5)
	n.beat() // tells of the hole
	for id := range int64(keys) {
		n.wantNoPeek(id)
	}
	n.pass(time.Second)
	keep(120)
	// One of them falls silent.
	for range 5 {
		n.clock.ns.Add(int64(localsync.DefaultSilence) / 4)
		for p := range n.bus.partitions - 1 {
			n.bus.batch(p, n.clock.Now(), n.wm)
		}
	}
	for id := range int64(keys) {
		if info := want(t, m, id, "old"); !info.Degraded {
			t.Fatalf("event %d: %+v, want degraded", id, info)
		}
	}
	n.beat()
	if info := want(t, m, 1, "old"); info.Degraded {
		t.Fatalf("%+v, want it heard again", info)
	}
	// Back at the first number, each key has its partition again.
	n.bus.resize(4)
	n.pass(time.Second)
	keep(130)
	n.pass(time.Second)
	n.bus.lose(n.part(1))
	n.beat()
	n.wantNoPeek(1)
	for id := range int64(keys) {
		if n.part(id) != n.part(1) {
			n.wantPeek(id, 130, "old")
		}
	}
}

// A key on a partition that is not its own shows that the producer counts other
// partitions than this node, before anybody has asked Kafka.
func TestPartitions_MisplacedRecordShowsAChange(t *testing.T) {
	n, w := watched(t)
	m := n.events(newOrigin())
	n.settle(100)
	n.put(1, 110, "old")
	n.put(2, 110, "old")
	want(t, m, 1, "old")
	want(t, m, 2, "old")
	n.put(1, 120, "new")
	n.put(2, 120, "new")
	wrong := (n.part(1) + 1) % n.bus.partitions
	for range 2 {
		n.bus.batch(wrong, n.clock.Now(), n.wm, rowtide.Invalidation{Key: eventKey(1), Version: 120})
	}
	want(t, m, 1, "new") // its floor was raised all the same
	want(t, m, 2, "new")
	if s := n.cache.Stats().Bus; s.Resized != 1 || w.suspects() != 1 {
		t.Fatalf("%+v, told %v; want one change, told once", s, w.suspect)
	}
}

// Records, losses and changes at once, as Kafka may bring them; the race detector
// and the bounds are what is tested.
func TestPartitions_ChangesAtTheSameTimeAsRecordsAndReads(t *testing.T) {
	n := newNode(t)
	m := n.events(newOrigin())
	n.settle(100)
	n.put(1, 110, "v")
	var sink localsync.Sink
	n.bus.deliver(func(s localsync.Sink) { sink = s })
	record := (&rowtide.Batch{Producer: 9, Items: []rowtide.Invalidation{{Key: eventKey(1), Version: 110}}}).AppendBatch(nil)
	done := make(chan struct{})
	for p := range int32(8) {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 200 {
				sink.Record(p, record)
				sink.Lost(p, errors.New("x"))
				if got, err := m.Get(t.Context(), 1); err != nil || got != "v" {
					t.Errorf("%q, %v", got, err)
				}
			}
		}()
	}
	for i := range 200 {
		sink.Partitions(int32(1 + i%8)) //nolint:gosec // small
	}
	for range 8 {
		await(t, "a partition", done)
	}
}
