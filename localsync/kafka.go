package localsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// kafkaBus reads every partition directly, without a consumer group: each node
// needs every record, nodes come and go by the dozen, and a group would rebalance
// and leave its offsets behind for each of them.
type kafkaBus struct {
	brokers []string
	topic   string
	conf    *sarama.Config
	log     *slog.Logger

	client   sarama.Client
	consumer sarama.Consumer
	parts    []sarama.PartitionConsumer // by partition
	control  controlLog
}

// reopenAfter is the pause between attempts to consume a partition again.
const reopenAfter = 250 * time.Millisecond

func newKafkaBus(opt *Options) *kafkaBus {
	c := sarama.NewConfig()
	if opt.Kafka != nil {
		own := *opt.Kafka
		c = &own
	} else {
		c.ClientID = "rowtide-localsync"
		// Open answers within seconds when a broker is away.
		c.Net.DialTimeout = 5 * time.Second
		c.Consumer.Retry.Backoff = reopenAfter
	}
	// A consumer that may create the topic would do so with the broker's default
	// number of partitions, and keys would map wrongly for ever.
	c.Metadata.AllowAutoTopicCreation = false
	c.Consumer.Return.Errors = true
	return &kafkaBus{brokers: opt.Brokers, topic: opt.Topic, conf: c, log: opt.Logger, control: controlLog{topic: opt.ControlTopic}}
}

// Open implements Bus. sarama takes no context; its own timeouts bound the call.
func (b *kafkaBus) Open(context.Context) (int32, error) {
	client, err := sarama.NewClient(b.brokers, b.conf)
	if err != nil {
		return 0, fmt.Errorf("reach kafka at %v: %w; is it running, and does the address that it advertises resolve here?", b.brokers, err)
	}
	b.client = client
	n, err := b.pin()
	if err != nil {
		return 0, errors.Join(err, b.Close())
	}
	return n, nil
}

func (b *kafkaBus) pin() (int32, error) {
	ids, err := b.client.Partitions(b.topic)
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return 0, fmt.Errorf("find topic %q on %v: %w: the rowtide daemon creates it when it starts", b.topic, b.brokers, ErrTopicMissing)
	}
	if err != nil {
		return 0, fmt.Errorf("list partitions of topic %q on %v: %w", b.topic, b.brokers, err)
	}
	if b.consumer, err = sarama.NewConsumerFromClient(b.client); err != nil {
		return 0, fmt.Errorf("make consumer of topic %q: %w", b.topic, err)
	}
	for p := range int32(len(ids)) {
		// OffsetNewest is looked up inside the call: when it returns, the end is
		// pinned.
		pc, err := b.consumer.ConsumePartition(b.topic, p, sarama.OffsetNewest)
		if err != nil {
			return 0, fmt.Errorf("consume partition %d of topic %q: %w", p, b.topic, err)
		}
		b.parts = append(b.parts, pc)
	}
	return int32(len(ids)), nil
}

// Run implements Bus.
func (b *kafkaBus) Run(ctx context.Context, sink Sink) error {
	var wg sync.WaitGroup
	for p := range b.parts {
		wg.Go(func() { b.follow(ctx, int32(p), sink) })
	}
	if b.control.apply != nil {
		wg.Go(func() { b.followControl(ctx) })
	}
	wg.Wait()
	return nil
}

// follow delivers one partition until ctx ends.
func (b *kafkaBus) follow(ctx context.Context, p int32, sink Sink) {
	for ctx.Err() == nil {
		cause := b.deliver(ctx, p, sink)
		if ctx.Err() != nil {
			return
		}
		// sarama gives up on one error only: our offset no longer exists, because
		// the topic was cut or made anew. Go on from its end, and say so after
		// the end is pinned: before, more could still be missed.
		if !b.reopen(ctx, p) {
			return
		}
		sink.Lost(p, cause)
	}
}

// deliver returns when the partition's consumer has ended, with the reason.
func (b *kafkaBus) deliver(ctx context.Context, p int32, sink Sink) error {
	pc := b.parts[p]
	cause := errors.New("partition consumer ended")
	messages, errs := pc.Messages(), pc.Errors()
	for messages != nil || errs != nil {
		select {
		case msg, ok := <-messages:
			if !ok {
				messages = nil
				continue
			}
			sink.Record(p, msg.Value)
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			// Except for the last, sarama retries from the same offset: nothing is
			// lost, and a long silence shows by itself.
			cause = err
			b.log.Debug("fetch invalidations", "partition", p, "error", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return cause
}

func (b *kafkaBus) reopen(ctx context.Context, p int32) bool {
	for {
		pc, err := b.consumer.ConsumePartition(b.topic, p, sarama.OffsetNewest)
		if err == nil {
			b.parts[p] = pc
			return true
		}
		b.log.Debug("consume partition again", "partition", p, "error", err)
		select {
		case <-time.After(reopenAfter):
		case <-ctx.Done():
			return false
		}
	}
}

// Close implements Bus.
func (b *kafkaBus) Close() error {
	parts := b.parts
	if b.control.part != nil {
		parts = append(parts, b.control.part)
	}
	for _, pc := range parts {
		pc.AsyncClose()
	}
	for _, pc := range parts {
		// What is drained here was fetched after Run ended; nobody wants it.
		for range pc.Messages() {
		}
		for range pc.Errors() {
		}
	}
	var errs []error
	if b.consumer != nil {
		errs = append(errs, b.consumer.Close())
	}
	if b.client != nil {
		errs = append(errs, b.client.Close())
	}
	return errors.Join(errs...)
}
