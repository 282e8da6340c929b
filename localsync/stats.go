package localsync

import (
	"cmp"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rowtide/rowtide"
)

// Stats is a snapshot of a node's counters, all since Open. Its JSON form is what
// the debug page and the daemon read.
type Stats struct {
	Modules []ModuleStats `json:"modules"` // by name and version
	Bus     BusStats      `json:"bus"`
	Store   StoreStats    `json:"store"`
}

// ModuleStats counts one module's reads, per key.
type ModuleStats struct {
	Name    string `json:"name"`
	Version uint16 `json:"version"`
	// Generation is the module's as the daemon gives it; 0 without a control topic.
	Generation uint32 `json:"generation"`
	// Object, Local, Redis and Loader are reads by the level that answered. Readers
	// that share one load count each.
	Object uint64 `json:"object"`
	Local  uint64 `json:"local"`
	Redis  uint64 `json:"redis"`
	Loader uint64 `json:"loader"`
	// Of those: Empty said "not found", Stale was served with Info.Stale.
	Empty uint64 `json:"empty"`
	Stale uint64 `json:"stale"`
	// Errors are reads that gave neither a value nor ErrNotFound.
	Errors uint64 `json:"errors"`

	// Loads are calls of the loader; LoadErrors are keys that a call failed for.
	Loads      uint64 `json:"loads"`
	LoadErrors uint64 `json:"load_errors"`
	// Unasked are keys that the loader returned without having been asked for them.
	Unasked uint64 `json:"unasked"`
	// Refreshes are entries renewed behind a reader.
	Refreshes uint64 `json:"refreshes"`
	// Refused are values that were not kept because of something newer, or their
	// size.
	Refused uint64 `json:"refused"`
	// Corrupt are values in Redis that were not usable: foreign, damaged, of a
	// newer format, or not what the codec expects.
	Corrupt uint64 `json:"corrupt"`
	// Behind are values in Redis older than this node knew.
	Behind uint64 `json:"behind"`
	// RedisErrors are round trips that failed.
	RedisErrors uint64 `json:"redis_errors"`
	// Leases are keys that this node took on itself to load for the fleet.
	// LeaseWaits are keys that it left to another node, LeaseTimeouts those of them
	// that it loaded after all, having waited for LeaseWait.
	Leases        uint64 `json:"leases"`
	LeaseWaits    uint64 `json:"lease_waits"`
	LeaseTimeouts uint64 `json:"lease_timeouts"`
	// Loading is how many keys are being read right now, for readers or a refresh.
	Loading int `json:"loading"`
}

// ByLevel yields the reads that each level answered, nearest first.
func (m *ModuleStats) ByLevel() iter.Seq2[Level, uint64] {
	return func(yield func(Level, uint64) bool) {
		_ = yield(LevelObject, m.Object) && yield(LevelLocal, m.Local) && yield(LevelRedis, m.Redis) && yield(LevelLoader, m.Loader)
	}
}

// BusStats says how well the node hears.
type BusStats struct {
	Partitions int `json:"partitions"`
	// Records counts batches with items, Heartbeats those without, Applied the
	// invalidations in them.
	Records    uint64 `json:"records"`
	Heartbeats uint64 `json:"heartbeats"`
	Applied    uint64 `json:"applied"`
	// Hinted counts the invalidations that Redis passed on ahead of the bus.
	Hinted uint64 `json:"hinted"`
	// Gaps counts how often a partition turned suspect; Undecodable are records
	// that could not be read.
	Gaps        uint64 `json:"gaps"`
	Undecodable uint64 `json:"undecodable"`
	// Resized counts how often the topic turned out to have another number of
	// partitions than before. Since then a fault of one partition concerns all keys.
	Resized uint64 `json:"resized"`
	// Away is true until the bus was reached for the first time (AwayDegraded).
	Away bool `json:"away,omitempty"`
	// Lag is the time from the daemon's sending to here, of the last record; when
	// the quietest partition has been silent for longer, then that.
	Lag time.Duration `json:"lag_ns"`
	// CommitLag is the time from the commit to here, of the last record that knew
	// its commit time.
	CommitLag time.Duration `json:"commit_lag_ns"`
	// Behind is how far behind the source the daemon is, by the last record: zero while
	// it keeps up.
	Behind time.Duration `json:"behind_ns"`
	// Silent is the number of partitions of which nothing newer than Options.Silence is
	// known, and 1 while Away.
	Silent int `json:"silent"`
	// Watermark is the newest one heard.
	Watermark rowtide.Version `json:"watermark,string"`
	// ByPartition is the state of each, in order.
	ByPartition []PartitionStats `json:"by_partition,omitempty"`
}

// PartitionStats says how well the node hears one partition.
type PartitionStats struct {
	// Heard is the age of what was heard: the time since the last record or heartbeat
	// (or since Open), and by how much the daemon said to be behind.
	Heard time.Duration `json:"heard_ago_ns"`
	// Lag is the time from the daemon's sending to here, of that record.
	Lag time.Duration `json:"lag_ns"`
	// Silent is whether Heard exceeds Options.Silence.
	Silent bool `json:"silent"`
	// Gaps counts how often it turned suspect; Suspect is the time since the last.
	// What was kept before then is checked against Redis as it is read.
	Gaps    uint64        `json:"gaps"`
	Suspect time.Duration `json:"suspect_ago_ns,omitempty"`
}

// StoreStats says what the local store holds.
type StoreStats struct {
	Entries int `json:"entries"`
	Floors  int `json:"floors"`
	// Live is what the entries take, Bytes what is allocated for them, MaxBytes
	// what may be.
	Live     int `json:"live"`
	Bytes    int `json:"bytes"`
	MaxBytes int `json:"max_bytes"`
	// TooBig are values not kept for their size, Evicted those that made room.
	TooBig  uint64 `json:"too_big"`
	Evicted uint64 `json:"evicted"`
	// Compactions is how often a shard's entries were moved to fresh memory, to
	// grow it or to be rid of what was replaced.
	Compactions uint64 `json:"compactions"`
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
	streams := c.layout.Load().streams
	s.Bus.Partitions = len(streams)
	s.Bus.Watermark = c.marks.latest()
	now := c.now()
	if len(streams) == 0 {
		s.Bus.Away, s.Bus.Silent, s.Bus.Lag = true, 1, time.Duration(now)
	}
	for _, stream := range streams {
		p := stream.snapshot(now, c.opt.Silence)
		if p.Silent {
			s.Bus.Silent++
			s.Bus.Lag = max(s.Bus.Lag, p.Heard)
		}
		s.Bus.ByPartition = append(s.Bus.ByPartition, p)
	}
	s.Store = c.store.stats()
	return s
}

type moduleStats struct {
	levels                                [LevelLoader + 1]counter
	empty, stale, errors                  atomic.Uint64
	loads, loadErrors, refreshes, refused atomic.Uint64
	unasked                               atomic.Uint64
	corrupt, behind, redisErrors          atomic.Uint64
	leases, leaseWaits, leaseTimeouts     atomic.Uint64
	top                                   topKeys
}

// count takes note of one key's read as its reader sees it, and says whether its
// key is to be sampled.
func (s *moduleStats) count(r *result) (sample bool) {
	if r.err != nil {
		s.errors.Add(1)
		return false
	}
	n := s.levels[r.level].add()
	if r.empty {
		s.empty.Add(1)
	}
	if r.stale {
		s.stale.Add(1)
	}
	return sampled(n)
}

func (m *core) snapshot() ModuleStats {
	s := &m.stats
	m.mu.Lock()
	loading := len(m.flights)
	m.mu.Unlock()
	return ModuleStats{
		Name: m.policy.name, Version: m.policy.version, Generation: m.live.generation.Load(),
		Object: s.levels[LevelObject].load(), Local: s.levels[LevelLocal].load(),
		Redis: s.levels[LevelRedis].load(), Loader: s.levels[LevelLoader].load(),
		Empty: s.empty.Load(), Stale: s.stale.Load(), Errors: s.errors.Load(),
		Loads: s.loads.Load(), LoadErrors: s.loadErrors.Load(), Unasked: s.unasked.Load(), Refreshes: s.refreshes.Load(),
		Refused: s.refused.Load(), Corrupt: s.corrupt.Load(), Behind: s.behind.Load(), RedisErrors: s.redisErrors.Load(),
		Leases: s.leases.Load(), LeaseWaits: s.leaseWaits.Load(), LeaseTimeouts: s.leaseTimeouts.Load(),
		Loading: loading,
	}
}

type busStats struct {
	records, heartbeats, applied, hinted, gaps, undecodable, resized atomic.Uint64
	lag, commitLag, behind                                           atomic.Int64
}

func (s *busStats) heard(b *rowtide.Batch, now time.Time) (lag int64) {
	if b.Heartbeat() {
		s.heartbeats.Add(1)
	} else {
		s.records.Add(1)
	}
	// Two machines' clocks: a negative difference means "at once".
	lag = int64(max(now.Sub(b.SentAt), 0))
	s.lag.Store(lag)
	s.behind.Store(int64(b.Behind))
	if !b.CommittedAt.IsZero() {
		s.commitLag.Store(int64(max(now.Sub(b.CommittedAt), 0)))
	}
	return lag
}

func (s *busStats) snapshot() BusStats {
	return BusStats{
		Records: s.records.Load(), Heartbeats: s.heartbeats.Load(), Applied: s.applied.Load(), Hinted: s.hinted.Load(),
		Gaps: s.gaps.Load(), Undecodable: s.undecodable.Load(), Resized: s.resized.Load(),
		Lag: time.Duration(s.lag.Load()), CommitLag: time.Duration(s.commitLag.Load()),
		Behind: time.Duration(s.behind.Load()),
	}
}
