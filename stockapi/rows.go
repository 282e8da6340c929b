package stockapi

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// chunkRows bounds a multi-row statement: far below the 65,535 parameters and the
// 16 MB packet of the servers' defaults.
const chunkRows = 1000

// insert runs "head VALUES (…),(…) tail" over the rows, in chunks, and returns the
// number of affected rows.
func (w cellWriter) insert(head, tail string, rows [][]any) (int64, error) {
	var total int64
	for len(rows) > 0 {
		n := min(len(rows), chunkRows)
		one := "(" + strings.TrimSuffix(strings.Repeat("?,", len(rows[0])), ",") + ")"
		args := make([]any, 0, n*len(rows[0]))
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		stmt := head + " VALUES " + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + tail
		res, err := w.tx.ExecContext(w.ctx, stmt, args...)
		if err != nil {
			return total, err
		}
		affected, err := res.RowsAffected()
		if err != nil {
			return total, err
		}
		total += affected
		rows = rows[n:]
	}
	return total, nil
}

// datetime writes a time in UTC as text: no session time zone and no setting of
// the driver can then shift it.
func datetime(ms int64) any {
	if ms == 0 {
		return nil
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000")
}

func (w cellWriter) flows(s *segment) error {
	rows := make([][]any, len(s.flows))
	for i, f := range s.flows {
		rows[i] = []any{
			w.cell.Event, w.cell.N, s.epoch, f.seq, f.item.SKU, string(f.kind), f.hold,
			f.item.Qty, f.item.AvailAfter, datetime(f.ms),
		}
	}
	_, err := w.insert(`INSERT INTO stock_flow (event, cell, epoch, seq, sku, type, hold, qty, avail_after, ts)`, "", rows)
	return err
}

const insertDetail = `INSERT INTO stock_detail
(hold, sku, event, cell, uid, qty, state, epoch, seq_held, seq_end, deadline, order_id, pay_id, reason, ts)`

func (w cellWriter) detailRows(epoch int64, ds []*detail) [][]any {
	var rows [][]any
	for _, d := range ds {
		pay, reason := "", d.ref
		if d.state == StateConfirmed {
			pay, reason = d.ref, ""
		}
		e := d.first
		for _, it := range e.Items {
			rows = append(rows, []any{
				e.Hold, it.SKU, w.cell.Event, w.cell.N, e.User, it.Qty, string(d.state), epoch,
				d.seqHeld, d.seqEnd, datetime(e.Deadline), e.Order, pay, reason, datetime(d.ms),
			})
		}
	}
	return rows
}

// opened inserts; a hold that is there already is a divergence.
func (w cellWriter) opened(s *segment) error {
	_, err := w.insert(insertDetail, "", w.detailRows(s.epoch, s.opened))
	return err
}

// closed ends holds of earlier transactions, many in one statement. Only a row that
// is still held moves. The server counts 2 for a row that moved, 1 for one that was
// inserted and 0 for one left alone: so the sum is right only if each of them was
// there and was held.
func (w cellWriter) closed(s *segment) error {
	rows := w.detailRows(s.epoch, s.closed)
	if len(rows) == 0 {
		return nil
	}
	// State last: MySQL evaluates from left to right and sees what it has assigned.
	n, err := w.insert(insertDetail, ` ON DUPLICATE KEY UPDATE
seq_end=IF(state='held',VALUES(seq_end),seq_end), pay_id=IF(state='held',VALUES(pay_id),pay_id),
reason=IF(state='held',VALUES(reason),reason), ts=IF(state='held',VALUES(ts),ts),
state=IF(state='held',VALUES(state),state)`, rows)
	if err != nil {
		return err
	}
	if want := 2 * int64(len(rows)); n != want {
		return fmt.Errorf("%w: %s: not all %d ended holds were held (%d of %d)", ErrDivergence, w.cell, len(rows), n, want)
	}
	return nil
}

// load installs the stock rows of an epoch. Rows of an earlier epoch must be at
// rest and agree about what was sold.
func (w cellWriter) load(e *Event, epoch int64, known bool) error {
	_, err := w.tx.ExecContext(w.ctx, `INSERT INTO stock_event (event, visible_at, sellable_at, end_at, cells, epoch, state, ver)
VALUES (?,?,?,?,?,?,'open',1) ON DUPLICATE KEY UPDATE visible_at=VALUES(visible_at), sellable_at=VALUES(sellable_at),
end_at=VALUES(end_at), cells=VALUES(cells), epoch=VALUES(epoch), state=VALUES(state), ver=ver+1`,
		w.cell.Event, datetime(e.Load.VisibleAt), datetime(e.Load.SellableAt), datetime(e.Load.EndAt), e.Load.Cells, epoch)
	if err != nil {
		return fmt.Errorf("stock_event: %w", err)
	}
	var skus, rows [][]any
	for _, it := range e.Items {
		skus = append(skus, []any{w.cell.Event, it.SKU, it.Qty + it.Sold})
		if known {
			there, err := w.reload(it, e.Seq, epoch)
			if err != nil {
				return fmt.Errorf("stock_cell: %w", err)
			}
			if there {
				continue
			}
		}
		if it.Sold != 0 {
			return fmt.Errorf("%w: load of %s: sku %s has %d sold that the ledger never saw", ErrDivergence, w.cell, it.SKU, it.Sold)
		}
		rows = append(rows, []any{w.cell.Event, it.SKU, w.cell.N, it.AvailAfter, 0, 0, it.Qty, epoch, e.Seq})
	}
	_, skuErr := w.insert(`INSERT INTO stock_sku (event, sku, initial)`, ` ON DUPLICATE KEY UPDATE initial=VALUES(initial)`, skus)
	_, cellErr := w.insert(`INSERT INTO stock_cell (event, sku, cell, avail, held, sold, loaded, epoch, seq)`, "", rows)
	return errors.Join(skuErr, cellErr)
}

// reload moves a stock row that is at rest to a new epoch. A row that is there but
// not at rest is left alone, and the insert that follows fails on it.
func (w cellWriter) reload(it EventItem, seq, epoch int64) (bool, error) {
	res, err := w.tx.ExecContext(w.ctx, `UPDATE stock_cell SET avail=?, loaded=?, epoch=?, seq=?
WHERE event=? AND sku=? AND cell=? AND held=0 AND sold=?`,
		it.AvailAfter, it.Qty+it.Sold, epoch, seq, w.cell.Event, it.SKU, w.cell.N, it.Sold)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
