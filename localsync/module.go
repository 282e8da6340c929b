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
	core    *core
	codec   Codec[V]
	at      func(V, time.Time) V // nil: values do not depend on the time
	spell   speller[K]
	objects *objects[K, V]
}

// maxName is what the 16 bits of a name's length take, see pack.
const maxName = 1<<16 - 1

var errNameTooLong = errors.New("key is longer than 65535 bytes")

// NewModule declares a module, once per name and version.
//
// loader gives the values of the keys asked for, at most cfg.Batch of them. A
// key that is missing from the map is absent, and remembered as such; what could
// not be found out must be an error instead. A key that was not asked for is
// counted (ModuleStats.Unasked), told once and thrown away: nothing is known of
// when its value was true, and a loader that swaps keys is told of by it. The
// loader gets its own deadline, may be called from several goroutines at once, and
// a panic in it is an error of the read. A nil loader makes a module that knows only what the daemon wrote: a key
// that Redis lacks is ErrNotFound.
func NewModule[K comparable, V any](
	c *Cache, cfg ModuleConfig[K], codec Codec[V], loader func(context.Context, []K) (map[K]V, error),
) (*Module[K, V], error) {
	p, err := cfg.policy()
	if codec == nil {
		err = errors.Join(err, errors.New("set a codec, such as JSON of the value's type"))
	}
	spell, keyErr := newSpeller(cfg.Key)
	if err := errors.Join(err, keyErr); err != nil {
		return nil, fmt.Errorf("declare module %q: %w", cfg.Name, err)
	}
	m := &Module[K, V]{codec: codec, spell: spell, objects: newObjects[K, V](p.objects), core: &core{
		c: c, policy: p, flights: map[string]*flight{},
		head: localName(rowtide.Key{Module: p.name, Version: p.version}),
	}}
	m.core.begun = nameHash(m.core.head)
	m.core.parse = m.spell.parse
	if t, ok := codec.(timed[V]); ok {
		m.at = t.at
	}
	m.core.live.policy.Store(&m.core.policy)
	m.core.live.turnedAt.Store(never)
	m.core.live.announcedAt = never
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
		m.live.announcedAt = mc.at
		if err := m.follow(&mc.ModuleControl); err != nil {
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
	var r result
	return m.get(ctx, k, &r)
}

// Lookup is Get and tells what the value is worth. With ErrNotFound the Info is
// valid too.
func (m *Module[K, V]) Lookup(ctx context.Context, k K) (V, Info, error) {
	var r result
	v, err := m.get(ctx, k, &r)
	return v, m.core.info(&r), err
}

func (m *Module[K, V]) get(ctx context.Context, k K, r *result) (V, error) {
	v, what := m.near(k, atLeast(ctx), r)
	switch what {
	case serve:
	case renew:
		m.core.renew(ctx, []job{{slot: m.slot(k), key: k}})
	case absent, recheck:
		*r = m.core.fetch(ctx, []job{{slot: m.slot(k), key: k}})[0]
		v = m.decode(r)
	}
	v = m.finish(ctx, k, v, r)
	if r.err == nil && r.empty {
		return v, ErrNotFound
	}
	return v, r.err
}

// GetMany is Get for many keys: what is local is taken from there, all the rest
// in one round trip to Redis, what Redis lacks from the loader in batches. The
// map lacks keys that are absent; when some could not be read, the error is a
// *PartialError and the map holds the others. What each is worth only Lookup tells.
func (m *Module[K, V]) GetMany(ctx context.Context, ks []K) (map[K]V, error) {
	if m.core.c.closed.Load() {
		return nil, ErrClosed
	}
	out := make(map[K]V, len(ks))
	var failed map[K]error
	put := func(k K, v V, r *result) {
		if v = m.finish(ctx, k, v, r); r.err != nil {
			if failed == nil {
				failed = map[K]error{}
			}
			failed[k] = r.err
		} else if !r.empty {
			out[k] = v
		}
	}
	want := atLeast(ctx)
	var missing, aging []job
	for k := range distinct(ks) {
		var r result
		v, what := m.near(k, want, &r)
		switch what {
		case absent, recheck:
			missing = append(missing, job{slot: m.slot(k), key: k})
			continue
		case renew:
			aging = append(aging, job{slot: m.slot(k), key: k})
		case serve:
		}
		put(k, v, &r)
	}
	m.core.renew(ctx, aging)
	for i, r := range m.core.fetch(ctx, missing) {
		put(missing[i].key.(K), m.decode(&r), &r)
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

// near reads k from this node's memory: as an object if there is one of the bytes
// that the side table's row is for, else from the bytes. Either way it is that row
// which is judged. v counts under serve and renew only, of which r is the result.
func (m *Module[K, V]) near(k K, want rowtide.Version, r *result) (v V, what verdict) {
	if m.core.c.closed.Load() {
		r.err = ErrClosed
		return v, serve
	}
	if o := m.objects.get(k); o != nil {
		r.level = LevelObject
		if m.core.c.store.stands(&o.sighting) {
			return o.value, m.core.appraise(&o.row, want, r)
		}
		if see := o.sighting; m.core.c.store.look(&see) { // it was touched, or a neighbour
			m.objects.put(k, o.value, &see)
			return o.value, m.core.appraise(&see.row, want, r)
		}
	}
	// The buffer stays on the stack: nothing keeps the name.
	var stack [96]byte
	name := m.spell.append(append(stack[:0], m.core.head...), k)
	if len(name) > maxName {
		r.err = errNameTooLong
		return v, serve
	}
	hash := hashOn(m.core.begun, name[len(m.core.head):])
	row, what := m.core.lookAt(name, hash, want, r)
	if what == serve || what == renew {
		if v = m.decode(r); m.objects != nil && r.err == nil && !r.empty {
			// Once more, for a stamp that is of the bytes which were decoded.
			if see := (sighting{row: row, hash: hash}); m.core.c.store.look(&see) {
				m.objects.put(k, v, &see)
			}
		}
	}
	return v, what
}

func (m *Module[K, V]) decode(r *result) (v V) {
	if r.err == nil && !r.empty {
		v, r.err = m.codec.Decode(r.payload)
		r.garbled = r.err != nil
	}
	return v
}

// finish counts one key's read. A sound envelope around bytes that are not a V is
// read again from the source, which knows better; v and r are then what that gave.
func (m *Module[K, V]) finish(ctx context.Context, k K, v V, r *result) V {
	if r.garbled {
		m.core.stats.corrupt.Add(1)
		*r = m.core.fetch(ctx, []job{{slot: m.slot(k), key: k, force: true}})[0]
		v = m.decode(r)
	}
	if m.core.stats.count(r) {
		m.sample(k)
	}
	if m.at != nil && r.err == nil && !r.empty {
		v = m.at(v, m.core.c.opt.Now())
	}
	return v
}

func (m *Module[K, V]) slot(k K) slot { return m.core.c.slot(m.Key(k)) }

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
		out, unasked := make([]loaded, len(ks)), len(values)
		for i, k := range ks {
			v, ok := values[k]
			if !ok {
				out[i].absent = true
				continue
			}
			unasked--
			out[i].payload, out[i].err = m.codec.Append(nil, v)
		}
		m.core.unasked(unasked)
		return out, nil
	}
}

// unasked counts what a loader gave that nobody asked for.
func (m *core) unasked(n int) {
	if n > 0 && m.stats.unasked.Add(uint64(n)) == uint64(n) {
		m.c.opt.Logger.Warn("loader returned keys that it was not asked for; they are thrown away, and what it was asked for and lacks is taken to be absent",
			"module", m.policy.name, "keys", n)
	}
}
