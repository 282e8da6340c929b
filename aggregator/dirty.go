package aggregator

import (
	"errors"
	"fmt"
	"time"

	"github.com/rowtide/rowtide"
)

// itemOverhead is what one pending change weighs beside its bytes in the log:
// the decoded values, their slice and the index entry, measured at 0.4 to 1 KB.
const itemOverhead = 512

// item is the newest pending state of one key.
type item struct {
	plan    *plan
	id      string
	version rowtide.Version
	row     []rowtide.Value // from: the image; nil: the key lost its row
	arg     rowtide.Value   // rebuild: the key as the column holds it
}

// lookup is a pending question "which keys does this change touch".
type lookup struct {
	plan    *plan
	args    []any
	version rowtide.Version
}

// emptied is a module one of whose tables lost all its rows.
type emptied struct {
	mod     *Module
	table   string
	version rowtide.Version
}

// dirty is the set of a lane's keys that wait for a flush. The newest change per
// key wins; transactions go in whole. It is not safe for concurrent use.
type dirty struct {
	items   []item
	index   []map[string]int32 // by module, id → place in items
	lookups []lookup
	asked   map[string]int // pending look-ups by question → place in lookups
	faults  []Fault        // set aside
	emptied []emptied
	scratch []byte

	visible visibility

	bytes  int // overhead of what was folded in
	txs    int
	first  uint64           // ticket of the oldest transaction in it
	newest rowtide.Version  // of the newest one
	last   rowtide.Position // of the newest one
	oldest time.Time        // commit of the oldest one
	since  time.Time        // when the oldest one came in
	taken  time.Time        // when its flush began
}

func newDirty(modules int) *dirty {
	d := &dirty{index: make([]map[string]int32, modules), asked: map[string]int{}}
	for i := range d.index {
		d.index[i] = map[string]int32{}
	}
	return d
}

// reset empties the set and keeps its memory.
func (d *dirty) reset() {
	for i := range d.index {
		clear(d.index[i])
	}
	clear(d.asked)
	clear(d.items) // let the rows go
	clear(d.lookups)
	clear(d.faults)
	d.items, d.lookups, d.faults, d.emptied = d.items[:0], d.lookups[:0], d.faults[:0], d.emptied[:0]
	d.visible = unasked
	d.bytes, d.txs, d.first, d.newest, d.last, d.oldest, d.since = 0, 0, 0, 0, rowtide.Position{}, time.Time{}, time.Time{}
}

// pending reports whether a flush has anything to write.
func (d *dirty) pending() bool { return len(d.items)+len(d.lookups)+len(d.faults)+len(d.emptied) > 0 }

// note records that tx, the ticket-th, is part of the set.
func (d *dirty) note(tx *rowtide.Tx, ticket uint64, now time.Time) {
	if d.txs == 0 {
		d.first, d.oldest, d.since = ticket, tx.CommittedAt, now
	}
	d.txs++
	if tx.Version >= d.newest { // a source of several partitions is not in order
		d.newest, d.last = tx.Version, tx.Position
	}
}

// check refuses a change whose value would have no key, or one that no store
// takes.
func (d *dirty) check(p *plan, c *rowtide.Change) error {
	if p.value == nil {
		return nil
	}
	for _, image := range []struct {
		when string
		row  []rowtide.Value
	}{{"before", c.Before}, {"after", c.After}} {
		if image.row == nil {
			continue
		}
		var err error
		if d.scratch, err = p.tmpl.append(d.scratch[:0], image.row, p.key); err == nil {
			err = checkKey(d.scratch)
		}
		if err != nil {
			return fmt.Errorf("table %s: key %s the change: %w", c.Table, image.when, err)
		}
	}
	return nil
}

// maxKey is the longest id; a key is sent with every invalidation.
const maxKey = 1024

func checkKey(id []byte) error {
	if len(id) == 0 {
		return errors.New("the template yields an empty key")
	}
	if len(id) > maxKey {
		return fmt.Errorf("the template yields a key of %d bytes, more than %d: %.40q…", len(id), maxKey, id)
	}
	return nil
}

// add folds one change in, for one module.
func (d *dirty) add(p *plan, c *rowtide.Change, v rowtide.Version) error {
	switch {
	case p.lookup != nil:
		d.addLookup(p, c, v)
		return nil
	case p.value != nil:
		return d.addFrom(p, c, v)
	}
	return d.addWatched(p, c, v)
}

// addFrom keeps the after-image under its key. A row that moves to another key
// leaves an EMPTY entry behind, in the same flush.
func (d *dirty) addFrom(p *plan, c *rowtide.Change, v rowtide.Version) error {
	if c.Before != nil {
		if err := d.put(p, c.Before, v, nil); err != nil {
			return fmt.Errorf("table %s: key before the change: %w", c.Table, err)
		}
	}
	if c.After != nil {
		if err := d.put(p, c.After, v, c.After); err != nil {
			return fmt.Errorf("table %s: key after the change: %w", c.Table, err)
		}
	}
	return nil
}

// put records row (nil: none) under the key of image.
func (d *dirty) put(p *plan, image []rowtide.Value, v rowtide.Version, row []rowtide.Value) error {
	var err error
	if d.scratch, err = p.tmpl.append(d.scratch[:0], image, p.key); err != nil {
		return err
	}
	it := d.item(p)
	if v < it.version {
		return nil // a source of several partitions, or one that repeats itself, is not in order
	}
	it.plan, it.version, it.row = p, v, row
	if p.value == nil {
		it.arg = image[p.key[0]]
	}
	return nil
}

// item finds or makes the item of the key in scratch.
func (d *dirty) item(p *plan) *item {
	idx := d.index[p.mod.index]
	if i, ok := idx[string(d.scratch)]; ok {
		return &d.items[i]
	}
	id := string(d.scratch)
	idx[id] = int32(len(d.items)) //nolint:gosec // bounded by MaxPending
	d.items = append(d.items, item{plan: p, id: id})
	d.bytes += itemOverhead
	return &d.items[len(d.items)-1]
}

// addWatched marks the keys of both images for a rebuild. A NULL (a reference
// that is not set) touches no key.
func (d *dirty) addWatched(p *plan, c *rowtide.Change, v rowtide.Version) error {
	if !p.touched(c) {
		return nil
	}
	for _, image := range [][]rowtide.Value{c.Before, c.After} {
		if image == nil {
			continue
		}
		if err := d.put(p, image, v, nil); err != nil && !errors.Is(err, errNullKey) {
			return fmt.Errorf("table %s: %w", c.Table, err)
		}
	}
	return nil
}

// touched reports whether the change matters to a watch with columns.
func (p *plan) touched(c *rowtide.Change) bool {
	if len(p.only) == 0 || c.Op != rowtide.OpUpdate {
		return true
	}
	// A key that moves touches two documents, whatever the columns say.
	for _, cols := range [][]int{p.only, p.key, p.args} {
		for _, i := range cols {
			if !sameValue(c.Before[i], c.After[i]) {
				return true
			}
		}
	}
	return false
}

func sameValue(a, b rowtide.Value) bool {
	// Slices do not compare with ==; rendering does for all types alike.
	x, errX := rowtide.AppendValue(nil, a)
	y, errY := rowtide.AppendValue(nil, b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// addLookup queues the look-up for both images. The same question asked again
// within a flush is asked once, with the newer version.
func (d *dirty) addLookup(p *plan, c *rowtide.Change, v rowtide.Version) {
	if !p.touched(c) {
		return
	}
	for _, image := range [][]rowtide.Value{c.Before, c.After} {
		if image == nil {
			continue
		}
		args := make([]any, len(p.args))
		name := fmt.Appendf(d.scratch[:0], "%p", p.lookup)
		for i, col := range p.args {
			args[i] = image[col]
			name = fmt.Appendf(name, "\x00%v", args[i])
		}
		d.scratch = name
		if i, ok := d.asked[string(name)]; ok {
			d.lookups[i].version = max(d.lookups[i].version, v)
			continue
		}
		d.asked[string(name)] = len(d.lookups)
		d.lookups = append(d.lookups, lookup{plan: p, args: args, version: v})
		d.bytes += itemOverhead
	}
}

// touch marks a key that a look-up found. A key that is dirty already keeps the
// newer version.
func (d *dirty) touch(p *plan, key rowtide.Value, v rowtide.Version) error {
	var err error
	if d.scratch, err = rowtide.AppendText(d.scratch[:0], key); err != nil {
		return err
	}
	it := d.item(p)
	it.arg, it.version = key, max(it.version, v)
	return nil
}

// setAside takes note of a change that cannot be applied.
func (d *dirty) setAside(p *plan, c *rowtide.Change, tx *rowtide.Tx, err error) {
	row := c.After
	if row == nil {
		row = c.Before
	}
	d.faults = append(d.faults, Fault{Module: p.mod.cfg.Name, Table: c.Table, Position: tx.Position, Version: tx.Version, Op: c.Op, Row: row, Err: err})
	d.bytes += itemOverhead
}

// empty notes that a table of m lost all its rows. What is pending of older
// changes must not come back under the new generation.
func (d *dirty) empty(m *Module, table string, v rowtide.Version) {
	for _, i := range d.index[m.index] {
		d.items[i].row, d.items[i].version = nil, v
	}
	d.emptied = append(d.emptied, emptied{m, table, v})
	d.bytes += itemOverhead
}
