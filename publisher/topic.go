package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/internal/backoff"
)

// EnsureTopic makes sure that the topic of the invalidations is there and returns
// its number of partitions. An existing topic is left as it is.
func EnsureTopic(client sarama.Client, cfg Config) (int32, error) {
	retention := strconv.FormatInt(cfg.Retention.Milliseconds(), 10)
	return ensure(client, cfg, cfg.Topic, cfg.Partitions, map[string]string{"retention.ms": retention, "cleanup.policy": "delete"})
}

// ensureCompacted makes sure that a topic of one partition is there that keeps
// the newest record of each key. What an existing topic does with old records is
// not ours to change; it is told to log if it would forget.
func ensureCompacted(client sarama.Client, cfg Config, topic string, log *slog.Logger) error {
	_, err := ensure(client, cfg, topic, 1, map[string]string{
		"cleanup.policy": "compact",
		// Few and small records: compact early, so that readers have little to read.
		"segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1",
	})
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return fmt.Errorf("ask kafka at %v for its controller: %w", cfg.Brokers, err)
	}
	found, err := admin.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"cleanup.policy"}}}, sarama.DescribeConfigsOptions{})
	if err != nil {
		return nil //nolint:nilerr // the right to look is not needed for anything else
	}
	for _, f := range found {
		for _, e := range f.Configs {
			if e.Name == "cleanup.policy" && e.Value != "compact" {
				log.Warn("topic forgets its records, set its cleanup.policy to compact", "topic", topic, "cleanup.policy", e.Value)
			}
		}
	}
	return nil
}

// exists looks a topic up; an account without the right to create may use what
// is there.
func exists(client sarama.Client, topic string) (int32, bool) {
	parts, err := client.Partitions(topic)
	return int32(len(parts)), err == nil && len(parts) > 0 //nolint:gosec // partitions are counted in int32
}

func ensure(client sarama.Client, cfg Config, topic string, partitions int32, settings map[string]string) (int32, error) {
	if n, ok := exists(client, topic); ok {
		return n, nil
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return 0, fmt.Errorf("ask kafka at %v for its controller: %w", cfg.Brokers, err)
	}
	entries := map[string]*string{}
	for k, v := range settings {
		entries[k] = &v
	}
	err = admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: cfg.Replication, ConfigEntries: entries}, false)
	if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return 0, fmt.Errorf("create topic %s with %d partitions and replication %d: %w; create it by hand, or grant CREATE on it and check kafka.replication",
			topic, partitions, cfg.Replication, err)
	}
	n, err := awaitLeaders(client, topic)
	if err != nil {
		return 0, fmt.Errorf("read topic %s: %w", topic, err)
	}
	return n, nil
}

// awaitLeaders waits until all partitions of a new topic can be written to.
func awaitLeaders(client sarama.Client, topic string) (int32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	wait := backoff.New(10*time.Millisecond, 500*time.Millisecond)
	for {
		err := client.RefreshMetadata(topic)
		if err == nil {
			var all, writable []int32
			all, err = client.Partitions(topic)
			if writable, _ = client.WritablePartitions(topic); len(all) > 0 && slices.Equal(all, writable) {
				return int32(len(all)), nil //nolint:gosec // partitions are counted in int32
			}
		}
		if waited := wait.Wait(ctx); waited != nil {
			return 0, errors.Join(err, waited)
		}
	}
}
