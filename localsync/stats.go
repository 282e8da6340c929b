package localsync

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
)

// Stats is a snapshot of a node's counters, all since Open.
type Stats struct {
	Modules []ModuleStats // by name and version
	Bus     BusStats
	Store   StoreStats
}

// ModuleStats counts one module's reads, per key.
type ModuleStats struct {
	Name    string
	Version uint16
	// Generation is the module's as the daemon gives it; 0 without a control topic.
	Generation uint32
	// Local, Redis and Loader are reads by the level that answered. Readers that
	// share one load count each.
	Local, Redis, Loader uint64
	// Of those: Empty said "not found", Stale was served with Info.Stale.
	Empty, Stale uint64
	// Errors are reads that gave neither a value nor ErrNotFound.
	Errors uint64

	// Loads are calls of the loader; LoadErrors are keys that a call failed for.
	Loads, LoadErrors uint64
	// Refreshes are entries renewed behind a reader.
	Refreshes uint64
	// Refused are values that were not kept because of something newer, or their
	// size.
	Refused uint64
	// Corrupt are values in Redis that were not usable: foreign, damaged, of a
	// newer format, or not what the codec expects.
	Corrupt uint64
	// Behind are values in Redis older than this node knew.
	Behind uint64
	// RedisErrors are round trips that failed.
	RedisErrors uint64
	// Loading is how many keys are being read right now, for readers or a refresh.
	Loading int
}

// BusStats says how well the node hears.
type BusStats struct {
	Partitions int
	// Records counts batches with items, Heartbeats those without, Applied the
	// invalidations in them.
	Records, Heartbeats, Applied uint64
	// Gaps counts how often a partition turned suspect; Undecodable are records
	// that could not be read.
	Gaps, Undecodable uint64
	// Lag is the time from the daemon's sending to here, of the last record; when
	// the quietest partition has been silent for longer, then that.
	Lag time.Duration
	// CommitLag is the time from the commit to here, of the last record that knew
	// its commit time.
	CommitLag time.Duration
	// Silent is the number of partitions that were not heard for Options.Silence.
	Silent int
	// Watermark is the newest one heard.
	Watermark rowtide.Version
}

// StoreStats says what the local store holds.
type StoreStats struct {
	Entries, Floors int
	// Bytes is what bigcache has allocated.
	Bytes int
	// TooBig are values not kept for their size, Evicted those that made room.
	TooBig, Evicted uint64
}

// Stats takes a snapshot. It walks the store's shards, so it is for a metrics
// scrape, not for every request.
func (c *Cache) Stats() Stats {
	var s Stats
	for _, m := range *c.modules.Load() {
		s.Modules = append(s.Modules, m.snapshot())
	}
	slices.SortFunc(s.Modules, func(a, b ModuleStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	s.Bus = c.bs.snapshot()
	s.Bus.Partitions = len(c.parts)
	s.Bus.Watermark = c.marks.latest()
	now := c.now()
	for i := range c.parts {
		quiet := time.Duration(now - c.parts[i].heardAt.Load())
		if quiet > c.opt.Silence {
			s.Bus.Silent++
			s.Bus.Lag = max(s.Bus.Lag, quiet)
		}
	}
	s.Store = StoreStats{
		Bytes: c.store.bytes.Capacity(), TooBig: c.store.tooBig.Load(), Evicted: c.store.evictions.Load(),
	}
	s.Store.Entries, s.Store.Floors = c.store.sizes()
	return s
}

type moduleStats struct {
	levels                                [LevelLoader + 1]atomic.Uint64
	empty, stale, errors                  atomic.Uint64
	loads, loadErrors, refreshes, refused atomic.Uint64
	corrupt, behind, redisErrors          atomic.Uint64
}

// count takes note of one key's read as its reader sees it.
func (s *moduleStats) count(r *result) {
	if r.err != nil {
		s.errors.Add(1)
		return
	}
	s.levels[r.level].Add(1)
	if r.empty {
		s.empty.Add(1)
	}
	if r.stale {
		s.stale.Add(1)
	}
}

func (m *core) snapshot() ModuleStats {
	s := &m.stats
	m.mu.Lock()
	loading := len(m.flights)
	m.mu.Unlock()
	return ModuleStats{
		Name: m.policy.name, Version: m.policy.version, Generation: m.live.generation.Load(),
		Local: s.levels[LevelLocal].Load(), Redis: s.levels[LevelRedis].Load(), Loader: s.levels[LevelLoader].Load(),
		Empty: s.empty.Load(), Stale: s.stale.Load(), Errors: s.errors.Load(),
		Loads: s.loads.Load(), LoadErrors: s.loadErrors.Load(), Refreshes: s.refreshes.Load(),
		Refused: s.refused.Load(), Corrupt: s.corrupt.Load(), Behind: s.behind.Load(), RedisErrors: s.redisErrors.Load(),
		Loading: loading,
	}
}

type busStats struct {
	records, heartbeats, applied, gaps, undecodable atomic.Uint64
	lag, commitLag                                  atomic.Int64
}

func (s *busStats) heard(b *rowtide.Batch, now time.Time) {
	if b.Heartbeat() {
		s.heartbeats.Add(1)
	} else {
		s.records.Add(1)
	}
	// Two machines' clocks: a negative difference means "at once".
	s.lag.Store(int64(max(now.Sub(b.SentAt), 0)))
	if !b.CommittedAt.IsZero() {
		s.commitLag.Store(int64(max(now.Sub(b.CommittedAt), 0)))
	}
}

func (s *busStats) snapshot() BusStats {
	return BusStats{
		Records: s.records.Load(), Heartbeats: s.heartbeats.Load(), Applied: s.applied.Load(),
		Gaps: s.gaps.Load(), Undecodable: s.undecodable.Load(),
		Lag: time.Duration(s.lag.Load()), CommitLag: time.Duration(s.commitLag.Load()),
	}
}
