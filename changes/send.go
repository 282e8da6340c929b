package changes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// send sends round after round, each what has come up during the one before.
func (w *Writer) send(ctx context.Context) error {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	for {
		idle := false
		select {
		case <-w.work:
		case <-beat.C:
			idle = true
		case <-ctx.Done():
			return ctx.Err()
		}
		r := w.take(idle)
		for _, wave := range r.waves {
			if err := w.deliver(ctx, wave); err != nil {
				return err
			}
		}
		if w.done(r) {
			return nil
		}
		// The checkpoint's store may be away: what it has not heard of is bounded.
		if err := w.awaitSaved(ctx); err != nil {
			return err
		}
	}
}

// round is what is sent together: first the oldest record of each partition, then
// the next, so that none can overtake another of its partition.
type round struct {
	waves   [][]*sarama.ProducerMessage
	records int
	changes int
	bytes   int
	tickets []rowtide.Position
	last    bool
}

// take takes everything that waits; idle also tells partitions that have heard
// nothing how far the others are.
func (w *Writer) take(idle bool) round {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := round{changes: w.changes, bytes: w.bytes, tickets: w.tickets, last: w.closed}
	for p := range w.parts {
		o := &w.parts[p]
		all := o.full
		late := o.told < w.last && now.Sub(o.toldAt) >= heartbeatEvery
		if !o.filling.empty() || (idle || w.closed) && late {
			all = append(all, sealed{o.filling, w.last})
			o.filling = newBuilder()
		}
		for i, s := range all {
			if i == len(r.waves) {
				r.waves = append(r.waves, nil)
			}
			r.waves[i] = append(r.waves[i], &sarama.ProducerMessage{
				Topic: w.cfg.Topic, Partition: int32(p), //nolint:gosec // partitions are counted in int32
				Value: sarama.ByteEncoder(s.b.append(make([]byte, 0, s.b.size()+16), s.watermark, now)),
			})
			r.records++
			o.told, o.toldAt = s.watermark, now
		}
		o.full = nil
	}
	w.tickets, w.changes = nil, 0
	return r
}

// done notes that a round is acknowledged, and reports whether it was the last.
func (w *Writer) done(r round) bool {
	if r.records > 0 {
		w.obs.Sent(r.changes, r.records)
	}
	w.mu.Lock()
	w.bytes -= r.bytes
	for _, pos := range r.tickets {
		w.unsaved.last = pos
		if pos.GTID != "" {
			w.unsaved.gtids = append(w.unsaved.gtids, pos.GTID)
		}
		w.unsaved.txs++
	}
	w.mu.Unlock()
	signal(w.space)
	signal(w.acked)
	return r.last
}

// checkpoint moves the checkpoint behind the acknowledgements, until sent is
// closed and all is saved.
func (w *Writer) checkpoint(ctx context.Context, sent <-chan struct{}) error {
	for ended := false; !ended; {
		select {
		case <-w.acked:
		case <-sent:
			ended = true
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
		p := w.unsaved
		w.unsaved = progress{}
		w.mu.Unlock()
		if p.txs > 0 {
			if err := w.save.Save(ctx, p.last, p.gtids); err != nil {
				return fmt.Errorf("save checkpoint %s: %w", p.last, err)
			}
		}
		signal(w.saved)
		select {
		case <-time.After(saveEvery):
		case <-sent:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// awaitSaved holds the sending back while too much is acknowledged and not saved:
// the checkpoint's store is away.
func (w *Writer) awaitSaved(ctx context.Context) error {
	for {
		w.mu.Lock()
		n := w.unsaved.txs
		w.mu.Unlock()
		if n < maxUnsaved {
			return nil
		}
		select {
		case <-w.saved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver repeats what of a wave was not acknowledged until it is. A record whose
// acknowledgement was lost arrives twice; versions make that harmless.
func (w *Writer) deliver(ctx context.Context, wave []*sarama.ProducerMessage) error {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for failing := false; ; failing = true {
		err := w.try(ctx, wave)
		if err == nil {
			if failing {
				w.log.Info("kafka accepts changes again", "topic", w.cfg.Topic)
				w.obs.ChangesAway(nil)
			}
			return nil
		}
		if tooLarge(err) {
			return fmt.Errorf("topic %s refuses a record for its size: raise max.message.bytes of the topic above the largest row, up to %d, nothing was skipped: %w", w.cfg.Topic, maxMessage, err)
		}
		if !failing {
			w.log.Warn("kafka refuses changes, holding the source back until it accepts them", "topic", w.cfg.Topic, "err", err)
			w.obs.ChangesAway(err)
		}
		wave = again(wave, err)
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// try sends once. The library's call knows no context; when ctx ends first, it is
// left to its own timeouts.
func (w *Writer) try(ctx context.Context, wave []*sarama.ProducerMessage) error {
	done := make(chan error, 1)
	go func() { done <- w.sync.SendMessages(wave) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func tooLarge(err error) bool {
	var all sarama.ProducerErrors
	errors.As(err, &all)
	for _, one := range all {
		var own sarama.ConfigurationError // the library's own limit
		if errors.Is(one.Err, sarama.ErrMessageSizeTooLarge) || errors.As(one.Err, &own) {
			return true
		}
	}
	return false
}

// again copies the messages that failed, without the state that the producer left
// in them. There is one of each partition, so that those that went through are in
// nobody's way.
func again(wave []*sarama.ProducerMessage, err error) []*sarama.ProducerMessage {
	if all, ok := errors.AsType[sarama.ProducerErrors](err); ok {
		wave = nil
		for _, one := range all {
			wave = append(wave, one.Msg)
		}
	}
	out := make([]*sarama.ProducerMessage, len(wave))
	for i, m := range wave {
		out[i] = &sarama.ProducerMessage{Topic: m.Topic, Partition: m.Partition, Value: m.Value}
	}
	return out
}
