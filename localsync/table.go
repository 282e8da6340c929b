package localsync

import (
	"iter"
	"math/bits"
	"math/rand/v2"
)

// table is a shard's side table: the rows of what is resident, by hash. It is linear
// probing, for a row to be one line of the processor's cache: in a map it is three, each
// of which a read of 100 MB at random has to wait for. No row has a pointer.
type table struct {
	slots []tableSlot
	len   int
	// seed is random, lest who knows the hashes of the keys could choose many that
	// belong in one place.
	seed uint64
}

type tableSlot struct {
	hash uint64
	meta meta
	full bool
	_    [7]byte // to 64 bytes
}

// newTable has room for n rows: a slot in five stays free, for searches to be short.
func newTable(n int) table {
	return table{slots: make([]tableSlot, n+n/4+1), seed: rand.Uint64()}
}

// full reports whether there is no room for one more row.
func (t *table) full() bool { return (t.len+1)*5 > len(t.slots)*4 }

// larger is a copy with room for a quarter more.
func (t *table) larger() table {
	next := newTable(t.len + t.len/4 + 1)
	for hash, m := range t.all() {
		next.put(hash, *m)
	}
	return next
}

// home is where the search for a hash begins. Hashes of names that differ in a digit or
// two are not far from each other; both halves of the product scatter them.
func (t *table) home(hash uint64) int {
	const odd = 0x9E37_79B9_7F4A_7C15
	high, low := bits.Mul64(hash^t.seed, odd)
	at, _ := bits.Mul64(high^low, uint64(len(t.slots)))
	return int(at)
}

func (t *table) after(at int) int {
	if at++; at < len(t.slots) {
		return at
	}
	return 0
}

// find is the slot of the hash, or the free one where its search ends.
func (t *table) find(hash uint64) (at int) {
	for at = t.home(hash); t.slots[at].full && t.slots[at].hash != hash; {
		at = t.after(at)
	}
	return at
}

// get is the row of the hash, or nil, for reading only. It is good until the next put or
// remove, or until the table is replaced.
func (t *table) get(hash uint64) *meta {
	if s := &t.slots[t.find(hash)]; s.full {
		return &s.meta
	}
	return nil
}

// put writes a row and returns the one before. A row that is new needs room.
func (t *table) put(hash uint64, m meta) (old meta) {
	s := &t.slots[t.find(hash)]
	if !s.full {
		if t.full() {
			panic("the side table is full") // a search for what is not there would not end
		}
		t.len++
	}
	old = s.meta
	*s = tableSlot{hash: hash, meta: m, full: true}
	return old
}

// remove drops a row and returns it. Those behind that had to give way to it move up.
func (t *table) remove(hash uint64) (old meta) {
	gap := t.find(hash)
	if !t.slots[gap].full {
		return old
	}
	old = t.slots[gap].meta
	t.len--
	for at := t.after(gap); t.slots[at].full; at = t.after(at) {
		if t.distance(t.home(t.slots[at].hash), at) >= t.distance(gap, at) { // its search passes the gap
			t.slots[gap] = t.slots[at]
			gap = at
		}
	}
	t.slots[gap] = tableSlot{}
	return old
}

// distance is how many slots a search goes on from one to another.
func (t *table) distance(from, to int) int {
	if to < from {
		to += len(t.slots)
	}
	return to - from
}

// all are the rows, in no order. None may be put or removed meanwhile.
func (t *table) all() iter.Seq2[uint64, *meta] {
	return func(yield func(uint64, *meta) bool) {
		for i := range t.slots {
			if s := &t.slots[i]; s.full && !yield(s.hash, &s.meta) {
				return
			}
		}
	}
}
