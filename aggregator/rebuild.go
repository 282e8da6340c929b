package aggregator

import (
	"context"
	"fmt"
	"slices"

	"github.com/rowtide/rowtide"
)

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
			if e.Payload = docs[it.id]; e.Payload == nil {
				m.empty(&e)
			}
			out = append(out, e)
		}
	}
	return out, nil
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
