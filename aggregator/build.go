package aggregator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// lastingAttempt is about a second after the first.
const lastingAttempt = 6

// rebuildBatch is how many keys one round of queries assembles: long enough IN
// lists to pay for the round trip, short enough for a locking read.
const rebuildBatch = 200

// build turns a dirty set into entries.
func (a *Aggregator) build(ctx context.Context, set *dirty) (*flush, error) {
	f := &flush{set: set, began: a.now()}
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
		if it.row == nil {
			it.plan.mod.empty(&e)
		} else {
			start := len(arena)
			var err error
			if arena, err = appendObject(arena, it.plan.names, it.row, it.plan.value); err != nil {
				return nil, fmt.Errorf("module %s: key %s: %w", it.plan.mod.cfg.Name, it.id, err)
			}
			// A later append may move the arena; slices into the old one stay good.
			e.Payload = arena[start:len(arena):len(arena)]
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
	return f, nil
}

// entry is a module's entry, still without its value.
func (m *Module) entry(id string, v rowtide.Version, now time.Time) rowtide.Entry {
	return rowtide.Entry{
		Key:     rowtide.Key{Module: m.cfg.Name, Version: m.cfg.Version, ID: id},
		Version: v, BuiltAt: now, TTL: m.cfg.TTL,
	}
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

// lookUp asks which keys the pending changes touch, once they can be read.
func (a *Aggregator) lookUp(ctx context.Context, set *dirty) error {
	for i := range set.lookups {
		l := &set.lookups[i]
		next := 0
		query, args := l.plan.lookup.keys.bind(func(string) []any { next++; return l.args[next-1 : next] })
		_, rows, err := a.query(ctx, set, query, args)
		if err != nil {
			return fmt.Errorf("module %s: look up the keys that a change of %s touches: %w", l.plan.mod.cfg.Name, l.plan.lookup.cfg.Table, err)
		}
		for _, r := range rows {
			if r[0] == nil {
				continue
			}
			if err := set.touch(l.plan, r[0], l.version); err != nil {
				return fmt.Errorf("module %s: key from look-up: %w", l.plan.mod.cfg.Name, err)
			}
		}
	}
	return nil
}

// query waits until the set's transactions are visible, then asks; what may be
// mended by repeating is repeated for as long as it takes.
func (a *Aggregator) query(ctx context.Context, set *dirty, query string, args []any) ([]string, [][]rowtide.Value, error) {
	wait := backoff.New(20*time.Millisecond, 5*time.Second)
	for attempt := 1; ; attempt++ {
		cols, rows, err := a.read(ctx, set, query, args)
		var t interface{ Temporary() bool }
		if err == nil || !errors.As(err, &t) || !t.Temporary() {
			return cols, rows, err
		}
		// A deadlock or two is the daily life of locking reads; what lasts is news.
		if attempt == lastingAttempt {
			a.log.Warn("rebuild query keeps failing and is being repeated", "attempt", attempt, "err", err)
		}
		if werr := wait.Wait(ctx); werr != nil {
			return nil, nil, werr
		}
	}
}

func (a *Aggregator) read(ctx context.Context, set *dirty, query string, args []any) ([]string, [][]rowtide.Value, error) {
	// The newest transaction of the set is enough on a server that applies in
	// order.
	visible, err := a.db.WaitFor(ctx, set.last.GTID)
	if err != nil {
		return nil, nil, err
	}
	if !visible {
		query = a.db.Locking(query)
	}
	return a.db.Query(ctx, query, args...)
}
