package aggregator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// Expected is what the database says one key must hold now.
type Expected struct {
	ID string
	// Payload is nil when there must be no value.
	Payload []byte
	// Err says why the row cannot be a value of the module; Payload is nil.
	Err error
}

// Select runs a query and hands its rows over, one by one.
type Select func(query string, args []any, row func(cols []string, row []rowtide.Value) error) error

// Expectation computes what a module's keys must hold from rows that were
// selected instead of streamed, with the same code. It is what verify compares
// Redis with. It is for one goroutine.
type Expectation struct {
	m     *Module
	table string
	types map[string]string
	cols  []string
	plan  *plan  // from
	root  *watch // rebuild: the watch whose table enumerates the keys
}

// Expect prepares the comparison. columns are all columns of the module's table in
// their order, types their DATA_TYPE in information_schema.
func (m *Module) Expect(columns []string, types map[string]string) (*Expectation, error) {
	x := &Expectation{m: m, table: m.Table(), types: types, cols: columns}
	if m.cfg.From == nil {
		for i := range m.watch {
			if m.watch[i].cfg.Key == "" {
				continue
			}
			x.root = &m.watch[i]
			x.cols = []string{x.root.key.single()}
			return x, nil
		}
		return nil, fmt.Errorf("module %s: no watch has a key, so its keys cannot be listed", m.cfg.Name)
	}
	if len(m.cfg.From.Columns) > 0 {
		used := m.Tables()[x.table]
		x.cols = slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return !slices.Contains(used, c) })
	}
	schema, name, _ := strings.Cut(x.table, ".")
	var err error
	x.plan, err = m.fromPlan(&rowtide.Table{Schema: schema, Name: name, Columns: x.cols})
	return x, err
}

// Table is the table whose rows enumerate the module's keys.
func (m *Module) Table() string {
	if m.cfg.From != nil {
		return m.cfg.From.Table
	}
	for _, w := range m.watch {
		if w.cfg.Key != "" {
			return w.cfg.Table
		}
	}
	return ""
}

// Columns are what the rows that enumerate the keys must hold, in this order.
func (x *Expectation) Columns() []string { return x.cols }

// Rows says what the keys of the given rows must hold. Rows without a key have
// none; those of one key are one.
func (x *Expectation) Rows(rows [][]rowtide.Value, ask Select) ([]Expected, error) {
	if x.root == nil {
		out := make([]Expected, 0, len(rows))
		for _, r := range rows {
			if want := x.row(r); want.ID != "" {
				out = append(out, want)
			}
		}
		return out, nil
	}
	var keys []any
	var ids []string
	seen := map[string]bool{}
	for _, r := range rows {
		if r[0] == nil {
			continue
		}
		id, err := rowtide.AppendText(nil, r[0])
		if err != nil {
			return nil, fmt.Errorf("module %s: key: %w", x.m.cfg.Name, err)
		}
		if !seen[string(id)] {
			seen[string(id)] = true
			keys, ids = append(keys, r[0]), append(ids, string(id))
		}
	}
	return x.documents(keys, ids, ask)
}

// row turns a selected row into the key and value it must have; without a key,
// the ID is empty.
func (x *Expectation) row(row []rowtide.Value) Expected {
	id, err := x.plan.tmpl.append(nil, row, x.plan.key)
	if err == nil {
		err = checkKey(id)
	}
	if err != nil {
		return Expected{}
	}
	want := Expected{ID: string(id)}
	want.Payload, want.Err = (&item{plan: x.plan, id: want.ID, row: row}).render(nil)
	if want.Err != nil {
		want.Payload = nil
	}
	return want
}

// documents assembles what the keys must hold, in their order.
func (x *Expectation) documents(keys []any, ids []string, ask Select) ([]Expected, error) {
	out := make([]Expected, 0, len(ids))
	collect := func(query string, args []any) (cols []string, rows [][]rowtide.Value, err error) {
		err = ask(query, args, func(c []string, row []rowtide.Value) error {
			cols, rows = c, append(rows, row)
			return nil
		})
		return cols, rows, err
	}
	for from := 0; from < len(keys); from += rebuildBatch {
		to := min(from+rebuildBatch, len(keys))
		docs, err := x.m.Documents(keys[from:to], collect)
		if err != nil {
			return nil, err
		}
		for _, id := range ids[from:to] {
			want := Expected{ID: id}
			if doc, ok := docs[id]; ok {
				if want.Payload, want.Err = x.m.finish(doc); want.Err != nil {
					want.Payload = nil
				}
			}
			out = append(out, want)
		}
	}
	return out, nil
}

// Of says what the given keys must hold, in their order. The rows behind them are
// asked for by the keys themselves.
func (x *Expectation) Of(ids []string, ask Select) ([]Expected, error) {
	out := make([]Expected, len(ids))
	place := make(map[string]int, len(ids))
	for i, id := range ids {
		out[i].ID, place[id] = id, i
	}
	if x.root != nil {
		var keys []any
		var known []string
		for _, id := range ids {
			if arg, ok := columnValue(x.types[x.cols[0]], id); ok {
				keys, known = append(keys, arg), append(known, id)
			}
		}
		docs, err := x.documents(keys, known, ask)
		for _, want := range docs {
			out[place[want.ID]] = want
		}
		return out, err
	}
	err := x.behind(ids, ask, func(want Expected) {
		if i, ok := place[want.ID]; ok {
			out[i] = want
		}
	})
	return out, err
}

// Present lists those of the keys that have a row which is there for the module.
// It assembles no documents.
func (x *Expectation) Present(ids []string, ask Select) (map[string]bool, error) {
	out := make(map[string]bool, len(ids))
	if x.root == nil {
		return out, x.behind(ids, ask, func(want Expected) {
			if want.Payload != nil || want.Err != nil {
				out[want.ID] = true
			}
		})
	}
	for part := range slices.Chunk(ids, rebuildBatch) {
		var keys []any
		for _, id := range part {
			if arg, ok := columnValue(x.types[x.cols[0]], id); ok {
				keys = append(keys, arg)
			}
		}
		if len(keys) == 0 {
			continue
		}
		query, args := x.m.one.bind(func(string) []any { return keys })
		err := ask(query, args, func(cols []string, row []rowtide.Value) error {
			key, _, _ := columnsOf(cols)
			id, err := rowtide.AppendText(nil, row[key])
			out[string(id)] = true
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("module %s: rebuild.one: %w", x.m.cfg.Name, err)
		}
	}
	return out, nil
}

// alternatives bounds the conditions of one query.
const alternatives = 1000

// behind selects the rows of a from module's keys. A key that can be taken apart
// in more than one way is asked for in each; rows of other keys may come too.
func (x *Expectation) behind(ids []string, ask Select, fn func(Expected)) error {
	var args []any
	flush := func() error {
		if len(args) == 0 {
			return nil
		}
		query := x.selectRows() + " WHERE " + x.condition(len(args)/len(x.m.key.columns))
		err := ask(query, args, func(_ []string, row []rowtide.Value) error {
			fn(x.row(row))
			return nil
		})
		args = nil
		return err
	}
	for _, id := range ids {
		ways, err := x.ways(id)
		if err != nil {
			return err
		}
		for _, w := range ways {
			args = append(args, w...)
		}
		if len(args) >= alternatives {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (x *Expectation) selectRows() string {
	cols := make([]string, len(x.cols))
	for i, c := range x.cols {
		cols[i] = quote(c)
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + quoteTable(x.table)
}

// condition is for n keys. An OR of columns is what both MySQL and MariaDB look up
// in an index; a list of row constructors is not.
func (x *Expectation) condition(n int) string {
	cols := x.m.key.columns
	if len(cols) == 1 {
		return quote(cols[0]) + " IN (?" + strings.Repeat(",?", n-1) + ")"
	}
	parts := make([]string, len(cols))
	for i, c := range cols {
		parts[i] = quote(c) + " = ?"
	}
	one := "(" + strings.Join(parts, " AND ") + ")"
	return one + strings.Repeat(" OR "+one, n-1)
}

// maxWays bounds the ways to take one key apart.
const maxWays = 4096

var errManyWays = errors.New("can be taken apart in too many ways; put a separator between the columns of the module's key")

// ways lists the values of the key columns that yield the id; more than one when
// the template leaves it open where a column ends.
func (x *Expectation) ways(id string) ([][]any, error) {
	t := x.m.key
	rest, ok := strings.CutPrefix(id, t.literals[0])
	if !ok {
		return nil, nil
	}
	var out [][]any
	var take func(i int, rest string, sofar []any) error
	take = func(i int, rest string, sofar []any) error {
		lit := t.literals[i+1]
		last := i == len(t.columns)-1
		for end := 0; end+len(lit) <= len(rest); end++ {
			if last {
				end = len(rest) - len(lit)
			}
			if rest[end:end+len(lit)] != lit {
				continue
			}
			v, ok := columnValue(x.types[t.columns[i]], rest[:end])
			if !ok {
				continue
			}
			vals := append(slices.Clip(sofar), v)
			if !last {
				if err := take(i+1, rest[end+len(lit):], vals); err != nil {
					return err
				}
				continue
			}
			if len(out) == maxWays {
				return fmt.Errorf("module %s: key %.80s %w", x.m.cfg.Name, id, errManyWays)
			}
			out = append(out, vals)
		}
		return nil
	}
	err := take(0, rest, nil)
	return out, err
}

// Entry is the one that a key must hold, with the given version.
func (x *Expectation) Entry(want Expected, v rowtide.Version, now time.Time) rowtide.Entry {
	e := x.m.entry(want.ID, v, now)
	if want.Payload == nil {
		x.m.empty(&e)
	} else {
		e.Payload = want.Payload
	}
	return e
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func quoteTable(name string) string {
	schema, table, _ := strings.Cut(name, ".")
	return quote(schema) + "." + quote(table)
}
