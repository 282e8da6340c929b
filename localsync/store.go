package localsync

import (
	"bytes"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
)

const (
	// Shards are few, because an entry must fit one, and small, because writers wait
	// while one moves to a fresh arena (see BenchmarkCompact): up to 64 of at least
	// 1 MiB, and more than that only of 4 MiB.
	minShardBytes = 1 << 20
	maxShardBytes = 4 << 20
	fewShards     = 64
	// stampCount is 64 KiB of stamps: 10,000 invalidations a second touch each of
	// them about once.
	stampCount = 1 << 13
)

// store holds the envelopes of the resident entries and decides what may become
// one. One lock per shard guards the bytes, the side table and the floors of the
// same keys together: "is it at or above the floor" and "keep it" are one step.
//
// Lock order: a shard's turn, then its lock. No lock is held around I/O.
type store struct {
	shards []shard
	parts  []partition
	// stamps change with the rows: while the stamp of a key stays what it was, so
	// does its row. Keys share them, which costs another look and nothing else.
	stamps [stampCount]atomic.Uint64
	share, // of the budget, per shard
	biggest,
	floorLimit int
	floorAge int64

	tooBig, evictions, compactions atomic.Uint64
}

type shard struct {
	// turn is the writers': who has it knows that nothing changes, and may let
	// readers in meanwhile. mu is what guards the rest from readers.
	turn   sync.Mutex
	mu     sync.RWMutex
	rows   table
	bytes  *arena
	live   int    // bytes of the rows' entries
	writes uint32 // gives each its body number
	floors floors
}

func newStore(opt *Options, parts []partition, now int64) *store {
	n := max(min(opt.MaxBytes/minShardBytes, fewShards), opt.MaxBytes/maxShardBytes)
	n = 1 << (bits.Len(uint(n)) - 1)
	s := &store{
		shards:     make([]shard, n),
		parts:      parts,
		share:      opt.MaxBytes / n,
		biggest:    opt.MaxBytes / n / 2,
		floorLimit: max(opt.MaxFloors/n, 1),
		floorAge:   int64(opt.FloorAge),
	}
	for i := range s.shards {
		s.shards[i] = shard{rows: newTable(0), bytes: newArena(spareBytes), floors: newFloors()}
		s.shards[i].floors.turnedAt = now
	}
	return s
}

func (s *store) shard(hash uint64) *shard { return &s.shards[hash&uint64(len(s.shards)-1)] }

// stamp does not share bits of the hash with shard.
func (s *store) stamp(hash uint64) *atomic.Uint64 { return &s.stamps[hash>>32%stampCount] }

func (sh *shard) lock() {
	sh.turn.Lock()
	sh.mu.Lock()
}

func (sh *shard) unlock() {
	sh.mu.Unlock()
	sh.turn.Unlock()
}

// put writes a row and remove drops one, under the shard's lock.
func (s *store) put(sh *shard, hash uint64, m meta) {
	sh.live += int(m.size) - int(sh.rows.put(hash, m).size)
	s.stamp(hash).Add(1)
}

func (s *store) remove(sh *shard, hash uint64) {
	sh.live -= int(sh.rows.remove(hash).size)
	s.stamp(hash).Add(1)
}

// sighting is what a reader saw of a row, and the stamp that it had then.
type sighting struct {
	row   meta
	hash  uint64
	stamp uint64
}

// read gives a copy of the resident envelope from one of its bytes on, with its row,
// however old.
func (s *store) read(name []byte, hash uint64, from int) (envelope []byte, row meta, ok bool) {
	sh := s.shard(hash)
	sh.mu.RLock()
	if m := sh.rows.get(hash); m != nil {
		row = *m
		var kept []byte
		if kept, ok = unpack(sh.bytes.get(row.at), name); ok {
			kept = kept[from:]
			envelope = make([]byte, len(kept)) // not cleared before: the compiler sees the copy
			copy(envelope, kept)
		}
	}
	sh.mu.RUnlock()
	return envelope, row, ok
}

// stands reports whether the row is as it was seen.
func (s *store) stands(see *sighting) bool { return s.stamp(see.hash).Load() == see.stamp }

// look brings what was seen of a row up to date. It returns false when its bytes
// are not those any more.
func (s *store) look(see *sighting) bool {
	stamp := s.stamp(see.hash)
	sh := s.shard(see.hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	row := sh.rows.get(see.hash)
	if row == nil || row.body != see.row.body {
		return false
	}
	see.row, see.stamp = *row, stamp.Load()
	return true
}

// floor is the version below which nothing of the key is kept.
func (s *store) floor(hash uint64) rowtide.Version {
	sh := s.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.floors.of(hash)
}

// standing is the floor together with the version of what is resident and not
// past its hard age (zero if nothing is).
func (s *store) standing(hash uint64, now int64) (floor, resident rowtide.Version) {
	sh := s.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if m := sh.rows.get(hash); m != nil && now < m.hardAt() && !m.has(metaDegraded) {
		resident = m.version
	}
	return sh.floors.of(hash), resident
}

// raise lifts the key's floor to v and marks what is resident below it. It costs
// the same whatever the store holds and waits for no reader's I/O (race R23).
func (s *store) raise(hash uint64, part uint16, v rowtide.Version, now int64) (resident bool) {
	sh := s.shard(hash)
	sh.lock()
	defer sh.unlock()
	sh.floors.raise(hash, part, v)
	s.turnFloors(sh, now)
	m := sh.rows.get(hash)
	if m == nil {
		return false
	}
	if m.version < v {
		next := *m
		next.flags |= metaInvalid
		next.quiet = 0 // what failed before the change is no reason not to try now
		s.put(sh, hash, next)
	}
	return true
}

func (s *store) turnFloors(sh *shard, now int64) {
	if !sh.floors.due(now, s.floorAge, s.floorLimit) {
		return
	}
	for part, v := range sh.floors.turn(now) {
		s.parts[part].forget(now, v)
	}
}

// candidate is a value that wants to be kept.
type candidate struct {
	slot
	entry      rowtide.Entry
	began      int64 // when the read of it began
	soft, hard time.Duration
	loaded     bool  // by this node's loader, as against read from Redis or pushed
	turnedAt   int64 // of the module; what was verified before is to be read again
	degraded   bool
	mends      bool // what is resident does not decode
}

// keep stores c unless something known speaks against it, and says what. The
// checks and the write are one step under the shard's lock: an invalidation is
// applied either before, and refuses c, or after, and marks it (races R1, R9).
func (s *store) keep(c *candidate, now int64) Refusal {
	envelope := c.entry.AppendEnvelope(make([]byte, 0, rowtide.EnvelopeHeader+len(c.entry.Payload)))
	sh := s.shard(c.hash)
	sh.lock()
	defer sh.unlock()
	s.turnFloors(sh, now)
	if !c.degraded {
		if r := s.refuse(sh, c); r != 0 {
			return r
		}
	}
	next := c.meta()
	if old := sh.rows.get(c.hash); old != nil && now < old.hardAt() && !old.has(metaDegraded) {
		if c.degraded && !old.has(metaInvalid) {
			return RefusedOlder
		}
		// What was read after a doubt arose stands above what was kept before it.
		what := yield(old, &next, max(c.turnedAt, s.parts[c.part].doubt()))
		if what == keepOld {
			return RefusedOlder
		}
		if what == touchOld && !c.mends || same(sh, c, old, envelope) {
			next.touch(old, what)
			s.put(sh, c.hash, next)
			return 0
		}
	}
	blob := pack(c.name, envelope)
	if footprint(blob) > s.biggest {
		s.tooBig.Add(1)
		s.remove(sh, c.hash)
		return RefusedSize
	}
	s.write(sh, c.hash, next, blob, now)
	return 0
}

// standIn keeps a value that may claim nothing, for its readers to be served it as Stale
// until retryAfter, in place of a load or a look at Redis each; it may be older than the
// floor. Where a row is in doubt it takes over the row's bytes and none of its claims,
// and it takes the place of a row below its floor. What is not in doubt stays unless it
// does not decode, and so does what was heard of above the floor that the load began with.
func (s *store) standIn(c *candidate, floor rowtide.Version, doubt, now int64) {
	sh := s.shard(c.hash)
	sh.lock()
	defer sh.unlock()
	c.entry.Version = 0
	next := c.meta()
	old := sh.rows.get(c.hash)
	known := sh.floors.of(c.hash)
	if old != nil && now < old.hardAt() && !old.has(metaDegraded) && old.version > 0 && old.version >= known {
		if old.verified > doubt && !c.mends {
			return
		}
		kept := *old
		kept.flags = kept.flags&^(metaFill|metaEmpty) | next.flags
		next = kept
	}
	next.flags |= metaInvalid
	next.hush(now, false)
	blob := pack(c.name, c.entry.AppendEnvelope(nil))
	if known > floor || footprint(blob) > s.biggest {
		return
	}
	s.write(sh, c.hash, next, blob, now)
}

// write keeps a row and its bytes.
func (s *store) write(sh *shard, hash uint64, m meta, blob []byte, now int64) {
	sh.writes++
	m.body, m.size = sh.writes, uint32(footprint(blob))
	switch { // readers need not wait; what was decided so far stands
	case !sh.bytes.fits(blob):
		sh.mu.Unlock()
		s.compact(sh, int(m.size), now)
		sh.mu.Lock()
	case sh.rows.full():
		sh.mu.Unlock()
		rows := sh.rows.larger()
		sh.mu.Lock()
		sh.rows = rows
	}
	m.at = sh.bytes.add(blob)
	s.put(sh, hash, m)
}

func (s *store) refuse(sh *shard, c *candidate) Refusal {
	if c.entry.Version < sh.floors.of(c.hash) {
		return RefusedFloor
	}
	p := &s.parts[c.part]
	// A loaded value claims an aged watermark, which is above all that was
	// forgotten unless the load or the bus hung. What Redis holds is the truth of
	// its moment, so only a read that began before the forgetting is in doubt.
	inDoubt := c.loaded || c.began <= p.forgotAt.Load()
	if inDoubt && uint64(c.entry.Version) < p.forgotten.Load() {
		return RefusedForgotten
	}
	return 0
}

func (c *candidate) meta() meta {
	m := meta{version: c.entry.Version, verified: c.began, soft: millis(c.soft), hard: millis(c.hard), part: c.part}
	if c.entry.Flags&rowtide.FlagFill != 0 {
		m.flags |= metaFill
	}
	if c.entry.Empty() {
		m.flags |= metaEmpty
	}
	if c.degraded {
		m.flags |= metaDegraded
	}
	return m
}

type outcome uint8

const (
	takeNew outcome = iota + 1
	keepOld
	touchOld // the same state: only its ages are renewed
)

// yield decides between a resident value and a new one.
func yield(old, next *meta, doubt int64) outcome {
	switch {
	case next.has(metaDegraded):
		return takeNew
	case next.version < old.version:
		return keepOld
	case next.version > old.version:
		return takeNew
	case old.verified <= doubt && next.verified > doubt:
		return takeNew // of a newer generation, or after records were missed
	case next.has(metaFill) && !old.has(metaFill):
		// A loaded value never beats the change itself (race R2).
		return touchOld
	case next.has(metaFill) && next.verified < old.verified:
		// Two loads that claim the same watermark: the later reading counts.
		return keepOld
	}
	return takeNew
}

// same reports whether the resident payload is c's, in which case its bytes need
// not be written again.
func same(sh *shard, c *candidate, old *meta, envelope []byte) bool {
	if old.has(metaEmpty) || c.entry.Empty() {
		return false // nothing to save
	}
	have, ok := unpack(sh.bytes.get(old.at), c.name)
	return ok && bytes.Equal(have[rowtide.EnvelopeHeader:], envelope[rowtide.EnvelopeHeader:])
}

// hush asks readers to leave the resident entry as it is for a while after a
// failed attempt; only the row is touched (race R12).
func (s *store) hush(hash uint64, now int64, refresh bool) {
	sh := s.shard(hash)
	sh.lock()
	defer sh.unlock()
	if m := sh.rows.get(hash); m != nil {
		next := *m
		next.hush(now, refresh)
		s.put(sh, hash, next)
	}
}

// stats walks the shards.
func (s *store) stats() StoreStats {
	st := StoreStats{
		MaxBytes: s.share * len(s.shards), TooBig: s.tooBig.Load(),
		Evicted: s.evictions.Load(), Compactions: s.compactions.Load(),
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		st.Entries += sh.rows.len
		st.Floors += sh.floors.len()
		st.Live += sh.live
		st.Bytes += sh.bytes.queue.Capacity()
		sh.mu.RUnlock()
	}
	return st
}
