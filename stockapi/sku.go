package stockapi

import (
	"context"
	"fmt"
	"time"
)

// Phase is where a sale stands by the clock of Redis. A sale turns sellable by the
// clock alone; nothing is written then.
type Phase string

// The phases of a sale.
const (
	PhaseHidden   Phase = "hidden"
	PhaseVisible  Phase = "visible"
	PhaseSellable Phase = "sellable"
	PhaseEnded    Phase = "ended"
)

// Band is how much is left, as a shop shows it: exact numbers at a rush are old
// before they are read.
type Band string

// The bands of availability.
const (
	BandNone Band = "none"
	BandFew  Band = "few"
	BandMany Band = "many"
)

// SKUStatus is what a shop page shows of a SKU.
type SKUStatus struct {
	Phase                        Phase
	VisibleAt, SellableAt, EndAt time.Time
	Band                         Band
	// AsOfSeq is the cell's sequence number at the reading.
	AsOfSeq int64
}

// SKU reads the status of one SKU.
func (s *Service) SKU(ctx context.Context, event, sku string) (SKUStatus, error) {
	if !validEvent(event) || !validID(sku) {
		return SKUStatus{}, fmt.Errorf("%w: event %q sku %q", ErrInvalid, event, sku)
	}
	rdb, key := s.deps.Redis, keysOf(s.cfg.Prefix, s.cellOf(event, "")).meta()
	pipe := rdb.Pipeline()
	clock := pipe.Time(ctx)
	row := pipe.HMGet(ctx, key, "vat", "sat", "end", "seq", "av:"+sku)
	if _, err := pipe.Exec(ctx); err != nil {
		return SKUStatus{}, fmt.Errorf("read sku %s of event %s: %w", sku, event, err)
	}
	f := row.Val()
	if f[3] == nil {
		return SKUStatus{}, &RefusalError{Code: CodeUnknownEvent}
	}
	if f[4] == nil {
		return SKUStatus{}, &RefusalError{Code: CodeUnknownSKU, SKU: sku}
	}
	var r fieldReader
	n := func(i int) int64 { return r.parse(fmt.Sprint(f[i])) }
	st := SKUStatus{
		VisibleAt: unixMilli(n(0)), SellableAt: unixMilli(n(1)), EndAt: unixMilli(n(2)),
		AsOfSeq: n(3), Band: bandOf(n(4), s.cfg.FewLeft),
	}
	st.Phase = phaseOf(clock.Val(), st.VisibleAt, st.SellableAt, st.EndAt)
	return st, r.err
}

func bandOf(avail, few int64) Band {
	switch {
	case avail <= 0:
		return BandNone
	case avail <= few:
		return BandFew
	}
	return BandMany
}

func phaseOf(now, visible, sellable, end time.Time) Phase {
	switch {
	case !end.IsZero() && !now.Before(end):
		return PhaseEnded
	case !now.Before(sellable):
		return PhaseSellable
	case !now.Before(visible):
		return PhaseVisible
	}
	return PhaseHidden
}
