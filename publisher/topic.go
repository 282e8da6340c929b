package publisher

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/IBM/sarama"
)

// EnsureTopic makes sure that the topic is there and returns its number of
// partitions. An existing topic is left as it is.
func EnsureTopic(client sarama.Client, cfg Config) (int32, error) {
	// Looked up first: an account without the right to create may use what is there.
	if parts, err := client.Partitions(cfg.Topic); err == nil && len(parts) > 0 {
		return int32(len(parts)), nil //nolint:gosec // partitions are counted in int32
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return 0, fmt.Errorf("ask kafka at %v for its controller: %w", cfg.Brokers, err)
	}
	retention := strconv.FormatInt(cfg.Retention.Milliseconds(), 10)
	cleanup := "delete"
	err = admin.CreateTopic(cfg.Topic, &sarama.TopicDetail{
		NumPartitions: cfg.Partitions, ReplicationFactor: cfg.Replication,
		ConfigEntries: map[string]*string{"retention.ms": &retention, "cleanup.policy": &cleanup},
	}, false)
	if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return 0, fmt.Errorf("create topic %s with %d partitions and replication %d: %w; create it by hand, or grant CREATE on it and check kafka.replication",
			cfg.Topic, cfg.Partitions, cfg.Replication, err)
	}
	if err := client.RefreshMetadata(cfg.Topic); err != nil {
		return 0, fmt.Errorf("read topic %s: %w", cfg.Topic, err)
	}
	parts, err := client.Partitions(cfg.Topic)
	if err != nil {
		return 0, fmt.Errorf("read topic %s: %w", cfg.Topic, err)
	}
	return int32(len(parts)), nil //nolint:gosec // partitions are counted in int32
}
