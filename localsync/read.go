package localsync

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

const (
	// loaderCalls is how many calls of a loader one read may have under way:
	// enough to hide a round trip, too few to drown a database.
	loaderCalls = 4
	// retryAfter is how long a failed check or load of a resident entry is left
	// alone.
	retryAfter = time.Second
	// degradedFor is how long an Optional module remembers an error as "absent".
	degradedFor = 5 * time.Second
)

// readRedis reads all flights in one round trip and settles those whose value is
// new enough. rest need the loader, again start over.
func (m *core) readRedis(ctx context.Context, a *attempt, fs []*flight) (rest, again []*flight) {
	var asked []*flight
	var names []string
	for _, f := range fs {
		if f.force {
			rest = append(rest, f)
			continue
		}
		asked, names = append(asked, f), append(names, m.c.redisName(&f.slot))
	}
	if len(asked) == 0 {
		return rest, nil
	}
	previous := m.rules().previous
	if previous != 0 {
		for _, f := range asked {
			names = append(names, m.c.redisName(&slot{name: localName(f.in(previous))}))
		}
	}
	values, err := m.c.remote.get(ctx, names, m.load == nil)
	if err != nil {
		m.stats.redisErrors.Add(1)
		for _, f := range asked {
			if !m.withoutRedis(f) {
				f.unread = true
				rest = append(rest, f)
			}
		}
		return rest, nil
	}
	for i, f := range asked {
		if values[i] == nil && previous != 0 && m.takeBefore(a, f, f.in(previous), values[len(asked)+i]) {
			continue
		}
		f.seen = values[i][:min(len(values[i]), rowtide.EnvelopeHeader)]
		switch m.take(a, f, values[i]) {
		case taken:
		case toLoader:
			rest = append(rest, f)
		case startOver:
			again = append(again, f)
		}
	}
	return rest, again
}

// in is the flight's key in another version's key space.
func (f *flight) in(version uint16) rowtide.Key {
	k := f.slot.key
	k.Version = version
	return k
}

// takeBefore serves what the old key space holds under k, where there is no loader; else it
// is what is left if the load fails. Since the bump the row may have changed or gone.
func (m *core) takeBefore(a *attempt, f *flight, k rowtide.Key, value []byte) bool {
	if value == nil || f.refresh {
		return false
	}
	e, err := rowtide.DecodeEnvelope(k, value)
	if err != nil || e.Key.Version != k.Version || e.Version < f.need() {
		return false
	}
	f.behind = &e
	if m.load != nil {
		return false
	}
	m.makeDo(a, f)
	return true
}

type step uint8

const (
	taken step = iota + 1
	toLoader
	startOver
)

// take judges what Redis holds for one flight.
func (m *core) take(a *attempt, f *flight, value []byte) step {
	if value == nil {
		return toLoader
	}
	e, err := rowtide.DecodeEnvelope(f.slot.key, value)
	if err != nil || e.Key.Version != f.slot.key.Version {
		m.stats.corrupt.Add(1)
		return toLoader
	}
	if e.Version < f.need() {
		// Redis is behind what this node knows: a replica, a proxy, or a failover
		// that lost writes (races R8, R21). Once more, then past it.
		f.behind = &e
		m.stats.behind.Add(1)
		if f.reread || a.last {
			return toLoader
		}
		f.reread = true
		return startOver
	}
	// All of the module is to be read again. Without a loader only the daemon can, and
	// a row that a mass change took away it does not even know of.
	if e.Generation < m.live.generation.Load() {
		f.behind = &e
		return toLoader
	}
	if m.load != nil && m.dubious(f.part, &e) {
		f.behind = &e
		return toLoader
	}
	// A refresh that finds the value which it is to refresh asks the source,
	// unless another node did so lately. BuiltAt is a foreign wall clock; it
	// decides about work only, never about order.
	if f.refresh && m.load != nil && e.Version == f.resident {
		if m.c.opt.Now().Sub(e.BuiltAt) >= m.rules().window(e.Empty()).Refresh {
			return toLoader
		}
	}
	if !m.settle(a, f, LevelRedis, e) {
		return startOver
	}
	return taken
}

// withoutRedis lands a flight whose entry could not be checked because Redis is
// away. Only what is known to have changed is worth a loader call then: checking
// everything that a silent bus or a gap puts in doubt would move Redis's whole
// read load to the database.
func (m *core) withoutRedis(f *flight) bool {
	r, v := m.look(f.name, f.hash, 0)
	if v == absent || f.refresh || f.floor > f.resident || f.want > f.resident {
		return false
	}
	r.stale = true
	m.c.store.hush(f.hash, m.c.now(), f.refresh)
	m.land(f, r)
	return true
}

// readLoader loads flights in batches and returns those that start over.
func (m *core) readLoader(ctx context.Context, a *attempt, fs []*flight) (again []*flight) {
	if m.load == nil {
		for _, f := range fs {
			m.fail(a, f, f.unknown())
		}
		return nil
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(loaderCalls)
	for len(fs) > 0 {
		n := min(len(fs), m.policy.batch)
		batch := fs[:n:n]
		fs = fs[n:]
		g.Go(func() error {
			over := m.loadBatch(ctx, a, batch)
			m.release(ctx, batch)
			mu.Lock()
			defer mu.Unlock()
			again = append(again, over...)
			return nil
		})
	}
	_ = g.Wait() // no batch returns an error: failures land flight by flight
	return again
}

func (m *core) loadBatch(ctx context.Context, a *attempt, fs []*flight) (again []*flight) {
	keys := make([]any, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	began := m.c.now()
	answers, err := bounded(ctx, m.c.wg.Go, func(ctx context.Context) ([]loaded, error) {
		return m.load(ctx, keys)
	})
	if err == nil && len(answers) != len(fs) {
		err = fmt.Errorf("%d answers for %d keys", len(answers), len(fs))
	}
	m.stats.loads.Add(1)
	m.c.opt.Observer.Loaded(m.policy.name, len(keys), time.Duration(m.c.now()-began), err)
	if err != nil {
		for _, f := range fs {
			m.fail(a, f, err)
		}
		return nil
	}
	var good []*flight
	var entries []rowtide.Entry
	for i, f := range fs {
		if err := answers[i].err; err != nil {
			m.fail(a, f, err)
			continue
		}
		e := m.entry(a, f, answers[i])
		floor, forgotten := m.c.store.floor(f.hash), rowtide.Version(m.c.parts[f.part].forgotten.Load())
		proven, more := e.Version >= max(floor, f.need(), forgotten) && !m.blind(a, f), !a.last && !f.force
		switch {
		case m.overtaken(a, f):
			if more {
				again = append(again, f)
			} else {
				m.unproven(a, f, e)
			}
		case proven && (e.Version == 0 || !m.informed(f.part)):
			if !m.settle(a, f, LevelLoader, e) {
				again = append(again, f)
			}
		case proven:
			good, entries = append(good, f), append(entries, e)
		case floor > f.floor && more:
			// The key changed during the load: Redis has the change (race R1).
			m.refused(RefusedFloor)
			f.shared = true
			again = append(again, f)
		case forgotten > a.watermark && m.c.parts[f.part].forgotAt.Load() >= a.began && more:
			// The load hung for so long that floors raised meanwhile are forgotten.
			m.refused(RefusedForgotten)
			again = append(again, f)
		default:
			m.unproven(a, f, e)
		}
	}
	return append(again, m.publish(ctx, a, good, entries)...)
}

func (m *core) entry(a *attempt, f *flight, l loaded) rowtide.Entry {
	e := rowtide.Entry{
		Key: f.slot.key, Version: m.claim(a, f), Flags: rowtide.FlagFill, Generation: a.generation,
		BuiltAt: m.c.opt.Now(), TTL: m.rules().value.TTL, Payload: l.payload,
	}
	if l.absent {
		e.Flags |= rowtide.FlagEmpty
		e.TTL, e.Payload = m.rules().empty.TTL, nil
	}
	return e
}

// unproven lands a flight with a loaded value that may not claim to include the
// newest change this node heard of: it is served once, and kept nowhere. But for what
// may claim too little for long, since all readers would load it until then: whatever its
// key is, or because Redis does not have the change either (races R6, R21, R22).
func (m *core) unproven(a *attempt, f *flight, e rowtide.Entry) {
	m.refused(RefusedFloor)
	if f.refresh || f.behind != nil && f.resident >= f.floor {
		m.c.store.hush(f.hash, m.c.now(), f.refresh)
	}
	if m.blind(a, f) || f.resident < f.floor || uint64(a.watermark) < m.c.parts[f.part].forgotten.Load() {
		m.standIn(a, f, e)
	}
	m.landStale(a, f, e, LevelLoader)
}

// makeDo lands a flight with what Redis holds though it is known, or must be feared,
// to be old, and spares Redis the key's other readers for a moment. Not so what is only
// older than its reader asked for, and where the former key space stands in: changes are
// announced for one of the two only, and a node cannot tell for which.
func (m *core) makeDo(a *attempt, f *flight) {
	asked := f.behind.Version >= f.floor && f.behind.Version < f.want
	if !asked && !f.refresh && f.behind.Key.Version == f.slot.key.Version {
		m.standIn(a, f, *f.behind)
	}
	m.landStale(a, f, *f.behind, LevelRedis)
}

func (m *core) standIn(a *attempt, f *flight, e rowtide.Entry) {
	m.c.store.standIn(&candidate{
		slot: f.slot, entry: e, began: a.began, hard: m.rules().window(e.Empty()).TTL, mends: f.force,
	}, f.floor, m.doubt(f.part), m.c.now())
}

func (m *core) landStale(a *attempt, f *flight, e rowtide.Entry, from Level) {
	m.land(f, result{
		payload: e.Payload, version: e.Version, verified: a.began, level: from,
		empty: e.Empty(), stale: true, degraded: m.silent(f.part, m.c.now()),
	})
}

// publish offers loaded values to Redis, then keeps them here unless Redis has
// something newer. All claim a version: what claims none must not take the place of a
// key that is merely evicted (race R6), and stays on this node.
func (m *core) publish(ctx context.Context, a *attempt, fs []*flight, es []rowtide.Entry) (again []*flight) {
	var results []overwrite.Result
	if len(fs) > 0 {
		out := make([]filling, len(fs))
		for i, f := range fs {
			out[i] = filling{m.c.redisName(&f.slot), es[i].AppendEnvelope(nil), jitter(es[i].TTL)}
		}
		var err error
		if results, err = m.fill(ctx, fs, out); err != nil {
			// The value is good all the same; the next node loads it again.
			m.stats.redisErrors.Add(1)
		}
	}
	for i, f := range fs {
		if results != nil && results[i] == overwrite.WrongType {
			m.stats.corrupt.Add(1) // MGET gave nothing for it
		}
		if results != nil && results[i] == overwrite.Stale {
			if a.last || f.force {
				m.unproven(a, f, es[i])
			} else {
				again = append(again, f)
			}
			continue
		}
		if !m.settle(a, f, LevelLoader, es[i]) {
			again = append(again, f)
		}
	}
	return again
}

// unknown is why Redis's word cannot be final where there is no loader to ask: it
// gave none, or not one that can be read.
func (f *flight) unknown() error {
	switch {
	case f.unread:
		return errors.New("redis did not answer")
	case f.force, f.seen != nil && f.behind == nil:
		return errors.New("the value in redis is damaged, foreign or of a newer format")
	}
	return nil
}

// fail lands a flight that nothing could be loaded for, by the module's policy.
// A nil cause means that there is no loader to ask: Redis's word is final.
func (m *core) fail(a *attempt, f *flight, cause error) {
	if cause != nil && m.load != nil {
		m.stats.loadErrors.Add(1)
	}
	var last result
	row, v := m.lookAt([]byte(f.name), f.hash, f.want, &last)
	// What a loader gave since the change stands above what Redis held before it.
	loaded := row.version == 0 && row.has(metaFill)
	if f.force {
		v = absent // it does not decode
	}
	m.c.store.hush(f.hash, m.c.now(), f.refresh)
	switch {
	case m.rules().onError == Optional && cause != nil:
		if !f.refresh {
			m.degrade(a, f)
		}
		m.land(f, result{empty: true, degraded: true, level: LevelLoader, verified: a.began})
	case v != absent && !last.placeholder && (f.behind == nil || f.behind.Version <= last.version || loaded && f.behind.Version < f.floor):
		last.stale = last.stale || v == recheck
		m.land(f, last)
	case f.behind != nil:
		m.makeDo(a, f)
	case cause == nil:
		// A key that is known to have changed, and that Redis lacks, need not be absent.
		m.land(f, result{empty: true, level: LevelRedis, verified: a.began, stale: f.floor > 0})
	case errors.Is(cause, context.Canceled) && m.c.closed.Load():
		m.land(f, result{err: ErrClosed})
	default:
		m.land(f, result{err: fmt.Errorf("module %s: %w: %w", m.policy.name, ErrLoad, cause)})
	}
}

// degrade remembers an error as "absent" for a few seconds, on this node only and
// without a version, so that anything real takes its place (race R15).
func (m *core) degrade(a *attempt, f *flight) {
	m.c.store.keep(&candidate{
		slot: f.slot, began: a.began, soft: degradedFor, hard: degradedFor, degraded: true, turnedAt: never,
		entry: rowtide.Entry{Key: f.slot.key, Flags: rowtide.FlagEmpty | rowtide.FlagFill, BuiltAt: m.c.opt.Now()},
	}, m.c.now())
}
