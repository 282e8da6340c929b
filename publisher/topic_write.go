package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/backoff"
)

// keyed writes records with keys to partition 0 of a compacted topic.
type keyed struct {
	topic string
	log   *slog.Logger
	sync  sarama.SyncProducer
}

func newKeyed(cfg Config, client sarama.Client, topic string, log *slog.Logger) (keyed, error) {
	if err := ensureCompacted(client, cfg, topic, log); err != nil {
		return keyed{}, err
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return keyed{}, fmt.Errorf("make producer for topic %s: %w", topic, err)
	}
	return keyed{topic, log, p}, nil
}

// put returns nil when all in-sync replicas have the record; a nil value removes
// the key. A broker that is away is waited for. The error is ctx's, or a
// [refusal].
func (k *keyed) put(ctx context.Context, key string, value []byte, headers ...sarama.RecordHeader) error {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for warned := false; ; warned = true {
		m := &sarama.ProducerMessage{Topic: k.topic, Key: sarama.StringEncoder(key), Headers: headers}
		if value != nil {
			m.Value = sarama.ByteEncoder(value)
		}
		done := make(chan error, 1)
		go func() { done <- k.sync.SendMessages([]*sarama.ProducerMessage{m}) }() // knows no context, but has timeouts
		var err error
		select {
		case err = <-done:
		case <-ctx.Done():
			return fmt.Errorf("write to topic %s: %w", k.topic, ctx.Err())
		}
		if err == nil {
			return nil
		}
		if r := refused(err); r != nil {
			return r
		}
		if !warned {
			k.log.Warn("kafka refuses a record, repeating it until it is accepted", "topic", k.topic, "err", err)
		}
		if waited := wait.Wait(ctx); waited != nil {
			return fmt.Errorf("write to topic %s: %w", k.topic, errors.Join(waited, err))
		}
	}
}

// Close ends the producer. It does not close the client.
func (k *keyed) Close() error {
	if err := k.sync.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
		return fmt.Errorf("close producer of topic %s: %w", k.topic, err)
	}
	return nil
}
