package aggregator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// lastingAttempt is about a second after the first.
const lastingAttempt = 6

// rebuildBatch is how many keys one round of queries assembles: long enough IN
// lists to pay for the round trip, short enough for a locking read.
const rebuildBatch = 200

// rebuild assembles the documents of items, all of one module. The version is
// that of the change that touched the key: a later change has a later version
// and will rebuild again.
func (a *Aggregator) rebuild(ctx context.Context, m *Module, items []*item, set *dirty) ([]rowtide.Entry, error) {
	var out []rowtide.Entry
	for batch := range slices.Chunk(items, rebuildBatch) {
		began := a.now()
		keys := make([]any, len(batch))
		for i, it := range batch {
			keys[i] = it.arg
		}
		docs, err := m.Documents(keys, func(query string, args []any) ([]string, [][]rowtide.Value, error) {
			return a.query(ctx, set, query, args)
		})
		if err != nil {
			return nil, err
		}
		a.obs.Rebuilt(m.cfg.Name, len(batch), a.now().Sub(began))
		for _, it := range batch {
			e := m.entry(it.id, it.version, began)
			doc, there := docs[it.id]
			if !there {
				m.empty(&e)
			} else if e.Payload, err = m.finish(doc); err != nil {
				if err := it.fault(set, err); err != nil {
					return nil, err
				}
				continue
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// finish gives a document its codec's form.
func (m *Module) finish(doc []byte) ([]byte, error) {
	payload, err := m.encode(doc)
	if err != nil {
		return nil, err
	}
	return payload, m.checkSize(len(payload))
}

// Documents assembles the documents of the given keys with the module's queries
// and returns them by key; a key without a row has none.
func (m *Module) Documents(keys []any, query func(string, []any) ([]string, [][]rowtide.Value, error)) (map[string][]byte, error) {
	docs := make(map[string][]byte, len(keys))
	bind := func(string) []any { return keys }
	q, args := m.one.bind(bind)
	cols, rows, err := query(q, args)
	if err != nil {
		return nil, fmt.Errorf("module %s: rebuild.one: %w", m.cfg.Name, err)
	}
	key, fields, names := columnsOf(cols)
	for _, row := range rows {
		id, err := rowtide.AppendText(nil, row[key])
		if err != nil {
			return nil, fmt.Errorf("module %s: rebuild.one: key: %w", m.cfg.Name, err)
		}
		if docs[string(id)] != nil {
			return nil, fmt.Errorf("module %s: rebuild.one yields more than one row for key %s", m.cfg.Name, id)
		}
		doc, err := appendObject(nil, names, row, fields)
		if err != nil {
			return nil, fmt.Errorf("module %s: rebuild.one: key %s: %w", m.cfg.Name, id, err)
		}
		docs[string(id)] = doc
	}
	for _, mn := range m.many {
		if err := m.addList(docs, mn, bind, query); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// addList appends one list to every document, empty where it has no rows.
func (m *Module) addList(docs map[string][]byte, mn many, bind func(string) []any, query func(string, []any) ([]string, [][]rowtide.Value, error)) error {
	q, args := mn.query.bind(bind)
	cols, rows, err := query(q, args)
	if err != nil {
		return fmt.Errorf("module %s: rebuild.many %s %w", m.cfg.Name, mn.name, err)
	}
	key, fields, names := columnsOf(cols)
	lists := make(map[string][]byte, len(docs))
	for _, row := range rows {
		id, err := rowtide.AppendText(nil, row[key])
		if err != nil {
			return fmt.Errorf("module %s: rebuild.many %s key: %w", m.cfg.Name, mn.name, err)
		}
		list := lists[string(id)]
		if list != nil {
			list = append(list, ',')
		}
		if lists[string(id)], err = appendObject(list, names, row, fields); err != nil {
			return fmt.Errorf("module %s: rebuild.many %s key %s: %w", m.cfg.Name, mn.name, id, err)
		}
	}
	for id, doc := range docs {
		doc = doc[:len(doc)-1] // the closing brace
		if len(doc) > 1 {
			doc = append(doc, ',')
		}
		doc = append(append(doc, mn.name...), '[')
		doc = append(append(doc, lists[id]...), ']', '}')
		docs[id] = doc
	}
	return nil
}

// columnsOf tells the key column (`$key`, else the first) from the fields. A
// column named `$key` is not a field; the first column is one as well.
func columnsOf(cols []string) (key int, fields []int, names [][]byte) {
	key = max(slices.Index(cols, "$key"), 0)
	var kept []string
	for i, c := range cols {
		if c != "$key" {
			fields = append(fields, i)
			kept = append(kept, c)
		}
	}
	return key, fields, fieldNames(kept)
}

// lookUp asks which keys the pending changes touch, once they can be read. A
// change that touches too many raises the module's generation instead.
func (a *Aggregator) lookUp(ctx context.Context, set *dirty) error {
	for i := range set.lookups {
		l := &set.lookups[i]
		next := 0
		query, args := l.plan.lookup.keys.bind(func(string) []any { next++; return l.args[next-1 : next] })
		_, rows, err := a.query(ctx, set, query, args)
		if err != nil {
			return fmt.Errorf("module %s: look up the keys that a change of %s touches: %w", l.plan.mod.cfg.Name, l.plan.lookup.cfg.Table, err)
		}
		if len(rows) > l.plan.lookup.cfg.MaxKeys && a.out.Generations != nil {
			why := fmt.Sprintf("a change of %s touches %d keys, more than watch.max_keys %d", l.plan.lookup.cfg.Table, len(rows), l.plan.lookup.cfg.MaxKeys)
			if err := a.raise(ctx, l.plan.mod, l.version, why); err != nil {
				return err
			}
			continue
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

// raise gives m a new generation. Without anybody to tell it says so: the
// entries then stay until they age out.
func (a *Aggregator) raise(ctx context.Context, m *Module, since rowtide.Version, why string) error {
	if a.out.Generations == nil {
		a.log.Warn("a module's entries should be read again, but there is no control topic to say so; rowtide verify --repair mends them", "module", m.cfg.Name, "why", why)
		return nil
	}
	g, err := a.out.Generations.Raise(ctx, m.cfg.Name, since)
	if err != nil {
		return fmt.Errorf("module %s: raise the generation (%s): %w", m.cfg.Name, why, err)
	}
	m.generation.Store(g)
	m.since.Store(max(m.since.Load(), uint64(since)))
	a.obs.Raised(m.cfg.Name)
	a.log.Warn("a module's generation was raised, its entries are read again on demand", "module", m.cfg.Name, "generation", g, "why", why)
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
	// order. It waits once per set.
	if set.visible == unasked {
		visible, err := a.out.DB.WaitFor(ctx, set.last.GTID)
		if err != nil {
			return nil, nil, err
		}
		set.visible = asked(visible)
	}
	if set.visible == invisible {
		query = a.out.DB.Locking(query)
	}
	return a.out.DB.Query(ctx, query, args...)
}

// visibility of a set's transactions to queries.
type visibility uint8

const (
	unasked visibility = iota
	visible
	invisible
)

func asked(v bool) visibility {
	if v {
		return visible
	}
	return invisible
}
