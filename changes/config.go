package changes

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

// Config of both ends.
type Config struct {
	Brokers []string
	// Topic carries the changes. It must have as many partitions as the topic of
	// the invalidations.
	Topic string
	// Group is the appliers' consumer group.
	Group string
	// Replication and Retention are used when the topic is created.
	Replication int16
	Retention   time.Duration
}

// maxMessage is the largest record that we send: a LONGBLOB is refused, a row of
// some MB is not. The topic is created with the same limit.
const maxMessage = 32 << 20

// ProducerConfig is the sarama config that [NewWriter] needs: idempotent, all
// replicas, and one request in flight.
func ProducerConfig() *sarama.Config {
	c := clientConfig()
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Compression = sarama.CompressionSnappy
	c.Producer.MaxMessageBytes = maxMessage
	c.Producer.Retry.Max = 3 // we repeat ourselves, and can be stopped between
	c.Producer.Timeout = 4 * time.Second
	c.Net.MaxOpenRequests = 1
	return c
}

// ConsumerConfig is the sarama config that [NewGroup] needs.
//
// Partitions move one by one while the rest goes on (cooperative sticky). There is
// no static membership: with it a member that was stopped for good keeps its
// partitions until its session has timed out.
func ConsumerConfig() *sarama.Config {
	c := clientConfig()
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = 250 * time.Millisecond
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	// What the log of the topic has lost must stop us, not be skipped.
	c.Consumer.Group.ResetInvalidOffsets = false
	// The least that brokers allow by default: so long a killed applier's
	// partitions stand still.
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 1500 * time.Millisecond
	c.Consumer.Group.Rebalance.Timeout = 15 * time.Second // above drainFor
	c.Consumer.MaxWaitTime = 100 * time.Millisecond       // a fetch that waits ends with the first record anyway
	return c
}

func clientConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "rowtide"
	c.Version = sarama.V2_8_0_0
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = 5*time.Second, 5*time.Second, 5*time.Second
	c.Metadata.AllowAutoTopicCreation = false
	c.Metadata.Retry.Max = 2
	return c
}

// EnsureTopic makes sure that the topic is there with so many partitions. An
// existing topic is left as it is; it is an error if it has another number.
func EnsureTopic(client sarama.Client, cfg Config, partitions int32) error {
	n, err := topicPartitions(client, cfg.Topic)
	if err != nil {
		if n, err = createTopic(client, cfg, partitions); err != nil {
			return err
		}
	}
	if n != partitions {
		return fmt.Errorf("topic %s has %d partitions, the topic of the invalidations %d; they must have the same number: name another kafka.changes_topic", cfg.Topic, n, partitions)
	}
	return nil
}

func createTopic(client sarama.Client, cfg Config, partitions int32) (int32, error) {
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return 0, fmt.Errorf("ask kafka at %v for its controller: %w", cfg.Brokers, err)
	}
	retention, largest, cleanup := strconv.FormatInt(cfg.Retention.Milliseconds(), 10), strconv.Itoa(maxMessage), "delete"
	err = admin.CreateTopic(cfg.Topic, &sarama.TopicDetail{
		NumPartitions: partitions, ReplicationFactor: cfg.Replication,
		ConfigEntries: map[string]*string{"retention.ms": &retention, "cleanup.policy": &cleanup, "max.message.bytes": &largest},
	}, false)
	if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return 0, fmt.Errorf("create topic %s with %d partitions and replication %d: %w; create it by hand, or grant CREATE on it and check kafka.replication",
			cfg.Topic, partitions, cfg.Replication, err)
	}
	// A topic is there before its partitions have leaders; what is sent too early is
	// repeated.
	if err := client.RefreshMetadata(cfg.Topic); err != nil && !errors.Is(err, sarama.ErrLeaderNotAvailable) {
		return 0, fmt.Errorf("read topic %s: %w", cfg.Topic, err)
	}
	return topicPartitions(client, cfg.Topic)
}

func topicPartitions(client sarama.Client, topic string) (int32, error) {
	parts, err := client.Partitions(topic)
	if err != nil {
		return 0, fmt.Errorf("read partitions of topic %s: %w", topic, err)
	}
	return int32(len(parts)), nil //nolint:gosec // partitions are counted in int32
}
