package stockapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ledgerRows is one cell's state in MySQL, from one snapshot.
type ledgerRows struct {
	pos  position
	skus map[string]ledgerSKU
}

type ledgerSKU struct {
	Counters
	// flowAfter is avail_after of the event that the stock row says it is at.
	flowAfter int64
	flowKnown bool
	// held and confirmed are the sums over the details.
	held, confirmed int64
}

// readLedger reads in one REPEATABLE READ snapshot, so that a commit in between
// cannot make the parts disagree.
func readLedger(ctx context.Context, db *sql.DB, c Cell) (out ledgerRows, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return out, fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	err = tx.QueryRowContext(ctx, `SELECT epoch, last_seq FROM cell_pos WHERE event=? AND cell=?`, c.Event, c.N).
		Scan(&out.pos.epoch, &out.pos.seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return out, fmt.Errorf("read position: %w", classify(err))
	}
	if out.skus, err = readStock(ctx, tx, c); err != nil {
		return out, fmt.Errorf("read stock rows: %w", err)
	}
	if err := sumDetails(ctx, tx, c, out.skus); err != nil {
		return out, fmt.Errorf("sum details: %w", err)
	}
	return out, nil
}

func readStock(ctx context.Context, tx *sql.Tx, c Cell) (skus map[string]ledgerSKU, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT s.sku, s.avail, s.held, s.sold, s.loaded, f.avail_after
FROM stock_cell s LEFT JOIN stock_flow f
ON f.event=s.event AND f.cell=s.cell AND f.epoch=s.epoch AND f.seq=s.seq AND f.sku=s.sku
WHERE s.event=? AND s.cell=?`, c.Event, c.N)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	skus = make(map[string]ledgerSKU)
	for rows.Next() {
		var sku string
		var r ledgerSKU
		var after sql.NullInt64
		if err := rows.Scan(&sku, &r.Avail, &r.Held, &r.Sold, &r.Loaded, &after); err != nil {
			return nil, err
		}
		r.flowAfter, r.flowKnown = after.Int64, after.Valid
		skus[sku] = r
	}
	return skus, rows.Err()
}

func sumDetails(ctx context.Context, tx *sql.Tx, c Cell, skus map[string]ledgerSKU) (err error) {
	rows, err := tx.QueryContext(ctx, `SELECT sku, state, SUM(qty) FROM stock_detail WHERE event=? AND cell=? GROUP BY sku, state`,
		c.Event, c.N)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var sku string
		var state State
		var qty int64
		if err := rows.Scan(&sku, &state, &qty); err != nil {
			return err
		}
		r := skus[sku]
		switch state {
		case StateHeld:
			r.held = qty
		case StateConfirmed:
			r.confirmed = qty
		case StateCancelled, StateExpired:
			continue
		}
		skus[sku] = r
	}
	return rows.Err()
}

// ledgerCells lists the cells that the ledger has seen.
func ledgerCells(ctx context.Context, db *sql.DB) (list []Cell, err error) {
	rows, err := db.QueryContext(ctx, `SELECT event, cell FROM cell_pos WHERE epoch > 0`)
	if err != nil {
		return nil, classify(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c Cell
		if err := rows.Scan(&c.Event, &c.N); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}
