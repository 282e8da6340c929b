package aggregator

import (
	"context"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// build turns a dirty set into entries.
func (a *Aggregator) build(ctx context.Context, l *lane, set *dirty) (*flush, error) {
	f := &flush{lane: l, set: set, began: a.now()}
	for _, e := range set.emptied {
		if err := a.raise(ctx, e.mod, e.version, "table "+e.table+" lost its rows by a statement"); err != nil {
			return nil, err
		}
	}
	if err := a.lookUp(ctx, set); err != nil {
		return nil, err
	}
	f.entries = make([]rowtide.Entry, 0, len(set.items))
	var arena []byte
	var rebuilds [][]*item
	for i := range set.items {
		it := &set.items[i]
		if it.plan.value == nil {
			if rebuilds == nil {
				rebuilds = make([][]*item, len(a.modules))
			}
			m := it.plan.mod.index
			rebuilds[m] = append(rebuilds[m], it)
			continue
		}
		e := it.plan.mod.entry(it.id, it.version, f.began)
		payload, err := it.render(arena)
		switch {
		case err != nil:
			if err := it.fault(set, err); err != nil {
				return nil, err
			}
			continue
		case payload == nil:
			it.plan.mod.empty(&e)
		default:
			// A later append may move the arena; slices into the old one stay good.
			e.Payload = payload[len(arena):len(payload):len(payload)]
			arena = payload
		}
		f.entries = append(f.entries, e)
	}
	for m, items := range rebuilds {
		entries, err := a.rebuild(ctx, a.modules[m], items, set)
		if err != nil {
			return nil, err
		}
		f.entries = append(f.entries, entries...)
	}
	return f, a.setAside(ctx, set)
}

// render appends the payload of a from module's item; nil means that there is no
// row.
func (it *item) render(arena []byte) ([]byte, error) {
	if it.row == nil {
		return nil, nil
	}
	in, err := it.plan.selected(it.row)
	if err != nil || !in {
		return nil, err
	}
	if it.plan.mod.cfg.Codec == CodecRaw && it.row[it.plan.value[0]] == nil {
		return nil, nil // no bytes are no value
	}
	out, err := it.plan.appendRow(arena, it.row)
	if err != nil {
		return nil, err
	}
	if out == nil {
		out = []byte{} // an empty raw value is a value
	}
	return out, it.plan.mod.checkSize(len(out) - len(arena))
}

func (m *Module) checkSize(n int) error {
	if n > m.cfg.MaxValue {
		return fmt.Errorf("value of %d bytes is larger than max_value %d", n, m.cfg.MaxValue)
	}
	return nil
}

// fault sets the item aside, if its module says so, or returns err with its
// place.
func (it *item) fault(set *dirty, err error) error {
	m := it.plan.mod
	if m.cfg.OnFault == OnFaultHalt {
		return fmt.Errorf("module %s: key %s: %w", m.cfg.Name, it.id, err)
	}
	set.faults = append(set.faults, Fault{
		Module: m.cfg.Name, Key: it.id, Table: it.plan.table, Position: set.last, Version: it.version, Row: it.row, Err: err,
	})
	return nil
}

// setAside sends the set's faults to the dead letters.
func (a *Aggregator) setAside(ctx context.Context, set *dirty) error {
	if len(set.faults) == 0 {
		return nil
	}
	if a.out.DeadLetters == nil {
		return fmt.Errorf("module %s sets changes aside, but there is nowhere to put them: %w", set.faults[0].Module, set.faults[0].Err)
	}
	if err := a.out.DeadLetters.SetAside(ctx, set.faults); err != nil {
		return fmt.Errorf("set %d changes aside: %w", len(set.faults), err)
	}
	counts := map[string]int{}
	for _, f := range set.faults {
		counts[f.Module]++
		a.log.Error("a change is set aside", "module", f.Module, "key", f.Key, "position", f.Position.String(), "err", f.Err)
	}
	for m, n := range counts {
		a.obs.SetAside(m, n)
	}
	return nil
}

// entry is a module's entry, still without its value.
func (m *Module) entry(id string, v rowtide.Version, now time.Time) rowtide.Entry {
	k := rowtide.Key{Module: m.cfg.Name, Version: m.cfg.Version, ID: id}
	return rowtide.Entry{Key: k, Version: v, Generation: m.generationOf(v), BuiltAt: now, TTL: m.jitter(k, m.cfg.TTL), Push: m.cfg.Push}
}

// jitter lengthens d by a share that the key's name decides, never shortens it.
func (m *Module) jitter(k rowtide.Key, d time.Duration) time.Duration {
	if m.cfg.TTLJitter <= 0 {
		return d
	}
	const steps = 1 << 10
	return d + time.Duration(float64(d)*m.cfg.TTLJitter*float64(k.Hash()%steps)/steps)
}

// tombstoneTTL is the least life of an EMPTY entry that a committed delete left:
// long enough that a late writer with an older version still meets it.
const tombstoneTTL = 10 * time.Minute

// empty makes e an EMPTY entry that a change left behind.
func (m *Module) empty(e *rowtide.Entry) {
	e.Flags = rowtide.FlagEmpty | rowtide.FlagDeleted
	e.TTL = max(m.cfg.Empty.TTL, tombstoneTTL)
}

func appendObject(dst []byte, names [][]byte, row []rowtide.Value, cols []int) ([]byte, error) {
	dst = append(dst, '{')
	for i, c := range cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, names[i]...)
		var err error
		if dst, err = rowtide.AppendValue(dst, row[c]); err != nil {
			return dst, fmt.Errorf("column %s%w", names[i], err)
		}
	}
	return append(dst, '}'), nil
}
