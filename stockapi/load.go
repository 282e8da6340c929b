package stockapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Sale is what Load installs.
type Sale struct {
	Event string
	// Epoch is the lineage, from 1. A higher one replaces a sale that is at rest.
	Epoch int64
	// VisibleAt and SellableAt may be zero: at once. EndAt zero means no end.
	VisibleAt, SellableAt, EndAt time.Time
	SKUs                         []SaleSKU
}

// SaleSKU is one SKU of a Sale.
type SaleSKU struct {
	SKU string
	// Stock is how many units are for sale now.
	Stock int64
	// Sold is how many were sold in earlier epochs.
	Sold int64
}

// Load installs a sale: its counters, its window and the first event of its log.
// It never touches a sale that is going on: it works if the cell is absent, or if
// the epoch is newer and the cell is at rest (no open hold, outbox delivered). The
// same sale again does nothing. CodeStale, CodeBusy and CodeRowsDiffer say what is
// in the way.
func (s *Service) Load(ctx context.Context, sale Sale) error {
	packed, err := sale.pack()
	if err != nil {
		return err
	}
	cell := s.cellOf(sale.Event, "")
	if err := s.deps.Redis.SAdd(ctx, eventsKey(s.cfg.Prefix), cell.String()).Err(); err != nil {
		return fmt.Errorf("load %s: register: %w", cell, err)
	}
	if err := s.lua.warm(ctx, s.deps.Redis); err != nil {
		return fmt.Errorf("load %s: %w", cell, err)
	}
	vis, sat, end := milli(sale.VisibleAt), milli(sale.SellableAt), milli(sale.EndAt)
	fp := fingerprint(packed, itoa(vis), itoa(sat), itoa(end), itoa(int64(s.cfg.Cells)))
	reply, err := s.mutate(ctx, "load", s.lua.load, keysOf(s.cfg.Prefix, cell).head(),
		sale.Epoch, fp, vis, sat, end, s.cfg.Cells, packed)
	if err == nil && reply[0] != "OK" && reply[0] != "DUP" {
		err = refusal(reply)
	}
	if err != nil {
		return fmt.Errorf("load %s epoch %d: %w", cell, sale.Epoch, err)
	}
	return nil
}

// maxSaleSKUs keeps the load's one event below Kafka's 1 MB.
const maxSaleSKUs = 2000

func (s Sale) pack() (string, error) {
	var errs []error
	if !validEvent(s.Event) {
		errs = append(errs, fmt.Errorf("event %q", s.Event))
	}
	if s.Epoch < 1 {
		errs = append(errs, fmt.Errorf("epoch %d: starts at 1", s.Epoch))
	}
	if !s.EndAt.IsZero() && !s.EndAt.After(s.SellableAt) {
		errs = append(errs, errors.New("the sale ends before it starts"))
	}
	if len(s.SKUs) == 0 || len(s.SKUs) > maxSaleSKUs {
		errs = append(errs, fmt.Errorf("between 1 and %d SKUs are required, not %d", maxSaleSKUs, len(s.SKUs)))
	}
	skus := slices.Clone(s.SKUs)
	slices.SortFunc(skus, func(a, b SaleSKU) int { return strings.Compare(a.SKU, b.SKU) })
	rows := make([]string, len(skus))
	for i, k := range skus {
		if !validID(k.SKU) || k.Stock < 0 || k.Sold < 0 || k.Stock > maxUnits || k.Sold > maxUnits {
			errs = append(errs, fmt.Errorf("sku %+v", k))
		}
		if i > 0 && skus[i-1].SKU == k.SKU {
			errs = append(errs, fmt.Errorf("sku %s is listed twice", k.SKU))
		}
		rows[i] = k.SKU + "," + itoa(k.Stock) + "," + itoa(k.Sold)
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("%w: load: %w", ErrInvalid, err)
	}
	return strings.Join(rows, ";"), nil
}

func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
