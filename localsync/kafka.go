package localsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/backoff"
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
	parts    []*follower // by partition
	control  controlLog

	// recount is how often the partitions are counted: the daemon changes to a new
	// number when it restarts, and a node has to notice as it would a silence.
	recount time.Duration

	// ahead reports whether hints tell of changes before the bus does; nil: no.
	ahead func() bool
}

// follower reads one partition.
type follower struct {
	pc   sarama.PartitionConsumer
	stop context.CancelFunc
	done chan struct{} // closed when nothing more is delivered
}

// fetchEvery is how long a node that has hints waits between two fetches once it has
// all there is. The brokers answer every node after every broadcast: 16 nodes and a
// broker on two cores are then busy with little else (ADR 0022).
const fetchEvery = 25 * time.Millisecond

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
	// A partition's consumer fetches again when all of the last response was taken.
	c.ChannelBufferSize = 0
	c.Consumer.MaxProcessingTime = max(c.Consumer.MaxProcessingTime, 10*fetchEvery) // sarama's patience with who takes it
	// A consumer that may create the topic would do so with the broker's default
	// number of partitions, and keys would map wrongly for ever.
	c.Metadata.AllowAutoTopicCreation = false
	// Nothing that the library repeats by itself is of use here, and with the buffer
	// above an error that nobody takes would hold its partition up.
	c.Consumer.Return.Errors = false
	return &kafkaBus{brokers: opt.Brokers, topic: opt.Topic, conf: c, log: opt.Logger, control: controlLog{topic: opt.ControlTopic}, recount: opt.Silence / 3}
}

// Open implements Bus.
func (b *kafkaBus) Open(ctx context.Context) (int32, error) {
	client, err := newClient(ctx, b.brokers, b.conf)
	if err != nil {
		return 0, fmt.Errorf("reach kafka at %v: %w; is it running, and does the address that it advertises resolve here?", b.brokers, err)
	}
	b.client = client
	n, err := b.pin(ctx)
	if err != nil {
		return 0, errors.Join(err, b.Close())
	}
	return n, nil
}

// newClient returns when ctx ends, which sarama's own does not: its timeouts bound
// what is left behind then.
func newClient(ctx context.Context, brokers []string, conf *sarama.Config) (sarama.Client, error) {
	type answer struct {
		client sarama.Client
		err    error
	}
	ch := make(chan answer, 1)
	go func() {
		c, err := sarama.NewClient(brokers, conf)
		if err == nil && ctx.Err() != nil {
			c, err = nil, errors.Join(ctx.Err(), c.Close())
		}
		ch <- answer{c, err}
	}()
	select {
	case a := <-ch:
		return a.client, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *kafkaBus) pin(ctx context.Context) (int32, error) {
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
		if err := b.lead(ctx, p); err != nil {
			return 0, err
		}
	}
	return int32(len(ids)), nil
}

// lead is add that waits, for some seconds, for a leader: of a topic made a moment
// ago, or while brokers restart one after the other, there may be none.
func (b *kafkaBus) lead(ctx context.Context, p int32) error {
	const attempts = 6
	pause := backoff.New(100*time.Millisecond, time.Second)
	for n := 1; ; n++ {
		err := b.add(p)
		if !errors.Is(err, sarama.ErrNotLeaderForPartition) && !errors.Is(err, sarama.ErrLeaderNotAvailable) {
			return err
		}
		if n == attempts || pause.Wait(ctx) != nil {
			return err
		}
		if err := b.client.RefreshMetadata(b.topic); err != nil {
			b.log.Debug("ask for the topic's leaders", "topic", b.topic, "error", err)
		}
	}
}

// add pins the end of the next partition.
func (b *kafkaBus) add(p int32) error {
	// OffsetNewest is looked up inside the call: when it returns, the end is
	// pinned.
	pc, err := b.consumer.ConsumePartition(b.topic, p, sarama.OffsetNewest)
	if err != nil {
		return fmt.Errorf("consume partition %d of topic %q: %w", p, b.topic, err)
	}
	b.parts = append(b.parts, &follower{pc: pc, done: make(chan struct{})})
	return nil
}

// Run implements Bus.
func (b *kafkaBus) Run(ctx context.Context, sink Sink) error {
	var wg sync.WaitGroup
	start := func(p int32) {
		f := b.parts[p]
		var own context.Context
		own, f.stop = context.WithCancel(ctx)
		wg.Go(func() {
			defer close(f.done)
			b.follow(own, f, p, sink)
		})
	}
	for p := range b.parts {
		start(int32(p)) //nolint:gosec // partitions are counted in int32
	}
	wg.Go(func() { b.watch(ctx, sink, start) })
	if b.control.apply != nil {
		wg.Go(func() { b.followControl(ctx) })
	}
	wg.Wait()
	return nil
}

// follow delivers one partition until ctx ends.
func (b *kafkaBus) follow(ctx context.Context, f *follower, p int32, sink Sink) {
	for ctx.Err() == nil {
		cause := b.deliver(ctx, f.pc, p, sink)
		if ctx.Err() != nil {
			return
		}
		// sarama gives up on one error only: our offset no longer exists, because
		// the topic was cut or made anew. Go on from its end, and say so after
		// the end is pinned: before, more could still be missed.
		if !b.reopen(ctx, f, p) {
			return
		}
		sink.Lost(p, cause)
	}
}

// deliver returns when the partition's consumer has ended, with the reason. While it
// takes nothing, one fetch at most is under way.
func (b *kafkaBus) deliver(ctx context.Context, pc sarama.PartitionConsumer, p int32, sink Sink) error {
	messages := pc.Messages()
	var held <-chan *sarama.ConsumerMessage // messages, during a pause
	var resume <-chan time.Time
	for {
		select {
		case msg, ok := <-messages:
			if !ok {
				return errCut
			}
			sink.Record(p, msg.Value)
			if b.ahead != nil && b.ahead() && msg.Offset+1 >= pc.HighWaterMarkOffset() {
				messages, held, resume = nil, messages, time.After(fetchEvery)
			}
		case <-resume:
			messages, resume = held, nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errCut is why a partition's consumer ends: all else the library repeats from the same
// offset, so that nothing is lost, and a long silence shows by itself.
var errCut = fmt.Errorf("partition consumer ended: %w", sarama.ErrOffsetOutOfRange)

func (b *kafkaBus) reopen(ctx context.Context, f *follower, p int32) bool {
	for {
		pc, err := b.consumer.ConsumePartition(b.topic, p, sarama.OffsetNewest)
		if err == nil {
			f.pc = pc
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
	var parts []sarama.PartitionConsumer
	for _, f := range b.parts {
		parts = append(parts, f.pc)
	}
	if b.control.part != nil {
		parts = append(parts, b.control.part)
	}
	closeAll(parts)
	var errs []error
	if b.consumer != nil {
		errs = append(errs, b.consumer.Close())
	}
	if b.client != nil {
		errs = append(errs, b.client.Close())
	}
	b.parts, b.control.part, b.consumer, b.client = nil, nil, nil, nil
	return errors.Join(errs...)
}

func closeAll(parts []sarama.PartitionConsumer) {
	for _, pc := range parts {
		pc.AsyncClose()
	}
	for _, pc := range parts {
		// What is drained here was fetched after delivery ended; nobody wants it.
		for range pc.Messages() {
		}
		for range pc.Errors() {
		}
	}
}
