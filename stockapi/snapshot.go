package stockapi

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Snapshot is everything that counts in a cell, in one cut.
type Snapshot struct {
	Cell  Cell
	Epoch int64
	// Seq is the newest event; Published the newest that Kafka acknowledged.
	Seq       int64
	Published int64
	// Outbox is the length of the stream, acknowledged events that are kept
	// included.
	Outbox int64
	// Live is the number of open holds.
	Live int64
	// Frozen means that the cell takes no changes.
	Frozen bool
	// At is the clock of Redis. The rest is the sale's window; EndAt may be zero.
	At, VisibleAt, SellableAt, EndAt time.Time
	SKUs                             map[string]Counters
}

// Pending is the number of events that Kafka has not acknowledged yet.
func (s Snapshot) Pending() int64 { return s.Seq - s.Published }

// Counters are the units of one SKU in a cell.
type Counters struct {
	Avail, Held, Sold int64
	// Loaded is what the cell was given: Avail + Held + Sold at any time.
	Loaded int64
}

// Snapshot reads a cell. It returns CodeUnknownEvent if the event is not loaded.
func (s *Service) Snapshot(ctx context.Context, event string) (Snapshot, error) {
	if !validEvent(event) {
		return Snapshot{}, fmt.Errorf("%w: event %q", ErrInvalid, event)
	}
	return s.snapshot(ctx, s.cellOf(event, ""))
}

func (s *Service) snapshot(ctx context.Context, c Cell) (Snapshot, error) {
	reply, err := run(ctx, s.deps.Redis, s.lua.snapshot, keysOf(s.cfg.Prefix, c).head())
	if err == nil && reply[0] != "OK" {
		err = refusal(reply)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", c, err)
	}
	snap, err := parseSnapshot(c, reply[1:])
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", c, err)
	}
	return snap, nil
}

// snapshotHead is the number of values before the meta hash's fields.
const snapshotHead = 3

func parseSnapshot(c Cell, f []string) (Snapshot, error) {
	var r fieldReader
	if len(f) < snapshotHead {
		return Snapshot{}, fmt.Errorf("reply of %d values", len(f))
	}
	snap := Snapshot{
		Cell: c, At: time.UnixMilli(r.parse(f[0])).UTC(), Outbox: r.parse(f[1]), Live: r.parse(f[2]),
		SKUs: make(map[string]Counters),
	}
	r.values = make(map[string]any, len(f)/2)
	for i := snapshotHead; i+1 < len(f); i += 2 {
		r.values[f[i]] = f[i+1]
		kind, sku, ok := strings.Cut(f[i], ":")
		if !ok {
			continue
		}
		n := snap.SKUs[sku]
		switch kind {
		case "av":
			n.Avail = r.parse(f[i+1])
		case "hd":
			n.Held = r.parse(f[i+1])
		case "sd":
			n.Sold = r.parse(f[i+1])
		case "ld":
			n.Loaded = r.parse(f[i+1])
		}
		snap.SKUs[sku] = n
	}
	snap.Epoch, snap.Seq, snap.Frozen = r.number("ep"), r.number("seq"), r.text("mode") == "F"
	pub, err := parseMark(r.text("pub"))
	if err != nil {
		return Snapshot{}, err
	}
	// A mark of the epoch before means: nothing of this one is delivered yet.
	if pub.epoch == snap.Epoch {
		snap.Published = pub.seq
	}
	snap.VisibleAt, snap.SellableAt = unixMilli(r.number("vat")), unixMilli(r.number("sat"))
	snap.EndAt = unixMilli(r.number("end"))
	return snap, r.err
}

func unixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// cells lists the cells that were ever loaded under the prefix.
func cells(ctx context.Context, deps Deps, prefix string) ([]Cell, error) {
	names, err := deps.Redis.SMembers(ctx, eventsKey(prefix)).Result()
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	out := make([]Cell, 0, len(names))
	for _, n := range names {
		c, err := parseCell(n)
		if err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		out = append(out, c)
	}
	return out, nil
}
