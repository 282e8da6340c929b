package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/backoff"
)

// fromLast stands for the offset of a partition's last record.
const fromLast = -1

// readTo calls fn with the records of a partition from an offset up to its
// present end, and returns that end. Where the log has been cut since, it begins
// at what is left. It blocks until then or until ctx ends.
func readTo(ctx context.Context, client sarama.Client, topic string, partition int32, from int64, fn func(*sarama.ConsumerMessage) error) (int64, error) {
	wait := backoff.New(20*time.Millisecond, 500*time.Millisecond)
	for {
		r, end, err := openTo(client, topic, partition, from)
		if electing(err) && wait.Wait(ctx) == nil {
			_ = client.RefreshMetadata(topic) // the next attempt tells
			continue
		}
		if err == nil && r != nil {
			err = r.drain(ctx, end, fn)
		}
		if err != nil {
			return 0, fmt.Errorf("read partition %d of topic %s: %w; are its brokers up, and is this account allowed to READ it?", partition, topic, err)
		}
		return end, nil
	}
}

// electing reports whether err passes by itself: the partition was made or has
// changed its leader a moment ago.
func electing(err error) bool {
	return errors.Is(err, sarama.ErrNotLeaderForPartition) || errors.Is(err, sarama.ErrLeaderNotAvailable) ||
		errors.Is(err, sarama.ErrUnknownTopicOrPartition)
}

// reader reads one partition.
type reader struct {
	consumer sarama.Consumer
	part     sarama.PartitionConsumer
}

// openTo opens a partition for reading up to its present end; without a reader
// when there is nothing to read.
func openTo(client sarama.Client, topic string, partition int32, from int64) (*reader, int64, error) {
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil {
		return nil, 0, err
	}
	start, err := client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return nil, 0, err
	}
	if from == fromLast {
		from = end - 1
	}
	if from = max(from, start); from >= end {
		return nil, end, nil
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, 0, err
	}
	part, err := consumer.ConsumePartition(topic, partition, from)
	if err != nil {
		return nil, 0, errors.Join(err, consumer.Close())
	}
	return &reader{consumer, part}, end, nil
}

// drain calls fn with the records before end, and closes the reader.
func (r *reader) drain(ctx context.Context, end int64, fn func(*sarama.ConsumerMessage) error) error {
	defer func() {
		_ = r.part.Close() // what was asked for has been read, or not
		_ = r.consumer.Close()
	}()
	for {
		select {
		case m, ok := <-r.part.Messages():
			if !ok {
				return errors.New("the library gave up")
			}
			if m.Offset >= end {
				return nil // the last one was compacted away
			}
			if err := fn(m); err != nil {
				return err
			}
			if m.Offset+1 == end {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
