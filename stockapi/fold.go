package stockapi

import (
	"fmt"
	"maps"
	"slices"
)

// position is how far the ledger has applied a cell's log. Epoch 0: nothing yet.
type position struct {
	epoch, seq int64
}

// segment is what a run of new events of one epoch comes to: the least that MySQL
// must be told. A load is always the first event of its segment.
type segment struct {
	epoch int64
	load  *Event
	flows []flowRow
	skus  map[string]*skuChange
	// opened are holds that begin here, whatever became of them by the end of the
	// segment; closed are holds of earlier segments that end here.
	opened, closed []*detail
	byHold         map[string]*detail
	oldestMS       int64
}

type flowRow struct {
	seq, ms int64
	kind    EventType
	hold    string
	item    EventItem
}

// skuChange is the sum of a segment's changes to one stock row.
type skuChange struct {
	sku               string
	avail, held, sold int64
	// after is what the newest event says is available; known once one was seen.
	after, seq int64
	known      bool
}

// detail is a hold as the segment leaves it.
type detail struct {
	first   Event // of the segment
	state   State
	seqHeld int64
	seqEnd  int64
	ref     string
	ms      int64
}

// seenEvent is an event at or below the position. It must be a repetition, and only
// MySQL can tell.
type seenEvent struct {
	epoch int64
	event Event
}

// fold sets aside the events at or below the position and sums up the rest, which
// must follow it without a gap. All batches are of one cell, in the order of the
// partition.
func fold(pos position, batches []Batch) (segs []*segment, next position, seen []seenEvent, err error) {
	fresh := make(map[mark]Event)
	for _, b := range batches {
		for _, e := range b.Events {
			switch {
			case b.Epoch < pos.epoch, b.Epoch == pos.epoch && e.Seq <= pos.seq:
				// Sent again: the relay repeats after a crash. What repeats an event of
				// this very transaction cannot be looked up in MySQL yet.
				if before, ok := fresh[mark{b.Epoch, e.Seq}]; !ok {
					seen = append(seen, seenEvent{b.Epoch, e})
				} else if !before.same(e) {
					return nil, pos, nil, fmt.Errorf("%w: %s epoch %d seq %d was given twice", ErrDivergence, b.CellID(), b.Epoch, e.Seq)
				}
				continue
			case b.Epoch == pos.epoch && e.Seq != pos.seq+1:
				return nil, pos, nil, fmt.Errorf("%w: %s epoch %d: seq %d follows %d", ErrGap, b.CellID(), b.Epoch, e.Seq, pos.seq)
			case b.Epoch > pos.epoch && e.Seq != 1:
				return nil, pos, nil, fmt.Errorf("%w: %s: epoch %d begins with seq %d", ErrGap, b.CellID(), b.Epoch, e.Seq)
			}
			if b.Epoch > pos.epoch {
				segs = append(segs, newSegment(b.Epoch))
			} else if len(segs) == 0 {
				segs = append(segs, newSegment(b.Epoch))
			}
			if err := segs[len(segs)-1].add(e); err != nil {
				return nil, pos, nil, fmt.Errorf("%s epoch %d seq %d: %w", b.CellID(), b.Epoch, e.Seq, err)
			}
			pos = position{b.Epoch, e.Seq}
			fresh[mark{b.Epoch, e.Seq}] = e
		}
	}
	return segs, pos, seen, nil
}

func newSegment(epoch int64) *segment {
	return &segment{epoch: epoch, skus: make(map[string]*skuChange), byHold: make(map[string]*detail)}
}

func (s *segment) add(e Event) error {
	if s.oldestMS == 0 {
		s.oldestMS = e.RedisMS
	}
	for _, it := range e.Items {
		s.flows = append(s.flows, flowRow{e.Seq, e.RedisMS, e.Type, e.Hold, it})
		c := s.skus[it.SKU]
		if c == nil {
			c = &skuChange{sku: it.SKU}
			s.skus[it.SKU] = c
		}
		if err := c.add(e, it); err != nil {
			return err
		}
	}
	if e.Type == EventLoad {
		s.load = &e
		return nil
	}
	return s.addDetail(e)
}

// add tests each event against the one before it; the first of a segment is tested
// by the database, where the sum must arrive at the last avail_after.
func (c *skuChange) add(e Event, it EventItem) error {
	before := c.after
	var avail int64
	switch e.Type {
	case EventLoad:
		c.after, c.seq, c.known = it.AvailAfter, e.Seq, true
		return nil
	case EventHold:
		avail = -it.Qty
		c.held += it.Qty
	case EventConfirm:
		c.held -= it.Qty
		c.sold += it.Qty
	case EventCancel, EventExpire:
		avail = it.Qty
		c.held -= it.Qty
	}
	if c.known && before+avail != it.AvailAfter {
		return fmt.Errorf("%w: %s of %d of sku %s leads from %d to %d", ErrDivergence, e.Type, it.Qty, it.SKU, before, it.AvailAfter)
	}
	c.avail += avail
	c.after, c.seq, c.known = it.AvailAfter, e.Seq, true
	return nil
}

var endStates = map[EventType]State{
	EventConfirm: StateConfirmed, EventCancel: StateCancelled, EventExpire: StateExpired,
}

func (s *segment) addDetail(e Event) error {
	d := s.byHold[e.Hold]
	if e.Type == EventHold {
		if d != nil {
			return fmt.Errorf("%w: hold %s begins twice", ErrDivergence, e.Hold)
		}
		d = &detail{first: e, state: StateHeld, seqHeld: e.Seq, ms: e.RedisMS}
		s.byHold[e.Hold] = d
		s.opened = append(s.opened, d)
		return nil
	}
	if d == nil {
		d = &detail{first: e}
		s.byHold[e.Hold] = d
		s.closed = append(s.closed, d)
	} else if d.seqEnd != 0 {
		return fmt.Errorf("%w: hold %s ends twice", ErrDivergence, e.Hold)
	}
	d.state, d.seqEnd, d.ref, d.ms = endStates[e.Type], e.Seq, e.Ref, e.RedisMS
	return nil
}

// changes are the segment's stock rows in the one order in which all ledgers lock
// them.
func (s *segment) changes() []*skuChange {
	out := make([]*skuChange, 0, len(s.skus))
	for _, sku := range slices.Sorted(maps.Keys(s.skus)) {
		out = append(out, s.skus[sku])
	}
	return out
}
