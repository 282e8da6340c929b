package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
)

// maxLetterBytes leaves room in a record of a broker's default limit of 1 MB.
const maxLetterBytes = 900 << 10

// DeadLetters keeps changes that could not be applied in a compacted topic, until
// somebody has dealt with them. It is safe for use by many goroutines.
type DeadLetters struct{ keyed }

// NewDeadLetters makes sure that the topic is there.
func NewDeadLetters(cfg Config, client sarama.Client, log *slog.Logger) (*DeadLetters, error) {
	w, err := newKeyed(cfg, client, cfg.DLQTopic, log)
	if err != nil {
		return nil, err
	}
	return &DeadLetters{w}, nil
}

// Put returns nil when all in-sync replicas have the letter; a row that is too
// large for the topic is left out. The same change again replaces its letter. A
// broker that is away is waited for until ctx ends.
func (d *DeadLetters) Put(ctx context.Context, l rowtide.DeadLetter) error {
	record := l.AppendDeadLetter(nil)
	var size *refusal
	var err error
	if len(record) <= maxLetterBytes {
		err = d.put(ctx, l.ID(), record)
	}
	if len(record) > maxLetterBytes || errors.As(err, &size) && len(l.Row) > 0 {
		short := l.WithoutRow()
		short.Reason += fmt.Sprintf(" (the row of %d bytes is too large to be kept here)", len(l.Row))
		err = d.put(ctx, short.ID(), short.AppendDeadLetter(nil))
	}
	if errors.As(err, &size) {
		return fmt.Errorf("keep dead letter %s: %w: raise max.message.bytes of the topic", l.ID(), err)
	}
	return err
}

// What became of a letter, for those who read the topic.
const (
	Retried = "retried"
	Dropped = "dropped"
)

// Resolve removes letters, saying what became of them.
func (d *DeadLetters) Resolve(ctx context.Context, outcome string, ids ...string) error {
	for _, id := range ids {
		if err := d.put(ctx, id, nil, sarama.RecordHeader{Key: []byte("outcome"), Value: []byte(outcome)}); err != nil {
			return err
		}
	}
	return nil
}

// ScanDeadLetters calls fn with each letter that nobody has dealt with, oldest
// first, and stops at its error. Only ids are held in memory. A topic that does
// not exist has no letters. Letters that cannot be read are told in the error,
// after all others have been visited.
func ScanDeadLetters(ctx context.Context, client sarama.Client, cfg Config, fn func(rowtide.DeadLetter) error) error {
	if _, ok := exists(client, cfg.DLQTopic); !ok {
		return nil
	}
	newest := map[string]int64{} // offset, by id
	_, err := readTo(ctx, client, cfg.DLQTopic, 0, 0, func(m *sarama.ConsumerMessage) error {
		if m.Value == nil {
			delete(newest, string(m.Key))
		} else {
			newest[string(m.Key)] = m.Offset
		}
		return nil
	})
	if err != nil || len(newest) == 0 {
		return err
	}
	var unreadable []error
	_, err = readTo(ctx, client, cfg.DLQTopic, 0, 0, func(m *sarama.ConsumerMessage) error {
		if at, ok := newest[string(m.Key)]; !ok || at != m.Offset {
			return nil
		}
		l, err := rowtide.DecodeDeadLetter(m.Value)
		if err != nil {
			unreadable = append(unreadable, fmt.Errorf("letter %s: %w", m.Key, err))
			return nil
		}
		return fn(l)
	})
	return errors.Join(append(unreadable, err)...)
}
