package stockapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Record is one Kafka record of the topic.
type Record struct {
	Offset int64
	Batch  Batch
}

// Applied is what a transaction did.
type Applied struct {
	// Events seen, and of these new; the rest were applied before.
	Events, New int
	// Oldest is when the oldest new event happened; zero if there was none.
	Oldest time.Time
}

// Apply applies consecutive records of one partition in one transaction, once. It
// returns nil only after the commit. The same records again do nothing. ErrGap,
// ErrDivergence, ErrFenced and ErrBadEvent mean that nothing was applied.
func (l *Ledger) Apply(ctx context.Context, partition int32, recs []Record) (a Applied, err error) {
	if len(recs) == 0 {
		return Applied{}, nil
	}
	tx, err := l.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return Applied{}, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("apply offsets %d to %d of partition %d: %w",
				recs[0].Offset, recs[len(recs)-1].Offset, partition, classify(err))
			if rb := tx.Rollback(); rb != nil && !errors.Is(rb, sql.ErrTxDone) {
				err = errors.Join(err, fmt.Errorf("roll back: %w", rb))
			}
			a = Applied{}
		}
	}()
	byCell := make(map[Cell][]Batch)
	var order []Cell
	for _, r := range recs {
		c := r.Batch.CellID()
		if byCell[c] == nil {
			order = append(order, c)
		}
		byCell[c] = append(byCell[c], r.Batch)
		a.Events += len(r.Batch.Events)
	}
	// Sorted, so that two ledgers never wait for each other in a circle.
	slices.SortFunc(order, func(x, y Cell) int { return strings.Compare(x.String(), y.String()) })
	// Every cell of the transaction gets the last offset: the largest of a
	// partition's offsets is then exactly where it was read to.
	at := place{l.cfg.Kafka.Topic, partition, recs[len(recs)-1].Offset}
	for _, c := range order {
		w := cellWriter{ctx: ctx, tx: tx, cell: c, at: at}
		if err := w.apply(byCell[c], &a); err != nil {
			return Applied{}, err
		}
	}
	if err := l.beforeCommit(); err != nil {
		return Applied{}, err
	}
	if err := tx.Commit(); err != nil {
		return Applied{}, fmt.Errorf("commit: %w", err)
	}
	return a, nil
}

// place is where in Kafka a transaction ends.
type place struct {
	topic  string
	part   int32
	offset int64
}

// cellWriter writes one cell's part of a transaction. It lives as long as that, so
// it may hold the context.
type cellWriter struct {
	ctx  context.Context //nolint:containedctx // see above
	tx   *sql.Tx
	cell Cell
	at   place
}

func (w cellWriter) apply(batches []Batch, a *Applied) error {
	pos, err := w.lock()
	if err != nil {
		return fmt.Errorf("lock position of %s: %w", w.cell, err)
	}
	segs, next, seen, err := fold(pos, batches)
	if err != nil {
		return err
	}
	if err := w.mustBeRepetitions(seen); err != nil {
		return fmt.Errorf("compare repeated events of %s: %w", w.cell, err)
	}
	known := pos.epoch > 0
	for _, s := range segs {
		if err := w.segment(s, known); err != nil {
			return fmt.Errorf("write %s epoch %d: %w", w.cell, s.epoch, err)
		}
		known = true
		a.New += eventsOf(s)
		if t := time.UnixMilli(s.oldestMS); a.Oldest.IsZero() || t.Before(a.Oldest) {
			a.Oldest = t
		}
	}
	_, err = w.tx.ExecContext(w.ctx, `UPDATE cell_pos SET epoch=?, last_seq=?, topic=?, part=?, off=? WHERE event=? AND cell=?`,
		next.epoch, next.seq, w.at.topic, w.at.part, w.at.offset, w.cell.Event, w.cell.N)
	if err != nil {
		return fmt.Errorf("move position of %s: %w", w.cell, err)
	}
	return nil
}

// eventsOf counts distinct events: an event with several items has several flows.
func eventsOf(s *segment) int {
	n, last := 0, int64(0)
	for _, f := range s.flows {
		if f.seq != last {
			n, last = n+1, f.seq
		}
	}
	return n
}

// lock reads the cell's position and keeps every other ledger out of the cell
// until the transaction ends.
func (w cellWriter) lock() (position, error) {
	const read = `SELECT epoch, last_seq FROM cell_pos WHERE event=? AND cell=? FOR UPDATE`
	var p position
	err := w.tx.QueryRowContext(w.ctx, read, w.cell.Event, w.cell.N).Scan(&p.epoch, &p.seq)
	if !errors.Is(err, sql.ErrNoRows) {
		return p, err
	}
	// READ COMMITTED locks no row that is not there; this makes one, or waits for
	// the ledger that is making it.
	_, err = w.tx.ExecContext(w.ctx, `INSERT INTO cell_pos (event, cell, epoch, last_seq, topic, part, off)
VALUES (?,?,0,0,?,?,?) ON DUPLICATE KEY UPDATE event=VALUES(event)`, w.cell.Event, w.cell.N, w.at.topic, w.at.part, w.at.offset)
	if err != nil {
		return position{}, err
	}
	err = w.tx.QueryRowContext(w.ctx, read, w.cell.Event, w.cell.N).Scan(&p.epoch, &p.seq)
	return p, err
}

// segment writes flow, details and stock rows. The order of the statements does
// not matter for what is true: it is one transaction.
func (w cellWriter) segment(s *segment, known bool) error {
	if s.load != nil {
		if err := w.load(s.load, s.epoch, known); err != nil {
			return err
		}
	}
	if err := w.flows(s); err != nil {
		return fmt.Errorf("stock_flow: %w", err)
	}
	if err := w.opened(s); err != nil {
		return fmt.Errorf("stock_detail: %w", err)
	}
	if err := w.closed(s); err != nil {
		return fmt.Errorf("stock_detail: %w", err)
	}
	for _, c := range s.changes() {
		if s.load != nil && c.avail == 0 && c.held == 0 && c.sold == 0 && c.seq == s.load.Seq {
			continue // as loaded
		}
		if err := w.change(s.epoch, c); err != nil {
			return fmt.Errorf("stock_cell: %w", err)
		}
	}
	return nil
}

// change moves one stock row, once for the whole segment, and only if that leads
// to exactly what the counter in Redis was after the same event.
func (w cellWriter) change(epoch int64, c *skuChange) error {
	res, err := w.tx.ExecContext(w.ctx, `UPDATE stock_cell SET avail=avail+?, held=held+?, sold=sold+?, epoch=?, seq=?
WHERE event=? AND sku=? AND cell=? AND avail+?=?`,
		c.avail, c.held, c.sold, epoch, c.seq, w.cell.Event, c.sku, w.cell.N, c.avail, c.after)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("%w: sku %s of %s: a change of %+d does not lead to avail_after %d of seq %d",
			ErrDivergence, c.sku, w.cell, c.avail, c.after, c.seq)
	}
	return nil
}
