package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// One record is bounded in items and, for long ids, in bytes before compression:
// well below the broker's default limit of 1 MB.
const (
	maxRecordItems = 4000
	maxRecordBytes = 256 << 10
	itemBytes      = 32 // an item without its id
)

// Kafka broadcasts invalidations. Broadcast is for one goroutine; Run sends the
// heartbeats beside it.
type Kafka struct {
	cfg      Config
	log      *slog.Logger
	obs      Observer
	producer uint64 // of the records, see rowtide.Batch

	sync     sarama.SyncProducer
	sequence []uint64 // last one given out, by partition; Broadcast's own

	mu sync.Mutex
	// acked is what heartbeats announce: a sequence that is still under way would
	// look like a loss if the heartbeat overtook it.
	acked     []uint64
	heardAt   []time.Time // when a partition last got a record
	beating   []bool      // a heartbeat of the partition is under way
	watermark rowtide.Version
}

// ProducerConfig is the sarama config that [NewKafka] needs: idempotent, all
// replicas, one request in flight, so that a partition's records never swap.
func ProducerConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "rowtide"
	c.Version = sarama.V2_8_0_0
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Compression = sarama.CompressionSnappy
	c.Producer.Retry.Max = 3 // we repeat ourselves, and can be stopped between
	// A broker that hangs must not outlive a stop by much.
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = 5*time.Second, 5*time.Second, 5*time.Second
	c.Producer.Timeout = 4 * time.Second
	c.Net.MaxOpenRequests = 1
	c.Metadata.AllowAutoTopicCreation = false
	return c
}

// NewKafka makes a broadcaster over a client made with [ProducerConfig]. The
// topic must exist: see [EnsureTopic].
func NewKafka(cfg Config, client sarama.Client, log *slog.Logger, obs Observer) (*Kafka, error) {
	parts, err := client.Partitions(cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("read partitions of topic %s: %w", cfg.Topic, err)
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	return &Kafka{
		cfg: cfg, log: log, obs: obs, producer: rand.Uint64(), //nolint:gosec // a label, not a secret
		sync: p, sequence: make([]uint64, len(parts)), acked: make([]uint64, len(parts)), heardAt: make([]time.Time, len(parts)), beating: make([]bool, len(parts)),
	}, nil
}

// Broadcast announces entries and returns nil only when every record is
// acknowledged by all in-sync replicas. A broker that is away is waited for.
func (k *Kafka) Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	began := time.Now()
	var msgs []*sarama.ProducerMessage
	if len(entries) > 0 {
		msgs = k.records(entries, watermark, oldest, began)
		if err := k.send(ctx, msgs); err != nil {
			return err
		}
		k.obs.Broadcast(len(entries), time.Since(began))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	copy(k.acked, k.sequence)
	for _, m := range msgs {
		k.heardAt[m.Partition] = began
	}
	k.watermark = max(k.watermark, watermark)
	return nil
}

// records makes one record per partition (more only when one would grow too
// large), with the partition's next sequence.
func (k *Kafka) records(entries []rowtide.Entry, watermark rowtide.Version, oldest, now time.Time) []*sarama.ProducerMessage {
	n := int32(len(k.sequence)) //nolint:gosec // partitions are counted in int32
	byPart := make([][]rowtide.Invalidation, n)
	size := make([]int, n)
	var out []*sarama.ProducerMessage
	flush := func(p int32) {
		k.sequence[p]++
		b := rowtide.Batch{
			Producer: k.producer, Sequence: k.sequence[p], Watermark: watermark, SentAt: now, CommittedAt: oldest, Items: byPart[p],
		}
		out = append(out, k.message(p, &b))
		byPart[p], size[p] = nil, 0
	}
	for i := range entries {
		e := &entries[i]
		p := e.Key.Partition(n)
		if byPart[p] == nil {
			byPart[p] = make([]rowtide.Invalidation, 0, min(len(entries)*5/4/len(byPart)+4, maxRecordItems))
		}
		byPart[p] = append(byPart[p], rowtide.Invalidation{Key: e.Key, Version: e.Version, Empty: e.Empty()})
		size[p] += itemBytes + len(e.Key.ID)
		if len(byPart[p]) == maxRecordItems || size[p] >= maxRecordBytes {
			flush(p)
		}
	}
	for p := range n {
		if len(byPart[p]) > 0 {
			flush(p)
		}
	}
	return out
}

// batchBytes is about how long the record will be.
func batchBytes(b *rowtide.Batch) int {
	n := 64
	for i := range b.Items {
		n += itemBytes + len(b.Items[i].Key.ID)
	}
	return n
}

func (k *Kafka) message(p int32, b *rowtide.Batch) *sarama.ProducerMessage {
	return &sarama.ProducerMessage{Topic: k.cfg.Topic, Partition: p, Value: sarama.ByteEncoder(b.AppendBatch(make([]byte, 0, batchBytes(b))))}
}

// send repeats what was not acknowledged until it is. A record that went through
// although its acknowledgement was lost arrives twice; nodes apply the maximum of
// versions and do not mind.
func (k *Kafka) send(ctx context.Context, msgs []*sarama.ProducerMessage) error {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for failing := false; ; failing = true {
		err := k.try(ctx, msgs)
		if err == nil {
			if failing {
				k.log.Info("kafka accepts records again")
				k.obs.KafkaAway(nil)
			}
			return nil
		}
		if !failing {
			k.log.Warn("kafka refuses records, holding the source back until it accepts them", "topic", k.cfg.Topic, "err", err)
			k.obs.KafkaAway(err)
		}
		// All of them again, also those that went through: a later record of a
		// partition must not stand before an earlier one that failed.
		msgs = again(msgs)
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// try sends once. The library's call knows no context; when ctx ends first, it is
// left to its own timeouts.
func (k *Kafka) try(ctx context.Context, msgs []*sarama.ProducerMessage) error {
	done := make(chan error, 1)
	go func() { done <- k.sync.SendMessages(msgs) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again copies messages without the state that the producer left in them.
func again(msgs []*sarama.ProducerMessage) []*sarama.ProducerMessage {
	out := make([]*sarama.ProducerMessage, len(msgs))
	for i, m := range msgs {
		out[i] = &sarama.ProducerMessage{Topic: m.Topic, Partition: m.Partition, Value: m.Value}
	}
	return out
}

// Run sends heartbeats until ctx ends. A heartbeat repeats the partition's last
// sequence and the watermark, so that a node notices silence and a lost tail. A
// partition that got records of late needs none, and one whose leader is away
// must not silence the others: each is sent by itself.
func (k *Kafka) Run(ctx context.Context) error {
	t := time.NewTicker(k.cfg.Heartbeat)
	defer t.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			for p, m := range k.beats(now) {
				wg.Go(func() {
					if _, _, err := k.sync.SendMessage(m); err != nil {
						k.log.Debug("heartbeat not sent", "partition", p, "err", err)
					}
					k.mu.Lock()
					k.beating[p] = false
					k.mu.Unlock()
				})
			}
		}
	}
}

// beats are the heartbeats that are due, by partition.
func (k *Kafka) beats(now time.Time) map[int32]*sarama.ProducerMessage {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[int32]*sarama.ProducerMessage{}
	for i, seq := range k.acked {
		if k.beating[i] || now.Sub(k.heardAt[i]) < k.cfg.Heartbeat {
			continue
		}
		k.beating[i] = true
		b := rowtide.Batch{Producer: k.producer, Sequence: seq, Watermark: k.watermark, SentAt: now}
		out[int32(i)] = k.message(int32(i), &b) //nolint:gosec // partitions are counted in int32
	}
	return out
}

// Close ends the producer, once Run and Broadcast have returned. It does not
// close the client.
func (k *Kafka) Close() error {
	if err := k.sync.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
		return fmt.Errorf("close producer: %w", err)
	}
	return nil
}
