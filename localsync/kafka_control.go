package localsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/backoff"
)

const (
	// controlTimeout bounds the reading of the control topic at Open.
	controlTimeout = 10 * time.Second
	// controlPause is how soon at the latest a control topic that was not there is
	// looked for again.
	controlPause = 30 * time.Second
)

// controlLog reads the control topic, of which only partition 0 is used.
type controlLog struct {
	topic string
	apply func(key string, value []byte)
	part  sarama.PartitionConsumer // nil while there is no topic
	next  int64                    // offset
}

// Control implements ControlBus. Without the topic it returns at once; Run looks
// for it from time to time.
func (b *kafkaBus) Control(ctx context.Context, apply func(key string, value []byte)) error {
	l := &b.control
	l.apply = apply
	if !b.hasControl() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	if err := b.readControl(ctx); err != nil {
		return fmt.Errorf("read module settings from topic %q on %v: %w; is its leader up, and may this account READ it?", l.topic, b.brokers, err)
	}
	return nil
}

// readControl applies all that the topic holds now.
func (b *kafkaBus) readControl(ctx context.Context) error {
	l := &b.control
	end, err := b.client.GetOffset(l.topic, 0, sarama.OffsetNewest)
	if err != nil {
		return err
	}
	if l.part, err = b.consumer.ConsumePartition(l.topic, 0, sarama.OffsetOldest); err != nil {
		return err
	}
	oldest, err := b.client.GetOffset(l.topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	for l.next = oldest; l.next < end; {
		select {
		case m, ok := <-l.part.Messages():
			if !ok {
				return errors.New("the library gave up")
			}
			l.take(m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *controlLog) take(m *sarama.ConsumerMessage) {
	l.apply(string(m.Key), m.Value)
	l.next = m.Offset + 1
}

// hasControl looks for the topic in the list of all: asking for one that is not
// there would be repeated by the client for a second.
func (b *kafkaBus) hasControl() bool {
	if !b.conf.Metadata.Full {
		_ = b.client.RefreshMetadata(b.control.topic) // the list tells
	}
	topics, err := b.client.Topics()
	return err == nil && slices.Contains(topics, b.control.topic)
}

// followControl applies what is written to the control topic until ctx ends.
func (b *kafkaBus) followControl(ctx context.Context) {
	l := &b.control
	for ctx.Err() == nil {
		if l.part == nil && !b.findControl(ctx) {
			return
		}
		b.deliverControl(ctx)
	}
}

// findControl waits until there is a control topic to read on; false when ctx
// ended first.
func (b *kafkaBus) findControl(ctx context.Context) bool {
	l := &b.control
	wait := backoff.New(reopenAfter, controlPause)
	for {
		if ctx.Err() == nil && b.client.RefreshMetadata() == nil && b.hasControl() {
			pc, err := b.consumer.ConsumePartition(l.topic, 0, max(l.next, 0))
			if errors.Is(err, sarama.ErrOffsetOutOfRange) {
				// The topic was made anew, or its beginning is gone.
				pc, err = b.consumer.ConsumePartition(l.topic, 0, sarama.OffsetOldest)
			}
			if err == nil {
				l.part = pc
				return true
			}
			b.log.Debug("read module settings again", "topic", l.topic, "error", err)
		}
		if wait.Wait(ctx) != nil {
			return false
		}
	}
}

// deliverControl returns when ctx or the partition's consumer ends.
func (b *kafkaBus) deliverControl(ctx context.Context) {
	l := &b.control
	for messages := l.part.Messages(); ; {
		select {
		case m, ok := <-messages:
			if !ok {
				l.part = nil
				return
			}
			l.take(m)
		case <-ctx.Done():
			return
		}
	}
}
