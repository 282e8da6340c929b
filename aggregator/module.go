package aggregator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/rowtide/rowtide"
)

// Module is a compiled ModuleConfig.
type Module struct {
	cfg   ModuleConfig
	index int // place in the aggregator's list
	key   template
	one   statement
	many  []many
	watch []watch
	lane  int // place in the aggregator's lanes

	where  *expression
	fields []*expression

	generation atomic.Uint32
	since      atomic.Uint64 // version of the change that raised it
}

type many struct {
	name  []byte // as it stands in the document, quoted and with its colon
	query statement
}

type watch struct {
	cfg  WatchConfig
	key  template
	keys statement
}

// Compile checks the modules and prepares them. The configs get their defaults
// here.
func Compile(configs []ModuleConfig) ([]*Module, error) {
	out := make([]*Module, len(configs))
	cfgs := make([]ModuleConfig, len(configs))
	for i, c := range configs {
		cfgs[i] = c.WithDefaults()
	}
	if err := ValidateModules(cfgs); err != nil {
		return nil, err
	}
	for i, c := range cfgs {
		m := &Module{cfg: c, index: i}
		// Validation has parsed all of these once already.
		m.key, _ = parseTemplate(c.Key)
		if c.From != nil {
			if c.From.Where != "" {
				m.where, _ = parseExpression(c.From.Where)
			}
			for _, f := range c.From.Fields {
				x, _ := parseExpression(f.Expr)
				m.fields = append(m.fields, x)
			}
		}
		if c.Rebuild != nil {
			m.one, _ = parseStatement(c.Rebuild.One)
			for _, mc := range c.Rebuild.Many {
				q, _ := parseStatement(mc.Query)
				m.many = append(m.many, many{name: append(rowtide.AppendJSONString(nil, mc.Name), ':'), query: q})
			}
		}
		for _, wc := range c.Watch {
			w := watch{cfg: wc}
			if wc.Key != "" {
				w.key, _ = parseTemplate(wc.Key)
			} else {
				w.keys, _ = parseStatement(wc.Keys)
			}
			m.watch = append(m.watch, w)
		}
		out[i] = m
	}
	return out, nil
}

// Config is the module's config, with defaults.
func (m *Module) Config() ModuleConfig { return m.cfg }

// Tables lists the tables that the module needs, each with the columns it uses
// by name.
func (m *Module) Tables() map[string][]string {
	out := map[string][]string{}
	if m.cfg.From != nil {
		cols := slices.Clone(m.key.columns)
		for _, c := range m.cfg.From.Columns {
			col, _, _ := columnAs(c) // validated
			cols = append(cols, col)
		}
		for _, x := range m.expressions() {
			cols = append(cols, x.expr.columns...)
		}
		out[m.cfg.From.Table] = cols
	}
	for _, w := range m.watch {
		cols := slices.Concat(w.key.columns, w.keys.params, w.cfg.Columns)
		out[w.cfg.Table] = append(out[w.cfg.Table], cols...)
	}
	return out
}

// placed is an expression with its place in the config.
type placed struct {
	place  string
	expr   *expression
	filter bool
}

func (m *Module) expressions() []placed {
	var out []placed
	if m.where != nil {
		out = append(out, placed{"from.where", m.where, true})
	}
	for i, x := range m.fields {
		out = append(out, placed{fmt.Sprintf("from.fields[%d].expr", i), x, false})
	}
	return out
}

// CheckTypes checks the module's expressions against the types of its table's
// columns, as DATA_TYPE in information_schema names them, and reports every
// fault.
func (m *Module) CheckTypes(types map[string]string) error {
	var errs []error
	for _, x := range m.expressions() {
		if err := x.expr.check(types, x.filter); err != nil {
			errs = append(errs, fmt.Errorf("module %s: %s %w", m.cfg.Name, x.place, err))
		}
	}
	return errors.Join(errs...)
}

// Generation is the number that the module's entries carry. Entries of an older
// one are to be read again.
func (m *Module) Generation() uint32 { return m.generation.Load() }

// SetGeneration is called before the module is used, with what the control topic
// says.
func (m *Module) SetGeneration(g uint32) { m.generation.Store(g) }

// SetSince is called with SetGeneration, with the version of the change that
// raised it. What is older belongs to the generation before: where several
// appliers share the keys, it may come later.
func (m *Module) SetSince(v rowtide.Version) { m.since.Store(uint64(v)) }

// generationOf is the one that a state of this version belongs to.
func (m *Module) generationOf(v rowtide.Version) uint32 {
	g := m.generation.Load()
	if g > 0 && uint64(v) < m.since.Load() {
		g--
	}
	return g
}

// Queries lists every SELECT of the module with its place in the config, in a
// form that the server can prepare.
func (m *Module) Queries() map[string]string {
	out := map[string]string{}
	one := func(string) []any { return []any{nil} }
	if m.cfg.Rebuild != nil {
		out["rebuild.one"], _ = m.one.bind(one)
		for i, mn := range m.many {
			out[fmt.Sprintf("rebuild.many[%d] (%s)", i, m.cfg.Rebuild.Many[i].Name)], _ = mn.query.bind(one)
		}
	}
	for i, w := range m.watch {
		if w.cfg.Keys != "" {
			out[fmt.Sprintf("watch[%d].keys", i)], _ = w.keys.bind(one)
		}
	}
	return out
}

// plan is what the changes of one table shape mean to one module: either a value
// to keep (from), a key to rebuild, or a look-up of keys to rebuild.
type plan struct {
	mod    *Module
	table  *rowtide.Table
	tmpl   template
	key    []int // columns of the key template
	value  []int // from: columns of the value
	names  [][]byte
	only   []int // watch: an update counts only if one of these changed
	lookup *watch
	args   []int // columns of the look-up's parameters, in order

	where     *expression
	whereCols []int
	fields    []field
	env       map[string]any // of expressions; the lane's writer's own
}

// concerns reports whether the change is for the plan's module.
func (p *plan) concerns(c *rowtide.Change) bool { return c.Module == "" || c.Module == p.mod.cfg.Name }

// field is a computed field.
type field struct {
	name []byte // quoted, with its colon
	expr *expression
	cols []int
}

// plans compiles what a table shape means to all modules.
func plans(modules []*Module, t *rowtide.Table) ([]*plan, error) {
	var out []*plan
	name := t.String()
	for _, m := range modules {
		if m.cfg.From != nil && m.cfg.From.Table == name {
			p, err := m.fromPlan(t)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		for i := range m.watch {
			if m.watch[i].cfg.Table != name {
				continue
			}
			p, err := m.watchPlan(t, &m.watch[i])
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (m *Module) fromPlan(t *rowtide.Table) (*plan, error) {
	p := &plan{mod: m, table: t, tmpl: m.key, where: m.where, env: map[string]any{}}
	cols, names := t.Columns, t.Columns
	if from := m.cfg.From.Columns; len(from) > 0 {
		cols, names = make([]string, len(from)), make([]string, len(from))
		for i, c := range from {
			cols[i], names[i], _ = columnAs(c) // validated
		}
	}
	var err error
	if p.key, err = m.columns(t, m.key.columns); err != nil {
		return nil, err
	}
	if p.value, err = m.columns(t, cols); err != nil {
		return nil, err
	}
	p.names = fieldNames(names)
	if p.where != nil {
		if p.whereCols, err = m.columns(t, p.where.columns); err != nil {
			return nil, err
		}
	}
	for i, x := range m.fields {
		f := field{expr: x, name: fieldNames([]string{m.cfg.From.Fields[i].Name})[0]}
		if f.cols, err = m.columns(t, x.columns); err != nil {
			return nil, err
		}
		p.fields = append(p.fields, f)
	}
	return p, nil
}

// fieldNames renders `"name":` once per shape instead of once per row.
func fieldNames(cols []string) [][]byte {
	out := make([][]byte, len(cols))
	for i, c := range cols {
		out[i] = append(rowtide.AppendJSONString(nil, c), ':')
	}
	return out
}

func (m *Module) watchPlan(t *rowtide.Table, w *watch) (*plan, error) {
	p := &plan{mod: m, table: t, tmpl: w.key}
	var err error
	if p.only, err = m.columns(t, w.cfg.Columns); err != nil {
		return nil, err
	}
	if w.cfg.Key != "" {
		p.key, err = m.columns(t, w.key.columns)
		return p, err
	}
	p.lookup = w
	p.args, err = m.columns(t, w.keys.params)
	return p, err
}

func (m *Module) columns(t *rowtide.Table, names []string) ([]int, error) {
	out := make([]int, len(names))
	for i, n := range names {
		if out[i] = t.Column(n); out[i] < 0 {
			return nil, fmt.Errorf("module %s: table %s has no column %q, it has %s: %w",
				m.cfg.Name, t, n, strings.Join(t.Columns, ", "), rowtide.ErrSchemaChanged)
		}
	}
	return out, nil
}
