package stockapi

import (
	"errors"
	"fmt"
	"slices"
)

// flowKey is one row of stock_flow within a cell.
type flowKey struct {
	epoch, seq int64
	sku        string
}

// mustBeRepetitions compares events at or below the position with what was applied.
// Equal ones are the relay's repetitions. Another event under a number that is
// taken proves that Redis lost writes and counted on from an older state: two
// histories, of which MySQL has the first. A number of an older epoch that was never
// applied belongs to a sale that went on behind its end.
func (w cellWriter) mustBeRepetitions(seen []seenEvent) error {
	for len(seen) > 0 {
		n, last := 1, seen[0].event.Seq
		for n < len(seen) && seen[n].epoch == seen[0].epoch && seen[n].event.Seq == last+1 {
			n, last = n+1, last+1
		}
		rows, err := w.applied(seen[0].epoch, seen[0].event.Seq, last)
		if err != nil {
			return err
		}
		for _, s := range seen[:n] {
			if err := w.repeats(s, rows); err != nil {
				return err
			}
		}
		seen = seen[n:]
	}
	return nil
}

func (w cellWriter) repeats(s seenEvent, rows map[flowKey]string) error {
	for _, it := range s.event.Items {
		got, ok := rows[flowKey{s.epoch, s.event.Seq, it.SKU}]
		if !ok {
			return fmt.Errorf("%w: %s epoch %d seq %d sku %s", ErrFenced, w.cell, s.epoch, s.event.Seq, it.SKU)
		}
		if want := flowText(string(s.event.Type), s.event.Hold, it.Qty, it.AvailAfter, datetime(s.event.RedisMS)); got != want {
			return fmt.Errorf("%w: %s epoch %d seq %d is taken: applied %q, now %q; redis lost writes",
				ErrDivergence, w.cell, s.epoch, s.event.Seq, got, want)
		}
	}
	return nil
}

// applied reads the flow of a range of sequence numbers.
func (w cellWriter) applied(epoch, first, last int64) (out map[flowKey]string, err error) {
	rows, err := w.tx.QueryContext(w.ctx, `SELECT seq, sku, type, hold, qty, avail_after, CAST(ts AS CHAR)
FROM stock_flow WHERE event=? AND cell=? AND epoch=? AND seq BETWEEN ? AND ?`, w.cell.Event, w.cell.N, epoch, first, last)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out = make(map[flowKey]string)
	for rows.Next() {
		k := flowKey{epoch: epoch}
		var kind, hold, ts string
		var qty, after int64
		if err := rows.Scan(&k.seq, &k.sku, &kind, &hold, &qty, &after, &ts); err != nil {
			return nil, err
		}
		out[k] = flowText(kind, hold, qty, after, ts)
	}
	return out, rows.Err()
}

// same tells whether two events under one number are one event.
func (e Event) same(o Event) bool {
	return e.Type == o.Type && e.Hold == o.Hold && e.RedisMS == o.RedisMS && slices.Equal(e.Items, o.Items)
}

func flowText(kind, hold string, qty, after int64, ts any) string {
	return fmt.Sprintf("%s %s q=%d left=%d at %v", kind, hold, qty, after, ts)
}
