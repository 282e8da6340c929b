package changes

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
)

// member is a group's side of one membership, as the library calls it.
type member struct {
	g *Group
	h Handler
}

// Setup implements sarama.ConsumerGroupHandler.
func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	m.g.mu.Lock()
	m.g.session = s
	m.g.mu.Unlock()
	m.g.well()
	m.g.obs.Joined()
	return nil
}

// Cleanup implements sarama.ConsumerGroupHandler.
func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	m.g.session = nil
	return nil
}

// ConsumeClaim implements sarama.ConsumerGroupHandler: it hands a partition's
// records over until the partition is taken away.
func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	g, p := m.g, claim.Partition()
	if err := g.bus.Claim(s.Context(), p); err != nil {
		if s.Context().Err() == nil {
			g.trouble(err)
		}
		return err // ends the membership, which begins anew
	}
	at := &place{claim: claim, done: max(claim.InitialOffset(), 0)} // below 0: the oldest there is
	g.mu.Lock()
	g.places[p] = at
	g.mu.Unlock()
	g.obs.Claimed(p, true)
	defer func() {
		g.drain(at)
		g.mu.Lock()
		delete(g.places, p)
		g.mu.Unlock()
		g.bus.Release(p)
		g.obs.Claimed(p, false)
	}()
	for {
		select {
		case msg, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			if err := m.record(s.Context(), at, msg); err != nil {
				if s.Context().Err() == nil {
					g.fail(err)
				}
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// record hands a record's transactions over. The last one says that the record is
// done.
func (m *member) record(ctx context.Context, at *place, msg *sarama.ConsumerMessage) error {
	r, err := m.g.dec.Decode(msg.Value)
	if err != nil {
		return fmt.Errorf("topic %s partition %d offset %d: %w", msg.Topic, msg.Partition, msg.Offset, err)
	}
	// The records of a partition are one stream, those of several are not: the
	// handler is for one of them at a time.
	select {
	case m.g.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-m.g.turn }()
	done := token{msg.Partition, msg.Offset + 1, r.Watermark}
	if len(r.Parts) == 0 {
		r.Parts = []Part{{Version: r.Watermark}}
	}
	var tx rowtide.Tx
	var changes []rowtide.Change
	for i := range r.Parts {
		p := &r.Parts[i]
		t := token{msg.Partition, msg.Offset, 0}
		if i == len(r.Parts)-1 {
			t = done
		}
		changes = changes[:0]
		for j := range p.Changes {
			changes = append(changes, p.Changes[j].Change)
		}
		tx = rowtide.Tx{Position: p.Position, Version: p.Version, CommittedAt: p.CommittedAt, Changes: changes, Bytes: p.Bytes}
		tx.Position.GTID = t.with(p.Position.GTID)
		if err := m.h.HandleTx(ctx, &tx); err != nil {
			return err
		}
	}
	m.g.mu.Lock()
	at.handed = done.next
	m.g.mu.Unlock()
	return nil
}

// drain waits until what was handed over is acknowledged, but not for long.
func (g *Group) drain(at *place) {
	late := time.NewTimer(drainFor)
	defer late.Stop()
	for {
		g.mu.Lock()
		saved := g.saved
		through := at.done >= at.handed
		if g.fault != nil {
			through = true
		}
		g.mu.Unlock()
		if through {
			return
		}
		select {
		case <-saved:
		case <-late.C:
			return
		}
	}
}
