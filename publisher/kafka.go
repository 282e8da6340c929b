package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// Kafka broadcasts invalidations. Broadcast is for one goroutine; Run sends the
// heartbeats and the forewarnings beside it.
type Kafka struct {
	cfg Config
	log *slog.Logger
	obs Observer

	producer []uint64 // of the records, by partition; see rowtide.Batch
	client   sarama.Client
	sync     producer

	// Broadcast's own.
	sequence []uint64 // last one given out, by partition
	limit    int      // bytes of a record

	mu sync.Mutex
	// acked is what heartbeats announce: a sequence that is still under way would
	// look like a loss if the heartbeat overtook it.
	acked     []uint64
	heardAt   []time.Time // when a partition last got a record
	beating   []bool      // a heartbeat of the partition is under way
	watermark rowtide.Version
	// claimed has the watermarks of the partitions that are ours; nil: all are.
	claimed map[int32]rowtide.Version
	behind  func() time.Duration

	turn  *semaphore.Weighted  // one of Broadcast, Claim and a forewarning at a time
	early chan []rowtide.Entry // to forewarn of
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
	// Without it the first record of a broadcast goes alone and all others wait for
	// its acknowledgement: two round trips, and two requests for the broker.
	c.Producer.Flush.Frequency = 500 * time.Microsecond
	// What we read ourselves has an end; closing then waits this long.
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Metadata.AllowAutoTopicCreation = false
	return c
}

// startTimeout bounds the reading of the topic's last records.
const startTimeout = 10 * time.Second

// NewKafka makes a broadcaster over a client made with [ProducerConfig]. It reads
// the last record of each partition, for up to 10 s, and goes on with its
// sequence. The topic must exist: see [EnsureTopic].
func NewKafka(cfg Config, client sarama.Client, log *slog.Logger, obs Observer) (*Kafka, error) {
	parts, err := client.Partitions(cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("read partitions of topic %s: %w", cfg.Topic, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	sequence, err := lastSequences(ctx, client, cfg.Topic, parts, log)
	if err != nil {
		return nil, err
	}
	p, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	k := NewKafkaOver(cfg, p, sequence, log, obs)
	k.client, k.sync.client = client, client
	return k, nil
}

// lastSequences is the sequence of each partition's last record, 0 where there
// is none.
func lastSequences(ctx context.Context, client sarama.Client, topic string, parts []int32, log *slog.Logger) ([]uint64, error) {
	out := make([]uint64, len(parts))
	var g errgroup.Group
	for i, p := range parts {
		g.Go(func() error {
			_, err := readTo(ctx, client, topic, p, fromLast, func(m *sarama.ConsumerMessage) error {
				b, err := rowtide.DecodeBatch(m.Value)
				if err != nil {
					// Nodes cannot read it either: it has put them in doubt, so that
					// starting at 0 hides nothing from them.
					log.Warn("last record is not readable, its partition's sequence starts anew", "topic", topic, "partition", p, "offset", m.Offset, "err", err)
				}
				out[i] = b.Sequence
				return nil
			})
			return err
		})
	}
	return out, g.Wait()
}

// TellBehind has every record say how far behind the source the daemon is by what
// behind returns, which must not block and be safe to call from several goroutines. It
// must precede Run and Broadcast. Without it, records say that the daemon keeps up.
func (k *Kafka) TellBehind(behind func() time.Duration) { k.behind = behind }

// Broadcast announces entries and returns nil only when every record is
// acknowledged by all in-sync replicas. A broker that is away is waited for. A
// topic whose max.message.bytes is small gets smaller records; it is an error
// only when a single invalidation without a value does not fit.
func (k *Kafka) Broadcast(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	if err := k.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer k.turn.Release(1)
	return k.tell(ctx, entries, watermark, oldest)
}

// tell is Broadcast, for the holder of k.turn.
func (k *Kafka) tell(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest time.Time) error {
	began := time.Now()
	var msgs []*sarama.ProducerMessage
	if len(entries) > 0 {
		var err error
		if msgs, err = k.announce(ctx, entries, watermark, oldest, began); err != nil {
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

// announce makes the records and sends them, in smaller ones if the topic
// refuses them for their size.
func (k *Kafka) announce(ctx context.Context, entries []rowtide.Entry, watermark rowtide.Version, oldest, now time.Time) ([]*sarama.ProducerMessage, error) {
	first := slices.Clone(k.sequence)
	for {
		msgs := k.records(entries, watermark, oldest, now)
		err := k.send(ctx, msgs)
		var size *refusal
		if !errors.As(err, &size) {
			return msgs, err
		}
		// The same numbers again: what went through comes twice, which nodes do
		// not mind, and what did not leaves no hole.
		copy(k.sequence, first)
		if err := k.shrink(size); err != nil {
			return nil, err
		}
	}
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
		if r := refused(err); r != nil {
			return r
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
	waves := waves(msgs, len(k.sequence))
	go func() {
		p, err := k.sync.use()
		for _, wave := range waves {
			if err != nil {
				break
			}
			err = p.SendMessages(wave)
		}
		k.sync.failed(p, err)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waves are the messages to send at once, one of each partition: what shares a
// request also shares the topic's limit of its size, and a later record of a
// partition does not leave before an earlier one has arrived.
func waves(msgs []*sarama.ProducerMessage, partitions int) [][]*sarama.ProducerMessage {
	var out [][]*sarama.ProducerMessage
	nth := make([]int, partitions)
	for _, m := range msgs {
		n := nth[m.Partition]
		nth[m.Partition]++
		if n == len(out) {
			out = append(out, nil)
		}
		out[n] = append(out[n], m)
	}
	return out
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
	wg.Go(func() { k.forewarn(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			for p, m := range k.beats(now) {
				wg.Go(func() {
					if err := k.beat(m); err != nil {
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

func (k *Kafka) beat(m *sarama.ProducerMessage) error {
	p, err := k.sync.use()
	if err == nil {
		_, _, err = p.SendMessage(m)
		k.sync.failed(p, err)
	}
	return err
}

// beats are the heartbeats that are due, by partition.
func (k *Kafka) beats(now time.Time) map[int32]*sarama.ProducerMessage {
	behind := k.behind()
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[int32]*sarama.ProducerMessage{}
	for i, seq := range k.acked {
		mark, ours := k.mark(int32(i), k.watermark) //nolint:gosec // partitions are counted in int32
		if !ours || k.beating[i] || now.Sub(k.heardAt[i]) < k.cfg.Heartbeat {
			continue
		}
		k.beating[i] = true
		b := rowtide.Batch{Producer: k.producer[i], Sequence: seq, Watermark: mark, SentAt: now, Behind: behind}
		out[int32(i)] = k.message(int32(i), &b, 0) //nolint:gosec // partitions are counted in int32
	}
	return out
}

// Close ends the producer, once Run and Broadcast have returned. It does not
// close the client.
func (k *Kafka) Close() error { return k.sync.close() }

// NewKafkaOver makes a broadcaster over a producer that is at hand, which goes on
// with these sequences, one per partition. [NewKafka] asks Kafka for both; the
// simulation has neither. Such a broadcaster cannot Claim.
func NewKafkaOver(cfg Config, p sarama.SyncProducer, sequence []uint64, log *slog.Logger, obs Observer) *Kafka {
	n := len(sequence)
	k := &Kafka{
		cfg: cfg, log: log, obs: obs, sync: producer{topic: cfg.Topic, cur: p}, limit: maxRecordBytes, turn: semaphore.NewWeighted(1),
		behind: func() time.Duration { return 0 }, early: make(chan []rowtide.Entry, earlyWaiting),
		sequence: sequence, acked: slices.Clone(sequence),
		producer: make([]uint64, n), heardAt: make([]time.Time, n), beating: make([]bool, n),
	}
	run := rand.Uint32() //nolint:gosec // a label, not a secret
	for i := range n {
		k.producer[i] = rowtide.NewProducer(run, sequence[i])
	}
	return k
}
