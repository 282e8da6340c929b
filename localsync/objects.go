package localsync

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// objects is the level of decoded values. What it holds says nothing about whether
// it may be served: the side table's row does, see Module.near. So losing one is
// harmless, and readers take no lock: an object may be in one of two sets, and a
// reader may miss what is being put there and has to decode once more.
//
// Otter would do, but adds its own bookkeeping of each read to ours; see
// docs/adr/0016-local-levels.md.
type objects[K comparable, V any] struct {
	seed maphash.Seed
	sets []objectSet[K, V]
	mu   sync.Mutex // of writers
}

// ways are the objects of a set, which is then a line of the processor's cache (but for
// tables of some hundreds of objects, in front of which Go puts eight bytes).
const ways = 7

type objectSet[K comparable, V any] struct {
	// tags has a byte of each object's hash, so that others are not looked at: each
	// would be a line of the cache more.
	tags    atomic.Uint64
	objects [ways]atomic.Pointer[object[K, V]]
}

type object[K comparable, V any] struct {
	key   K
	value V
	sighting
	read atomic.Bool // since it was passed over as a victim
}

// newObjects keeps about limit objects; nil, which keeps none, for 0. There is room for
// a quarter more, with which of limit objects one in a thousand finds both sets full.
func newObjects[K comparable, V any](limit int) *objects[K, V] {
	if limit == 0 {
		return nil
	}
	return &objects[K, V]{seed: maphash.MakeSeed(), sets: make([]objectSet[K, V], (limit+limit/4)/ways+1)}
}

// homes are the sets that k may be in.
func (t *objects[K, V]) homes(hash uint64) (first, second *objectSet[K, V]) {
	return t.home(hash), t.home(bits.RotateLeft64(hash, 32))
}

func (t *objects[K, V]) home(hash uint64) *objectSet[K, V] {
	at, _ := bits.Mul64(hash, uint64(len(t.sets)))
	return &t.sets[at]
}

func (t *objects[K, V]) get(k K) *object[K, V] {
	if t == nil {
		return nil
	}
	hash := maphash.Comparable(t.seed, k)
	first, second := t.homes(hash)
	o, _ := first.find(hash, k)
	if o == nil {
		if o, _ = second.find(hash, k); o == nil {
			return nil
		}
	}
	if !o.read.Load() {
		o.read.Store(true)
	}
	return o
}

// find compares all tags at once: a byte that is zero after the exclusive or is told of
// by its highest bit, sometimes together with one that is not.
func (s *objectSet[K, V]) find(hash uint64, k K) (o *object[K, V], at int) {
	const ones = 0x01_01_01_01_01_01_01
	differ := s.tags.Load() ^ hash&0xff*ones
	for equal := (differ - ones) &^ differ & (ones << 7); equal != 0; equal &= equal - 1 {
		at = bits.TrailingZeros64(equal) / 8
		if o = s.objects[at].Load(); o != nil && o.key == k {
			return o, at
		}
	}
	return nil, 0
}

// put keeps an object, in the place of another that was not read lately where both its
// sets are full. A reader that finds another at it leaves its own out.
func (t *objects[K, V]) put(k K, v V, see *sighting) {
	if t == nil || !t.mu.TryLock() {
		return
	}
	defer t.mu.Unlock()
	hash := maphash.Comparable(t.seed, k)
	s, at := t.place(hash, k)
	s.objects[at].Store(&object[K, V]{key: k, value: v, sighting: *see})
	shift := 8 * at
	s.tags.Store(s.tags.Load()&^(0xff<<shift) | hash&0xff<<shift)
}

// place is where k is or is to be: in its first set while that is not half full, so that
// few reads look at two, else in the emptier one.
func (t *objects[K, V]) place(hash uint64, k K) (s *objectSet[K, V], at int) {
	first, second := t.homes(hash)
	if o, at := first.find(hash, k); o != nil {
		return first, at
	}
	if o, at := second.find(hash, k); o != nil {
		return second, at
	}
	n, m := first.len(), second.len()
	switch {
	case n <= ways/2 || n <= m && n < ways:
		return first, n
	case m < ways:
		return second, m
	}
	// Whoever is passed over has to be read again to be passed over again.
	for _, s := range [...]*objectSet[K, V]{first, second, first} {
		for i, from := 0, rand.IntN(ways); i < ways; i++ {
			if at := (from + i) % ways; !s.objects[at].Load().read.Swap(false) {
				return s, at
			}
		}
	}
	return first, rand.IntN(ways) // all have just been read again
}

// len is the number of objects. Once there, a place is never empty again.
func (s *objectSet[K, V]) len() (n int) {
	for n < ways && s.objects[n].Load() != nil {
		n++
	}
	return n
}
