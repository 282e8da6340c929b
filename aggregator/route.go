package aggregator

import (
	"errors"
	"fmt"

	"github.com/rowtide/rowtide"
)

// Routed is a change for one key of one module.
type Routed struct {
	// Key is where the change belongs: the module's key, or, for a look-up whose
	// keys only a database knows, its question.
	Key rowtide.Key
	// Change names the module and holds the image of this key only: a row that
	// moves from one key to another is two Routed.
	Change rowtide.Change
}

// Router splits transactions by module key, so that several appliers can share
// the keys. It is for one goroutine.
type Router struct {
	modules []*Module
	shapes  map[*rowtide.Table][]*plan
	set     *dirty // for its scratch
}

// NewRouter makes a router over compiled modules.
func NewRouter(modules []*Module) *Router {
	return &Router{modules: modules, shapes: map[*rowtide.Table][]*plan{}, set: newDirty(len(modules))}
}

// Route splits tx. The order of the changes of one key is kept. An error means
// that tx cannot be applied.
func (r *Router) Route(tx *rowtide.Tx) ([]Routed, error) {
	var out []Routed
	for i := range tx.Changes {
		c := &tx.Changes[i]
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
	return out, nil
}

func (r *Router) route(out []Routed, p *plan, c *rowtide.Change) ([]Routed, error) {
	if p.value == nil && !p.touched(c) {
		return out, nil
	}
	one := *c
	one.Module = p.mod.cfg.Name
	if p.lookup != nil {
		id := fmt.Appendf(nil, "?%s", c.Table)
		for _, image := range [][]rowtide.Value{c.Before, c.After} {
			for _, i := range p.args {
				if image != nil {
					id = fmt.Appendf(id, "\x00%v", image[i])
				}
			}
		}
		return append(out, Routed{r.key(p, id), one}), nil
	}
	before, err := r.id(p, c.Before)
	if err != nil {
		return nil, err
	}
	after, err := r.id(p, c.After)
	if err != nil {
		return nil, err
	}
	if before != nil && after != nil && string(before) != string(after) {
		gone := one
		gone.Op, gone.After = rowtide.OpDelete, nil
		out = append(out, Routed{r.key(p, before), gone})
		one.Op, one.Before = rowtide.OpInsert, nil
		return append(out, Routed{r.key(p, after), one}), nil
	}
	if after == nil {
		after = before
	}
	if after == nil {
		return out, nil // NULL references touch nothing
	}
	return append(out, Routed{r.key(p, after), one}), nil
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
	if errors.Is(err, errNullKey) && (p.value == nil || p.mod.cfg.OnFault == OnFaultSetAside) {
		return nil, nil
	}
	return id, err
}
