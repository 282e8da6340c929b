package aggregator

import (
	"errors"
	"fmt"
	"slices"

	"github.com/rowtide/rowtide"
)

// Router splits transactions by module key, so that several appliers can share
// the keys. It is for one goroutine.
type Router struct {
	modules []*Module
	shapes  map[*rowtide.Table][]*plan
	set     *dirty // for its checks
	seen    map[rowtide.Key]bool
}

// NewRouter makes a router over compiled modules.
func NewRouter(modules []*Module) *Router {
	return &Router{modules: modules, shapes: map[*rowtide.Table][]*plan{}, set: newDirty(len(modules)), seen: map[rowtide.Key]bool{}}
}

// Route splits tx: at most one change per key, the last, which decides. An error
// means that tx cannot be applied, as with [Aggregator.HandleTx].
func (r *Router) Route(tx *rowtide.Tx) ([]rowtide.Routed, error) {
	var out []rowtide.Routed
	for i := range tx.Changes {
		c := &tx.Changes[i]
		if c.Op == rowtide.OpTruncate {
			out = r.truncate(out, c)
			continue
		}
		ps, known := r.shapes[c.Table]
		if !known {
			var err error
			if ps, err = plans(r.modules, c.Table); err != nil {
				return nil, fmt.Errorf("transaction at %s: %w", tx.Position, err)
			}
			r.shapes[c.Table] = ps
		}
		for _, p := range ps {
			var err error
			if out, err = r.route(out, p, c); err != nil {
				return nil, fmt.Errorf("transaction at %s: module %s: table %s: %w", tx.Position, p.mod.cfg.Name, c.Table, err)
			}
		}
	}
	return r.newest(out), nil
}

// newest drops what a later change of the same key, of the same transaction,
// makes void: each state of a key then has a version of its own, and two readers
// whose records mix cannot bring back one from within a transaction.
func (r *Router) newest(all []rowtide.Routed) []rowtide.Routed {
	if len(all) < 2 {
		return all
	}
	clear(r.seen)
	kept := len(all)
	for i := range slices.Backward(all) {
		if key := all[i].Key; !r.seen[key] {
			r.seen[key] = true
			kept--
			all[kept] = all[i]
		}
	}
	return all[kept:]
}

// truncate sends the end of a table's rows to each module that needs it, once.
func (r *Router) truncate(out []rowtide.Routed, c *rowtide.Change) []rowtide.Routed {
	for _, m := range r.modules {
		if _, needs := m.Tables()[c.Table.String()]; needs {
			one := *c
			one.Module = m.cfg.Name
			out = append(out, rowtide.Routed{Key: rowtide.Key{Module: m.cfg.Name, Version: m.cfg.Version}, Change: one})
		}
	}
	return out
}

func (r *Router) route(out []rowtide.Routed, p *plan, c *rowtide.Change) ([]rowtide.Routed, error) {
	if p.value == nil && !p.touched(c) {
		return out, nil
	}
	one := *c
	one.Module = p.mod.cfg.Name
	if err := r.set.check(p, c); err != nil {
		if p.mod.cfg.OnFault != OnFaultSetAside {
			return nil, err
		}
		// Whole, for an applier to set aside. No good change has this key.
		return append(out, rowtide.Routed{Key: r.key(p, fmt.Appendf(nil, "!%d", len(out))), Change: one}), nil
	}
	if p.lookup != nil {
		id := fmt.Appendf(nil, "?%s\x00%s", c.Table, p.lookup.cfg.Keys)
		for _, image := range [][]rowtide.Value{c.Before, c.After} {
			for _, i := range p.args {
				if image != nil {
					id = fmt.Appendf(id, "\x00%v", image[i])
				}
			}
		}
		return append(out, rowtide.Routed{Key: r.key(p, id), Change: one}), nil
	}
	before, err := r.id(p, c.Before)
	if err != nil {
		return nil, err
	}
	after, err := r.id(p, c.After)
	if err != nil {
		return nil, err
	}
	switch {
	case before == nil && after == nil:
		return out, nil // NULL references touch nothing
	case before != nil && after != nil && string(before) != string(after):
		gone := one
		gone.Op, gone.After = rowtide.OpDelete, nil
		one.Op, one.Before = rowtide.OpInsert, nil
		return append(out, rowtide.Routed{Key: r.key(p, before), Change: gone}, rowtide.Routed{Key: r.key(p, after), Change: one}), nil
	case after == nil:
		after = before
	case p.value != nil:
		one.Before = nil // it says no more than the key, which is the same
	}
	return append(out, rowtide.Routed{Key: r.key(p, after), Change: one}), nil
}

func (r *Router) key(p *plan, id []byte) rowtide.Key {
	return rowtide.Key{Module: p.mod.cfg.Name, Version: p.mod.cfg.Version, ID: string(id)}
}

// id is the key of an image; nil when it has none.
func (r *Router) id(p *plan, image []rowtide.Value) ([]byte, error) {
	if image == nil {
		return nil, nil
	}
	id, err := p.tmpl.append(nil, image, p.key)
	if errors.Is(err, errNullKey) {
		return nil, nil
	}
	return id, err
}
