package localsync

import (
	"context"
	"sync"

	"github.com/rowtide/rowtide"
)

// core is a module without the types of its keys and values: it deals in slots
// and payload bytes. Module wraps it.
type core struct {
	c      *Cache
	policy policy // as the code gives it; rules is what is in force
	live   live
	head   string // what every local name begins with: "module:version:"
	begun  uint64 // nameHash of head
	load   loadFunc
	parse  func(id string) (typed any, spelled string, err error) // errOwnSpelling if it cannot
	stats  moduleStats

	mu      sync.Mutex
	flights map[string]*flight // by local name
}

// loadFunc calls the user's loader; answers are aligned with keys. A nil
// loadFunc means that the module has no loader.
type loadFunc func(ctx context.Context, keys []any) ([]loaded, error)

// loaded is one key's answer from a loader.
type loaded struct {
	payload []byte
	absent  bool
	err     error // this key's value does not encode
}

// job is a key on the slow path, with the user's own key for the loader.
type job struct {
	slot
	key any
	// force passes over Redis, whose value turned out not to decode.
	force bool
}

// result is the outcome of one key's read.
type result struct {
	payload  []byte
	version  rowtide.Version
	verified int64
	level    Level
	empty    bool
	stale    bool
	degraded bool
	// placeholder is an EMPTY that only stands for an error.
	placeholder bool
	garbled     bool // err is the codec's, about the payload
	err         error
}

// verdict is what may be done with a resident entry.
type verdict uint8

const (
	absent  verdict = iota + 1
	serve           // as it is
	renew           // serve, and refresh behind the reader
	recheck         // read Redis before serving
)

// look reads the bytes of the local level. The result is usable under serve and
// renew only, and under recheck as the last value to fall back on.
func (m *core) look(name string, hash uint64, want rowtide.Version) (r result, v verdict) {
	_, v = m.lookAt([]byte(name), hash, want, &r)
	return r, v
}

func (m *core) lookAt(name []byte, hash uint64, want rowtide.Version, r *result) (meta, verdict) {
	payload, row, ok := m.c.store.read(name, hash, rowtide.EnvelopeHeader)
	if !ok {
		return row, absent
	}
	v := m.appraise(&row, want, r)
	r.level = LevelLocal
	if !r.empty {
		r.payload = payload
	}
	return row, v
}

// appraise says what may be done with the value of a row, and what it is worth.
func (m *core) appraise(row *meta, want rowtide.Version, r *result) (v verdict) {
	now, want := m.c.now(), m.c.unmet(want, row.part)
	silent := m.silent(row.part, now)
	v, r.stale = m.judge(row, now, want, silent)
	r.version, r.verified = row.version, row.verified
	r.empty, r.placeholder = row.has(metaEmpty), row.has(metaDegraded)
	r.degraded = r.placeholder || silent
	return v
}

// judge decides by the row alone, and whether the bus is silent about it. stale is
// whether the entry, if served, would have to be called so.
func (m *core) judge(row *meta, now int64, want rowtide.Version, silent bool) (v verdict, stale bool) {
	rules := m.rules()
	soft, hard := rules.caps(row.has(metaEmpty))
	if now >= min(row.hardAt(), row.verified+hard) {
		return absent, true
	}
	if row.has(metaDegraded) {
		if want > 0 {
			return absent, true
		}
		return serve, false
	}
	// Loaded when there was no version to claim (see core.claim): from a replica that
	// lags, it may be older than what nobody told this node (race R3).
	unproven := row.version == 0
	// What was verified at the very instant of the loss is suspect too.
	suspect := m.doubt(row.part)
	doubt := row.has(metaInvalid) || row.verified <= suspect ||
		silent && now-row.verified > int64(rules.maxStale)
	switch {
	case row.version < want:
		return recheck, true
	case doubt && row.hushed(now, suspect) && !row.has(metaQuietRefresh):
		// Redis or the loader failed a moment ago: not again for every reader.
		return serve, true
	case doubt:
		return recheck, true
	case now >= min(row.softAt(), row.verified+soft) && !row.hushed(now, 0):
		return renew, unproven
	}
	return serve, unproven
}

// silent reports whether something may have been committed too long ago that was not
// heard of.
func (c *Cache) silent(part uint16, now int64) bool {
	return now-c.parts[part].knownAt.Load() > int64(c.opt.Silence)
}

// informed reports whether the partition was heard of a moment ago, some heartbeats
// at most. Only then may a loaded value go to Redis: a change that this node has
// not heard of may have been there and been evicted (race R6). What the daemon has not
// come to yet cannot have been.
func (c *Cache) informed(part uint16) bool {
	return c.now()-c.parts[part].heardAt.Load() <= int64(c.opt.Silence)/6
}

// overtaken reports whether records were missed since the attempt began: what it
// read may be older than what they said, and neither another reader nor Redis is
// to be given it.
func (m *core) overtaken(a *attempt, f *flight) bool {
	return a.began <= m.c.parts[f.part].suspectBefore.Load()
}

// fetch reads jobs through Redis and the loader, sharing the work with other
// readers of the same keys. Results are aligned with jobs.
func (m *core) fetch(ctx context.Context, jobs []job) []result {
	want := atLeast(ctx)
	out := make([]result, len(jobs))
	todo := make([]int, len(jobs))
	for i := range todo {
		todo[i] = i
	}
	for round := 0; len(todo) > 0; round++ {
		now, needs, wants := m.c.now(), make([]rowtide.Version, len(todo)), make([]rowtide.Version, len(todo))
		for i, at := range todo {
			floor, resident := m.c.store.standing(jobs[at].hash, now)
			wants[i] = m.c.unmet(want, jobs[at].part)
			needs[i] = max(floor, resident, wants[i])
		}
		fs, mine := m.join(ctx, jobs, todo, wants)
		var again []int
		for i, at := range todo {
			r := wait(ctx, fs[i])
			// A flight that was joined may have ended its read before the floor
			// was raised that this reader came after: too old for us.
			if r.err == nil && r.version < needs[i] && fs[i].need() < needs[i] && !mine[i] && round < maxRounds {
				again = append(again, at)
				continue
			}
			// Those that were joined may have begun for readers who want less.
			r.stale = r.stale || r.err == nil && r.version < wants[i]
			out[at] = r
		}
		todo = again
	}
	return out
}

// maxRounds is how often a reader joins others' flights before it takes what it
// gets: the second one began after the reader did.
const maxRounds = 2

func wait(ctx context.Context, f *flight) result {
	select {
	case <-f.done:
		return f.res
	case <-ctx.Done():
		return result{err: ctx.Err()}
	}
}
