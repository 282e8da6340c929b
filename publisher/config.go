package publisher

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of [Config]; each has its reason at the field.
const (
	DefaultPrefix     = "rowtide"
	DefaultTopic      = "rowtide.invalidations"
	DefaultPartitions = 12
	DefaultHeartbeat  = 200 * time.Millisecond
	DefaultRetention  = 24 * time.Hour
)

// Config of the way out.
type Config struct {
	// Prefix starts every key in Redis; redis.prefix in the file.
	//
	// Defaults to "rowtide".
	Prefix string `mapstructure:"-"`
	// Brokers are Kafka's host:port addresses. Required.
	Brokers []string `mapstructure:"brokers"`
	// Topic carries the invalidations.
	//
	// Defaults to "rowtide.invalidations".
	Topic string `mapstructure:"topic"`
	// Partitions of the topic, used when the daemon creates it; an existing topic
	// keeps its own number.
	//
	// Defaults to 12.
	Partitions int32 `mapstructure:"partitions"`
	// Replication of the topic, used when the daemon creates it; -1 is the
	// broker's default.
	//
	// Defaults to -1.
	Replication int16 `mapstructure:"replication"`
	// Retention of the topic, used when the daemon creates it; at least as long as
	// a node may keep an entry.
	//
	// Defaults to 24h.
	Retention time.Duration `mapstructure:"retention"`
	// Heartbeat is how often every partition gets a record when there is nothing
	// to say; nodes count as cut off after 3 s without one.
	//
	// Defaults to 200ms.
	Heartbeat time.Duration `mapstructure:"heartbeat"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c Config) WithDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.Topic == "" {
		c.Topic = DefaultTopic
	}
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.Replication == 0 {
		c.Replication = -1
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka.brokers is missing: list at least one host:port"))
	}
	if c.Partitions < 1 {
		errs = append(errs, fmt.Errorf("kafka.partitions %d: want at least 1", c.Partitions))
	}
	if c.Heartbeat < 10*time.Millisecond || c.Heartbeat > time.Second {
		errs = append(errs, fmt.Errorf("kafka.heartbeat %s: want 10ms to 1s; nodes count as cut off after 3s", c.Heartbeat))
	}
	return errors.Join(errs...)
}
