package localsync

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
)

// objects is the level of decoded values. What it holds says nothing about whether
// it may be served: the side table's row does, see Module.near. So losing one is
// harmless, and readers take no lock: it is one table with linear probing, in which
// a reader may miss what is being moved and has to decode once more.
//
// Otter would do, but adds its own bookkeeping of each read to ours; see
// docs/adr/0016-local-levels.md.
type objects[K comparable, V any] struct {
	seed  maphash.Seed
	slots []atomic.Pointer[object[K, V]] // at most half are taken
	limit int

	mu   sync.Mutex // of writers
	len  int
	hand uint64 // where the search for a victim goes on
}

type object[K comparable, V any] struct {
	hash  uint64 // of key, in this table
	key   K
	value V
	sighting
	read atomic.Bool // since the hand came by
}

// newObjects keeps limit objects; nil, which keeps none, for 0.
func newObjects[K comparable, V any](limit int) *objects[K, V] {
	if limit == 0 {
		return nil
	}
	return &objects[K, V]{
		seed: maphash.MakeSeed(), limit: limit,
		slots: make([]atomic.Pointer[object[K, V]], 1<<bits.Len(uint(2*limit))),
	}
}

func (t *objects[K, V]) slot(at uint64) *atomic.Pointer[object[K, V]] {
	return &t.slots[at&uint64(len(t.slots)-1)]
}

func (t *objects[K, V]) get(k K) *object[K, V] {
	if t == nil {
		return nil
	}
	_, o := t.find(maphash.Comparable(t.seed, k), k)
	if o != nil && !o.read.Load() {
		o.read.Store(true)
	}
	return o
}

// find is k's object and slot, or nil and the free one where its search ends.
func (t *objects[K, V]) find(hash uint64, k K) (at uint64, o *object[K, V]) {
	for at = hash; ; at++ {
		if o = t.slot(at).Load(); o == nil || o.hash == hash && o.key == k {
			return at, o
		}
	}
}

// put keeps an object, in the place of one that was not read for longest, more or
// less (CLOCK). A reader that finds another at it leaves its own out.
func (t *objects[K, V]) put(k K, v V, see *sighting) {
	if t == nil || !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	o := &object[K, V]{hash: maphash.Comparable(t.seed, k), key: k, value: v, sighting: *see}
	at, old := t.find(o.hash, k)
	if old == nil {
		if t.len == t.limit {
			t.evict()
			at, _ = t.find(o.hash, k)
		}
		t.len++
	}
	t.slot(at).Store(o)
}

func (t *objects[K, V]) evict() {
	for {
		t.hand++
		if o := t.slot(t.hand).Load(); o != nil && !o.read.Swap(false) {
			t.remove(t.hand)
			return
		}
	}
}

// remove closes the gap with those that had to give way to what is in it.
func (t *objects[K, V]) remove(gap uint64) {
	mask := uint64(len(t.slots) - 1)
	for at := gap + 1; ; at++ {
		o := t.slot(at).Load()
		if o == nil {
			break
		}
		if (at-o.hash)&mask >= (at-gap)&mask { // its search passes the gap
			t.slot(gap).Store(o)
			gap = at
		}
	}
	t.slot(gap).Store(nil)
	t.len--
}
