package localsync

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/allegro/bigcache/v3"

	"github.com/rowtide/rowtide"
)

const (
	// maxShards is few, because bigcache refuses what does not fit a shard:
	// 256 MiB in 64 shards takes values up to 2 MiB, in its default 1024 only
	// 128 KiB.
	maxShards = 64
	// minShardBytes keeps a small budget usable for values up to 512 KiB.
	minShardBytes = 1 << 20
	// entryOverhead is what bigcache adds to a value, rounded up.
	entryOverhead = 64
	// lifeWindow is when bigcache itself would drop an entry. Our own ages rule;
	// this only returns the space of what nobody read for two days.
	lifeWindow = 48 * time.Hour
)

// store holds the envelopes of the resident entries and decides what may become
// one. One lock per shard guards the bytes, the side table and the floors of the
// same keys together: "is it at or above the floor" and "keep it" are one step.
//
// Lock order: a shard's lock, then bigcache's own. No lock is held around I/O.
type store struct {
	bytes  *bigcache.BigCache
	shards []shard
	parts  []partition
	biggest,
	floorLimit int
	floorAge int64

	tooBig    atomic.Uint64
	evictions atomic.Uint64
}

type shard struct {
	mu     sync.RWMutex
	meta   map[uint64]meta
	floors floors
}

func newStore(opt *Options, parts []partition, now int64) (*store, error) {
	n := 1 << (bits.Len(uint(min(opt.MaxBytes/minShardBytes, maxShards))) - 1)
	s := &store{
		shards: make([]shard, n),
		parts:  parts,
		// A push into a queue that has not grown to its full size yet can fail
		// above half of it, and a failed push empties the shard first.
		biggest:    opt.MaxBytes/n/2 - entryOverhead,
		floorLimit: max(opt.MaxFloors/n, 1),
		floorAge:   int64(opt.FloorAge),
	}
	for i := range s.shards {
		s.shards[i] = shard{meta: map[uint64]meta{}, floors: newFloors()}
		s.shards[i].floors.turnedAt = now
	}
	var err error
	s.bytes, err = bigcache.New(context.Background(), bigcache.Config{
		Shards:     n,
		LifeWindow: lifeWindow,
		// No cleaner: eviction happens only inside Set, under our shard's lock,
		// so that evicted can drop the side table's row without taking it.
		CleanWindow:        0,
		MaxEntriesInWindow: 0,
		MaxEntrySize:       1 << 10, // with the floor of 10 entries: 10 KiB per shard at first
		HardMaxCacheSize:   opt.MaxBytes >> 20,
		Hasher:             nameHasher{},
		OnRemoveWithReason: s.evicted,
	})
	if err != nil {
		return nil, fmt.Errorf("make local store of %d bytes: %w", opt.MaxBytes, err)
	}
	return s, nil
}

func (s *store) close() error { return s.bytes.Close() }

func (s *store) shard(hash uint64) *shard { return &s.shards[hash&uint64(len(s.shards)-1)] }

// evicted runs inside bigcache's Set, which runs inside our lock on the shard
// that the evicted entry is in too: both choose it by the same hash.
func (s *store) evicted(name string, _ []byte, _ bigcache.RemoveReason) {
	h := nameHash(name)
	delete(s.shard(h).meta, h)
	s.evictions.Add(1)
}

// read gives a copy of the resident envelope and its row, however old.
func (s *store) read(name string, hash uint64) (envelope []byte, m meta, ok bool) {
	sh := s.shard(hash)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	m, ok = sh.meta[hash]
	if !ok {
		return nil, m, false
	}
	// bigcache checks the name: of two names with one hash the other is a miss
	// (race R24).
	envelope, err := s.bytes.Get(name)
	return envelope, m, err == nil
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
	if m, ok := sh.meta[hash]; ok && now < m.hardAt() && !m.has(metaDegraded) {
		resident = m.version
	}
	return sh.floors.of(hash), resident
}

// raise lifts the key's floor to v and marks what is resident below it. It costs
// the same whatever the store holds and waits for no reader's I/O (race R23).
func (s *store) raise(hash uint64, part uint16, v rowtide.Version, now int64) (resident bool) {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.floors.raise(hash, part, v)
	s.turnFloors(sh, now)
	m, ok := sh.meta[hash]
	if ok && m.version < v {
		m.flags |= metaInvalid
		m.quiet = 0 // what failed before the change is no reason not to try now
		sh.meta[hash] = m
	}
	return ok
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
}

// keep stores c unless something known speaks against it, and says what. The
// checks and the write are one step under the shard's lock: an invalidation is
// applied either before, and refuses c, or after, and marks it (races R1, R9).
func (s *store) keep(c *candidate, now int64) Refusal {
	envelope := c.entry.AppendEnvelope(make([]byte, 0, rowtide.EnvelopeHeader+len(c.entry.Payload)))
	sh := s.shard(c.hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.turnFloors(sh, now)
	if !c.degraded {
		if r := s.refuse(sh, c); r != 0 {
			return r
		}
	}
	old, resident := sh.meta[c.hash]
	next := c.meta()
	if resident && now < old.hardAt() && !old.has(metaDegraded) {
		if c.degraded && !old.has(metaInvalid) {
			return RefusedOlder
		}
		switch r := yield(&old, &next, c.turnedAt); r {
		case keepOld:
			return RefusedOlder
		case touchOld:
			next.flags = next.flags&^metaFill | old.flags&metaFill
			next.flags = next.flags&^metaEmpty | old.flags&metaEmpty
			sh.meta[c.hash] = next
			return 0
		case takeNew:
		}
		if s.same(c, &old, envelope) {
			sh.meta[c.hash] = next
			return 0
		}
	}
	if len(envelope)+len(c.name) > s.biggest {
		s.tooBig.Add(1)
		s.drop(sh, c)
		return RefusedSize
	}
	// The row first: Set may evict this very entry's neighbours, never itself.
	sh.meta[c.hash] = next
	if err := s.bytes.Set(c.name, envelope); err != nil {
		s.tooBig.Add(1)
		delete(sh.meta, c.hash)
		return RefusedSize
	}
	return 0
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
func yield(old, next *meta, turnedAt int64) outcome {
	switch {
	case next.has(metaDegraded):
		return takeNew
	case next.version < old.version:
		return keepOld
	case next.version > old.version:
		return takeNew
	case old.verified <= turnedAt && next.verified > turnedAt:
		return takeNew // of a newer generation
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
func (s *store) same(c *candidate, old *meta, envelope []byte) bool {
	if old.has(metaEmpty) || c.entry.Empty() {
		return false // 40 bytes: cheaper to write than to read
	}
	have, err := s.bytes.Get(c.name)
	return err == nil && bytes.Equal(have[rowtide.EnvelopeHeader:], envelope[rowtide.EnvelopeHeader:])
}

func (s *store) drop(sh *shard, c *candidate) {
	delete(sh.meta, c.hash)
	_ = s.bytes.Delete(c.name) // absent is as good
}

// hush asks readers to leave the resident entry as it is for a while after a
// failed attempt; only the row is touched (race R12).
func (s *store) hush(hash uint64, now int64, refresh bool) {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if m, ok := sh.meta[hash]; ok {
		m.hush(now, refresh)
		sh.meta[hash] = m
	}
}

// sizes walks the shards; it is for statistics.
func (s *store) sizes() (entries, floorCount int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		entries += len(sh.meta)
		floorCount += sh.floors.len()
		sh.mu.RUnlock()
	}
	return entries, floorCount
}
