package localsync

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/rowtide/rowtide"
)

// Module reads one module's values through the local store, Redis and a loader.
// It is safe for use by many goroutines.
type Module[K comparable, V any] struct {
	core  *core
	codec Codec[V]
	spell speller[K]
}

// maxName is what bigcache's 16-bit name length takes.
const maxName = 1<<16 - 1

var errNameTooLong = errors.New("key is longer than 65535 bytes")

// NewModule declares a module, once per name and version.
//
// loader gives the values of the keys asked for, at most cfg.Batch of them. A
// key that is missing from the map is absent, and remembered as such; what could
// not be found out must be an error instead. It gets its own deadline, may be
// called from several goroutines at once, and a panic in it is an error of the
// read. A nil loader makes a module that knows only what the daemon wrote: a key
// that Redis lacks is ErrNotFound.
func NewModule[K comparable, V any](
	c *Cache, cfg ModuleConfig[K], codec Codec[V], loader func(context.Context, []K) (map[K]V, error),
) (*Module[K, V], error) {
	p, err := cfg.policy()
	spell, keyErr := newSpeller(cfg.Key)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, fmt.Errorf("declare module %q: %w", cfg.Name, err)
	}
	m := &Module[K, V]{codec: codec, spell: spell, core: &core{
		c: c, policy: p, flights: map[string]*flight{},
		head: localName(rowtide.Key{Module: p.name, Version: p.version}),
	}}
	m.core.live.policy.Store(&m.core.policy)
	m.core.live.turnedAt.Store(never)
	if loader != nil {
		m.core.load = m.loadWith(loader)
	}
	if !c.register(m.core) {
		return nil, fmt.Errorf("declare module %q: version %d is declared already", p.name, p.version)
	}
	return m, nil
}

func (c *Cache) register(m *core) bool {
	id := moduleID{m.policy.name, m.policy.version}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.modules.Load()
	if _, ok := old[id]; ok {
		return false
	}
	if mc, ok := c.controls[id.name]; ok {
		if err := m.follow(&mc); err != nil {
			c.opt.Logger.Warn("module settings of the daemon are not usable, keeping the code's", "module", id.name, "error", err)
		}
	}
	next := maps.Clone(old)
	next[id] = m
	c.modules.Store(&next)
	return true
}

// Key is k's key as the daemon knows it.
func (m *Module[K, V]) Key(k K) rowtide.Key {
	return rowtide.Key{Module: m.core.policy.name, Version: m.core.policy.version, ID: string(m.spell.append(nil, k))}
}

// Get is k's value, never older than what this node has heard of unless nothing
// better can be had (Lookup tells). It returns ErrNotFound for what is known to
// be absent, ErrLoad when nothing could be found out, and ctx's error when ctx
// ends first, which does not stop the load for others.
func (m *Module[K, V]) Get(ctx context.Context, k K) (V, error) {
	v, _, err := m.Lookup(ctx, k)
	return v, err
}

// Lookup is Get and tells what the value is worth. With ErrNotFound the Info is
// valid too.
func (m *Module[K, V]) Lookup(ctx context.Context, k K) (V, Info, error) {
	r := m.read(ctx, k)
	v, err := m.finish(ctx, k, &r)
	if err == nil && r.empty {
		err = ErrNotFound
	}
	return v, m.core.info(&r), err
}

// GetMany is Get for many keys: what is local is taken from there, all the rest
// in one round trip to Redis, what Redis lacks from the loader in batches. The
// map lacks keys that are absent; when some could not be read, the error is a
// *PartialError and the map holds the others.
func (m *Module[K, V]) GetMany(ctx context.Context, ks []K) (map[K]V, error) {
	if m.core.c.closed.Load() {
		return nil, ErrClosed
	}
	out := make(map[K]V, len(ks))
	failed := map[K]error{}
	put := func(k K, r result) {
		if v, err := m.finish(ctx, k, &r); err != nil {
			failed[k] = err
		} else if !r.empty {
			out[k] = v
		}
	}
	want := atLeast(ctx)
	var missing, aging []job
	for k := range distinct(ks) {
		at, err := m.locate(k)
		if err != nil {
			put(k, result{err: err})
			continue
		}
		r, v := m.core.look(at.name, at.hash, want)
		if v == absent || v == recheck {
			missing = append(missing, job{slot: m.slot(k), key: k})
			continue
		}
		if v == renew {
			aging = append(aging, job{slot: m.slot(k), key: k})
		}
		put(k, r)
	}
	m.core.renew(ctx, aging)
	for i, r := range m.core.fetch(ctx, missing) {
		put(missing[i].key.(K), r)
	}
	if len(failed) > 0 {
		return out, &PartialError[K]{Failed: failed}
	}
	return out, nil
}

// distinct yields each key once, in order.
func distinct[K comparable](ks []K) iter.Seq[K] {
	return func(yield func(K) bool) {
		seen := make(map[K]struct{}, len(ks))
		for _, k := range ks {
			if _, ok := seen[k]; ok {
				continue
			}
			seen[k] = struct{}{}
			if !yield(k) {
				return
			}
		}
	}
}

// finish decodes and counts one key's result. A sound envelope around bytes that
// are not a V is read again from the source, which knows better; r is then what
// that gave.
func (m *Module[K, V]) finish(ctx context.Context, k K, r *result) (V, error) {
	v, err := m.decode(r)
	if err != nil && r.err == nil {
		m.core.stats.corrupt.Add(1)
		*r = m.core.fetch(ctx, []job{{slot: m.slot(k), key: k, force: true}})[0]
		v, err = m.decode(r)
	}
	r.err = err
	m.core.stats.count(r)
	return v, err
}

func (m *Module[K, V]) read(ctx context.Context, k K) result {
	s, err := m.locate(k)
	if err != nil {
		return result{err: err}
	}
	if m.core.c.closed.Load() {
		return result{err: ErrClosed}
	}
	r, v := m.core.look(s.name, s.hash, atLeast(ctx))
	switch v {
	case serve:
		return r
	case renew:
		m.core.renew(ctx, []job{{slot: m.slot(k), key: k}})
		return r
	case absent, recheck:
	}
	return m.core.fetch(ctx, []job{{slot: m.slot(k), key: k}})[0]
}

// place is where to look for a key locally.
type place struct {
	name string
	hash uint64
}

// locate spells k's local name with one allocation; the rest of its slot is only
// worked out by those who go further.
func (m *Module[K, V]) locate(k K) (place, error) {
	var stack [96]byte
	name := string(m.spell.append(append(stack[:0], m.core.head...), k))
	if len(name) > maxName {
		return place{}, errNameTooLong
	}
	return place{name, nameHash(name)}, nil
}

func (m *Module[K, V]) slot(k K) slot { return m.core.c.slot(m.Key(k)) }

func (m *Module[K, V]) decode(r *result) (V, error) {
	var zero V
	if r.err != nil || r.empty {
		return zero, r.err
	}
	return m.codec.Decode(r.payload)
}

func (m *core) info(r *result) Info {
	i := Info{Level: r.level, Version: r.version, Stale: r.stale, Degraded: r.degraded}
	if r.err == nil {
		i.Age = time.Duration(m.c.now() - r.verified)
	}
	return i
}

func (m *Module[K, V]) loadWith(loader func(context.Context, []K) (map[K]V, error)) loadFunc {
	return func(ctx context.Context, keys []any) ([]loaded, error) {
		ks := make([]K, len(keys))
		for i, k := range keys {
			ks[i] = k.(K)
		}
		values, err := loader(ctx, ks)
		if err != nil {
			return nil, err
		}
		out := make([]loaded, len(ks))
		for i, k := range ks {
			v, ok := values[k]
			if !ok {
				out[i].absent = true
				continue
			}
			out[i].payload, out[i].err = m.codec.Append(nil, v)
		}
		return out, nil
	}
}
