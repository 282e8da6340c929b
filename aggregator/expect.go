package aggregator

import (
	"fmt"
	"strings"

	"github.com/rowtide/rowtide"
)

// Expected is what the database says one key must hold now.
type Expected struct {
	ID string
	// Payload is nil when there must be no value.
	Payload []byte

	key []any // the key columns' values, if a row was seen
}

// Expectation computes what a module's keys must hold from rows that were
// selected instead of streamed, with the same code. It is what verify compares
// Redis with.
type Expectation struct {
	m    *Module
	plan *plan    // from
	cols []string // from: selected columns
	root *watch   // rebuild: the watch whose table enumerates the keys
}

// Expect prepares the comparison. columns are all columns of the module's table
// in their order; only a from module needs them.
func (m *Module) Expect(columns []string) (*Expectation, error) {
	x := &Expectation{m: m}
	if m.cfg.From == nil {
		for i := range m.watch {
			if m.watch[i].cfg.Key != "" {
				x.root = &m.watch[i]
				return x, nil
			}
		}
		return nil, fmt.Errorf("module %s: no watch has a key, so its keys cannot be listed", m.cfg.Name)
	}
	schema, name, _ := strings.Cut(m.cfg.From.Table, ".")
	t := &rowtide.Table{Schema: schema, Name: name, Columns: columns}
	var err error
	x.plan, err = m.fromPlan(t)
	x.cols = columns
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

// All is the SELECT that enumerates: the rows of a from module, the keys of a
// rebuild module.
func (x *Expectation) All() string {
	if x.root != nil {
		col := quote(x.root.key.single())
		return "SELECT DISTINCT " + col + " FROM " + quoteTable(x.root.cfg.Table) + " WHERE " + col + " IS NOT NULL"
	}
	return x.selectRows()
}

func (x *Expectation) selectRows() string {
	cols := make([]string, len(x.cols))
	for i, c := range x.cols {
		cols[i] = quote(c)
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + quoteTable(x.m.cfg.From.Table)
}

// Rebuild reports whether the values must be asked for with Documents.
func (x *Expectation) Rebuild() bool { return x.root != nil }

// Row turns a selected row into the key and value it must have.
func (x *Expectation) Row(row []rowtide.Value) (Expected, error) {
	id, err := x.plan.tmpl.append(nil, row, x.plan.key)
	if err != nil {
		return Expected{}, fmt.Errorf("module %s: key: %w", x.m.cfg.Name, err)
	}
	payload, err := (&item{plan: x.plan, id: string(id), row: row}).render(nil)
	want := Expected{ID: string(id), Payload: payload}
	for _, i := range x.plan.key {
		want.key = append(want.key, row[i])
	}
	return want, err
}

// OneRow is the SELECT of the row behind one key of a from module, for a second
// look at a difference; ok is false when no row was seen and the id does not fit
// the key template.
func (x *Expectation) OneRow(seen Expected) (query string, args []any, ok bool) {
	args = seen.key
	if args == nil {
		vals, ok := x.m.key.split(seen.ID)
		if !ok {
			return "", nil, false
		}
		for _, v := range vals {
			args = append(args, v)
		}
	}
	conds := make([]string, len(args))
	for i, c := range x.m.key.columns {
		conds[i] = quote(c) + " = ?"
	}
	return x.selectRows() + " WHERE " + strings.Join(conds, " AND "), args, true
}

// split takes an id apart at the template's literals. Two columns without a
// literal between them cannot be told apart.
func (t template) split(id string) ([]string, bool) {
	rest, ok := strings.CutPrefix(id, t.literals[0])
	if !ok {
		return nil, false
	}
	var out []string
	for i := range t.columns {
		lit := t.literals[i+1]
		last := i == len(t.columns)-1
		var val string
		switch {
		case last:
			val, ok = strings.CutSuffix(rest, lit)
		case lit == "":
			return nil, false
		default:
			val, rest, ok = strings.Cut(rest, lit)
		}
		if !ok {
			return nil, false
		}
		out = append(out, val)
	}
	return out, true
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func quoteTable(name string) string {
	schema, table, _ := strings.Cut(name, ".")
	return quote(schema) + "." + quote(table)
}
