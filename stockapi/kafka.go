package stockapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

// kafkaTimeout bounds every wait for a broker, and so how long a stop can take
// while Kafka is away. Sarama's own default is 30 s.
const kafkaTimeout = 5 * time.Second

// SaramaConfig is base (nil for sarama's defaults; TLS and SASL belong there) with
// what the stock API cannot do without: acks=all, idempotence, one request in
// flight, errors returned.
func SaramaConfig(base *sarama.Config) *sarama.Config {
	c := sarama.NewConfig()
	if base != nil {
		copied := *base
		c = &copied
	} else {
		c.ClientID = "rowtide-stock"
		c.Version = sarama.V2_1_0_0
		c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = kafkaTimeout, kafkaTimeout, kafkaTimeout
		c.Producer.Timeout = kafkaTimeout
		c.Metadata.Retry.Max = 1
		c.Producer.Compression = sarama.CompressionLZ4
	}
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Producer.Retry.Max = max(c.Producer.Retry.Max, 1)
	c.Net.MaxOpenRequests = 1
	c.Producer.Return.Successes, c.Producer.Return.Errors = true, true
	c.Producer.Partitioner = sarama.NewHashPartitioner
	c.Consumer.Return.Errors = true
	// A topic made by a mere question for it would have the broker's default
	// partitions and retention; see EnsureTopic.
	c.Metadata.AllowAutoTopicCreation = false
	return c
}

// openKafka connects, for as long as it takes or until ctx is done.
func openKafka(ctx context.Context, cfg Config, base *sarama.Config, failed func(error)) (sarama.Client, error) {
	b := backoff{min: 100 * time.Millisecond, max: kafkaTimeout}
	for {
		client, err := sarama.NewClient(cfg.Kafka.Brokers, SaramaConfig(base))
		if err == nil {
			return client, nil
		}
		failed(fmt.Errorf("connect to kafka %v: %w", cfg.Kafka.Brokers, err))
		b.wait(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// EnsureTopic creates the topic of stock events if it is not there. It leaves an
// existing topic as it is, however many partitions it has.
func EnsureTopic(cfg Config, base *sarama.Config) (err error) {
	cfg = cfg.WithDefaults()
	if err := errors.Join(cfg.Validate(), cfg.needBrokers()); err != nil {
		return err
	}
	k := cfg.Kafka
	admin, err := sarama.NewClusterAdmin(k.Brokers, SaramaConfig(base))
	if err != nil {
		return fmt.Errorf("create topic %s: connect to kafka %v: %w", k.Topic, k.Brokers, err)
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	// The log is read by position and gaps are fatal: a week bounds how long the
	// ledger may be away, by size nothing is dropped.
	retention, unlimited, minISR := strconv.FormatInt((7*24*time.Hour).Milliseconds(), 10), "-1", "1"
	if k.Replication > 2 {
		minISR = "2"
	}
	err = admin.CreateTopic(k.Topic, &sarama.TopicDetail{
		NumPartitions: k.Partitions, ReplicationFactor: k.Replication,
		ConfigEntries: map[string]*string{
			"cleanup.policy": new("delete"), "retention.ms": &retention,
			"retention.bytes": &unlimited, "min.insync.replicas": &minISR,
		},
	}, false)
	if errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create topic %s with %d partitions and replication %d (needs the CREATE right on the topic; "+
			"an operator can create it instead): %w", k.Topic, k.Partitions, k.Replication, err)
	}
	return nil
}

// backoff waits longer each time, with jitter, so that many clients of a server
// that comes back do not all come back at once.
type backoff struct {
	min, max, next time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// wait returns early when ctx is done.
func (b *backoff) wait(ctx context.Context) {
	b.next = min(max(b.next*2, b.min), b.max)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
