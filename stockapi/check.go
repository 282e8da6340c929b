package stockapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Checker compares Redis and MySQL with each other and with what must hold. It
// only reads, and it can run while the sale does.
type Checker struct {
	svc *Service
	db  *sql.DB
}

// NewChecker returns a Checker over a service's Redis and the ledger's database.
func NewChecker(svc *Service, db *sql.DB) (*Checker, error) {
	if svc == nil || db == nil {
		return nil, errors.New("stock: checker: a service and a database are required")
	}
	return &Checker{svc: svc, db: db}, nil
}

// Violation is one broken invariant.
type Violation struct {
	// Rule is I1, I2, I3, I6, I7 (see the package comment), or REDIS=DB.
	Rule string `json:"rule"`
	Cell string `json:"cell"`
	SKU  string `json:"sku"`
	// Text says what was found.
	Text string `json:"text"`
}

// String is one line.
func (v Violation) String() string {
	return fmt.Sprintf("%s %s %s: %s", v.Rule, v.Cell, v.SKU, v.Text)
}

// Report is the result of a check.
type Report struct {
	Cells      []CellReport `json:"cells"`
	Violations []Violation  `json:"violations"`
}

// OK tells that nothing is wrong. It says nothing about what is under way; see
// Checker.Drained.
func (r Report) OK() bool { return len(r.Violations) == 0 }

// CellReport is how one cell stands on both sides.
type CellReport struct {
	Cell string `json:"cell"`
	// RedisSeq, Published and LedgerSeq are the newest event, the newest in Kafka
	// and the newest in MySQL.
	RedisSeq  int64 `json:"redis_seq"`
	Published int64 `json:"published"`
	LedgerSeq int64 `json:"ledger_seq"`
	// Live is the number of open holds.
	Live  int64               `json:"live"`
	Redis map[string]Counters `json:"redis"`
	DB    map[string]Counters `json:"db"`
	epoch struct{ redis, db int64 }
}

// Check tests I1, I2, I3, I6 and I7 in every cell: in Redis on one cut, in MySQL in
// one snapshot. Where both stand at the same event they must also agree field by
// field. A cell that MySQL knows and Redis does not is a violation: Redis lost it.
func (c *Checker) Check(ctx context.Context) (Report, error) {
	list, err := cells(ctx, c.svc.deps, c.svc.cfg.Prefix)
	if err != nil {
		return Report{}, err
	}
	applied, err := ledgerCells(ctx, c.db)
	if err != nil {
		return Report{}, fmt.Errorf("list cells of the ledger: %w", err)
	}
	for _, cell := range applied {
		if !slices.Contains(list, cell) {
			list = append(list, cell)
		}
	}
	slices.SortFunc(list, func(a, b Cell) int { return strings.Compare(a.String(), b.String()) })
	var rep Report
	for _, cell := range list {
		cr, vs, err := c.cell(ctx, cell)
		if RefusalCode(err) == CodeUnknownEvent {
			if slices.Contains(applied, cell) {
				rep.Violations = append(rep.Violations, Violation{
					Rule: "REDIS=DB", Cell: cell.String(), Text: "mysql has the cell, redis does not: redis lost it",
				})
			}
			continue // else registered and never installed
		}
		if err != nil {
			return Report{}, fmt.Errorf("check %s: %w", cell, err)
		}
		rep.Cells = append(rep.Cells, cr)
		rep.Violations = append(rep.Violations, vs...)
	}
	return rep, nil
}

// Drain is how much is still under way.
type Drain struct {
	// Behind has one line per thing that is not settled; empty means quiescence.
	Behind []string
}

// OK tells quiescence: every outbox is delivered, the ledger has applied the last
// event, Redis equals MySQL field by field, and no invariant is broken.
func (d Drain) OK() bool { return len(d.Behind) == 0 }

// Drained compares once; poll it to wait. Open holds are not "under way": they are
// settled on both sides.
func (c *Checker) Drained(ctx context.Context) (Drain, error) {
	rep, err := c.Check(ctx)
	if err != nil {
		return Drain{}, err
	}
	var d Drain
	for _, v := range rep.Violations {
		d.Behind = append(d.Behind, v.String())
	}
	for _, r := range rep.Cells {
		switch {
		case r.Published != r.RedisSeq:
			d.Behind = append(d.Behind, fmt.Sprintf("%s: %d events in the outbox", r.Cell, r.RedisSeq-r.Published))
		case r.epoch.redis != r.epoch.db || r.LedgerSeq != r.RedisSeq:
			d.Behind = append(d.Behind, fmt.Sprintf("%s: ledger at %d-%d of %d-%d", r.Cell, r.epoch.db, r.LedgerSeq, r.epoch.redis, r.RedisSeq))
		case !maps.Equal(r.Redis, r.DB):
			d.Behind = append(d.Behind, fmt.Sprintf("%s: redis %v, mysql %v", r.Cell, r.Redis, r.DB))
		}
	}
	return d, nil
}

func (c *Checker) cell(ctx context.Context, cell Cell) (CellReport, []Violation, error) {
	// MySQL first: what it holds then is in the past of the cut of Redis.
	rows, err := readLedger(ctx, c.db, cell)
	if err != nil {
		return CellReport{}, nil, err
	}
	snap, err := c.svc.snapshot(ctx, cell)
	if err != nil {
		return CellReport{}, nil, err
	}
	cr := CellReport{
		Cell: cell.String(), RedisSeq: snap.Seq, Published: snap.Published, LedgerSeq: rows.pos.seq,
		Live: snap.Live, Redis: snap.SKUs, DB: make(map[string]Counters, len(rows.skus)),
	}
	cr.epoch.redis, cr.epoch.db = snap.Epoch, rows.pos.epoch
	v := violations{cell: cell.String()}
	for sku, n := range snap.SKUs {
		v.counters("redis", sku, n)
	}
	for sku, r := range rows.skus {
		cr.DB[sku] = r.Counters
		v.counters("mysql", sku, r.Counters)
		v.ledger(sku, r)
	}
	if rows.pos == (position{snap.Epoch, snap.Seq}) {
		v.equal(snap.SKUs, cr.DB)
	}
	if rows.pos.epoch == snap.Epoch && rows.pos.seq > snap.Seq {
		v.add("REDIS=DB", "", "mysql has applied seq %d, redis is at %d: redis lost events", rows.pos.seq, snap.Seq)
	}
	slices.SortFunc(v.list, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return cr, v.list, nil
}

// violations collects what is broken in one cell.
type violations struct {
	cell string
	list []Violation
}

func (v *violations) add(rule, sku, format string, args ...any) {
	v.list = append(v.list, Violation{Rule: rule, Cell: v.cell, SKU: sku, Text: fmt.Sprintf(format, args...)})
}

func (v *violations) counters(where, sku string, n Counters) {
	if n.Avail < 0 || n.Held < 0 || n.Sold < 0 {
		v.add("I1", sku, "%s has a negative counter: %+v", where, n)
	}
	if n.Loaded != n.Avail+n.Held+n.Sold {
		v.add("I2", sku, "%s was loaded %d, has %d available + %d held + %d sold", where, n.Loaded, n.Avail, n.Held, n.Sold)
	}
}

func (v *violations) ledger(sku string, r ledgerSKU) {
	if !r.flowKnown || r.flowAfter != r.Avail {
		v.add("I3", sku, "mysql has %d available, the newest event left %d (known: %t)", r.Avail, r.flowAfter, r.flowKnown)
	}
	if r.confirmed > r.Loaded {
		v.add("I6", sku, "%d confirmed of %d loaded", r.confirmed, r.Loaded)
	}
	if r.held != r.Held {
		v.add("I7", sku, "open details sum up to %d, held is %d", r.held, r.Held)
	}
	if r.confirmed != r.Sold {
		v.add("I7", sku, "confirmed details sum up to %d, sold is %d", r.confirmed, r.Sold)
	}
}

func (v *violations) equal(redis, db map[string]Counters) {
	for sku, n := range redis {
		if m, ok := db[sku]; !ok || m != n {
			v.add("REDIS=DB", sku, "at the same event redis has %+v, mysql %+v (row: %t)", n, m, ok)
		}
	}
	for sku := range db {
		if _, ok := redis[sku]; !ok {
			v.add("REDIS=DB", sku, "mysql has a row, redis has no counter")
		}
	}
}
