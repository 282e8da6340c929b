package stockapi

import (
	"errors"
	"fmt"
	"time"
)

// Defaults, with the reason for each number.
const (
	DefaultPrefix = "s"
	// DefaultHoldTTL is long enough to pay by a redirect to a bank.
	DefaultHoldTTL = 10 * time.Minute
	// DefaultMaxHoldTTL bounds what one buyer may keep from the others.
	DefaultMaxHoldTTL = 30 * time.Minute
	// DefaultGrace covers a payment that was started before the deadline.
	DefaultGrace = 30 * time.Second
	// DefaultRetention is how long an ended hold still answers a repeated request:
	// a day, as payment providers do it.
	DefaultRetention = 24 * time.Hour
	// DefaultOutboxKeep acknowledged events stay for a re-read: about 20 MB.
	DefaultOutboxKeep = 100_000
	// DefaultOutboxMax events are about 100 MB, minutes of a rush without Kafka.
	DefaultOutboxMax = 500_000
	// DefaultAttempts at an operation whose reply is lost.
	DefaultAttempts = 3
	// DefaultSweepEvery bounds how late after its grace a hold expires.
	DefaultSweepEvery = 500 * time.Millisecond
	// DefaultSweepBatch keeps one script call below a millisecond or two.
	DefaultSweepBatch = 100
	// DefaultRelayBatch is the most events in one Kafka record.
	DefaultRelayBatch = 256
	// DefaultRelayBlock bounds how long a stop waits for a blocking read.
	DefaultRelayBlock = 200 * time.Millisecond
	// DefaultDiscoverEvery is how soon a newly loaded event is relayed and swept.
	DefaultDiscoverEvery = time.Second
	// DefaultLedgerBatch is where the measured gain of larger batches flattens.
	DefaultLedgerBatch = 256
	// DefaultMaxBody in bytes: 32 items fit many times over.
	DefaultMaxBody = 16 << 10
	// DefaultFewLeft is from where on the shop says "few".
	DefaultFewLeft = 20
	// DefaultTopic carries the stock events.
	DefaultTopic = "stock.events.v1"
	// DefaultPartitions leaves room for as many busy events side by side.
	DefaultPartitions = 8
)

const (
	// maxItems and maxLimits bound one script call, and Lua's unpack.
	maxItems  = 32
	maxLimits = 64
	// maxUnits keeps sums of counters far below 2^53, where Lua stops being exact.
	maxUnits = 1 << 40
	// maxRelayBatch bounds a Kafka record: 1,000 events of a typical 300 bytes are a
	// third of Kafka's 1 MB.
	maxRelayBatch = 1000
)

// Config is everything that the stock API can be told. The zero value, with
// defaults, works save for Kafka.Brokers.
type Config struct {
	// Prefix starts every key in Redis. Defaults to DefaultPrefix.
	Prefix string `mapstructure:"-"`
	// Cells per event. Only 1 so far, and the default.
	Cells int `mapstructure:"cells"`
	// HoldTTL is the deadline of holds that ask for none. Defaults to DefaultHoldTTL.
	HoldTTL time.Duration `mapstructure:"hold_ttl"`
	// MaxHoldTTL is the longest deadline that a request may ask for. Defaults to
	// DefaultMaxHoldTTL.
	MaxHoldTTL time.Duration `mapstructure:"max_hold_ttl"`
	// Grace is how long after its deadline a hold is kept for a late confirm.
	// Defaults to DefaultGrace; negative means none.
	Grace time.Duration `mapstructure:"grace"`
	// Retention of ended holds in Redis. Defaults to DefaultRetention.
	Retention time.Duration `mapstructure:"retention"`
	// OutboxKeep is the number of acknowledged events kept. Defaults to
	// DefaultOutboxKeep; negative means one.
	OutboxKeep int64 `mapstructure:"outbox_keep"`
	// OutboxMax is the outbox length at which holds are refused. Defaults to
	// DefaultOutboxMax; must be above OutboxKeep.
	OutboxMax int64 `mapstructure:"outbox_max"`
	// Attempts at an operation whose reply is lost. Defaults to DefaultAttempts.
	Attempts int `mapstructure:"attempts"`
	// SweepEvery and SweepBatch pace the expiry of holds. They default to
	// DefaultSweepEvery and DefaultSweepBatch.
	SweepEvery time.Duration `mapstructure:"sweep_every"`
	SweepBatch int           `mapstructure:"sweep_batch"`
	// RelayBatch is the most events in one Kafka record, RelayBlock how long a read
	// of an idle outbox blocks. They default to DefaultRelayBatch, DefaultRelayBlock.
	RelayBatch int           `mapstructure:"relay_batch"`
	RelayBlock time.Duration `mapstructure:"relay_block"`
	// DiscoverEvery is how often new events are looked for. Defaults to
	// DefaultDiscoverEvery.
	DiscoverEvery time.Duration `mapstructure:"discover_every"`
	// LedgerBatch is the most events in one transaction. Defaults to
	// DefaultLedgerBatch; must not be below RelayBatch, since a record is applied
	// whole.
	LedgerBatch int `mapstructure:"ledger_batch"`
	// MaxBody of an HTTP request, in bytes. Defaults to DefaultMaxBody.
	MaxBody int64 `mapstructure:"max_body"`
	// FewLeft is the quantity up to which the SKU route says "few". Defaults to
	// DefaultFewLeft.
	FewLeft int64 `mapstructure:"few_left"`
	// Limits are the purchase limits, tested in this order.
	Limits []LimitRule `mapstructure:"limits"`
	// Kafka is where the events go.
	Kafka KafkaConfig `mapstructure:"kafka"`
}

// KafkaConfig is the bus of stock events.
type KafkaConfig struct {
	// Brokers to start from; there is no honest default.
	Brokers []string `mapstructure:"brokers"`
	// Topic defaults to DefaultTopic.
	Topic string `mapstructure:"topic"`
	// Partitions and Replication of the topic when EnsureTopic creates it. They
	// default to DefaultPartitions and 1.
	Partitions  int32 `mapstructure:"partitions"`
	Replication int16 `mapstructure:"replication"`
}

// WithDefaults is c with every unset field set.
func (c Config) WithDefaults() Config {
	c.Prefix = or(c.Prefix, DefaultPrefix)
	c.Cells = or(c.Cells, 1)
	c.HoldTTL = or(c.HoldTTL, DefaultHoldTTL)
	c.MaxHoldTTL = or(c.MaxHoldTTL, max(DefaultMaxHoldTTL, c.HoldTTL))
	c.Grace = max(or(c.Grace, DefaultGrace), 0)
	c.Retention = or(c.Retention, DefaultRetention)
	c.OutboxKeep = max(or(c.OutboxKeep, DefaultOutboxKeep), 1)
	c.OutboxMax = or(c.OutboxMax, DefaultOutboxMax)
	c.Attempts = or(c.Attempts, DefaultAttempts)
	c.SweepEvery = or(c.SweepEvery, DefaultSweepEvery)
	c.SweepBatch = or(c.SweepBatch, DefaultSweepBatch)
	c.RelayBatch = or(c.RelayBatch, DefaultRelayBatch)
	c.RelayBlock = or(c.RelayBlock, DefaultRelayBlock)
	c.DiscoverEvery = or(c.DiscoverEvery, DefaultDiscoverEvery)
	c.LedgerBatch = or(c.LedgerBatch, max(DefaultLedgerBatch, c.RelayBatch))
	c.MaxBody = or(c.MaxBody, DefaultMaxBody)
	c.FewLeft = or(c.FewLeft, DefaultFewLeft)
	c.Kafka.Topic = or(c.Kafka.Topic, DefaultTopic)
	c.Kafka.Partitions = or(c.Kafka.Partitions, DefaultPartitions)
	c.Kafka.Replication = or(c.Kafka.Replication, 1)
	return c
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Validate reports every fault at once. It expects WithDefaults to have run.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("stock: "+format, args...))
		}
	}
	check(validName(c.Prefix, "-_."), "prefix %q: use letters, digits, -, _ or .", c.Prefix)
	check(c.Cells == 1, "cells must be 1 in this version, not %d", c.Cells)
	check(c.HoldTTL > 0 && c.HoldTTL <= c.MaxHoldTTL, "hold_ttl %s must be above 0 and at most max_hold_ttl %s", c.HoldTTL, c.MaxHoldTTL)
	check(c.Grace >= 0, "grace %s must not be negative", c.Grace)
	check(c.Retention >= time.Second, "retention %s must be at least 1s", c.Retention)
	check(c.OutboxKeep > 0 && c.OutboxMax > c.OutboxKeep, "outbox_max %d must be above outbox_keep %d", c.OutboxMax, c.OutboxKeep)
	check(c.Attempts > 0, "attempts must be above 0, not %d", c.Attempts)
	check(c.SweepEvery > 0, "sweep_every must be above 0, not %s", c.SweepEvery)
	check(c.SweepBatch > 0 && c.SweepBatch <= 1000, "sweep_batch must be between 1 and 1000, not %d", c.SweepBatch)
	check(c.RelayBatch > 0 && c.RelayBatch <= maxRelayBatch, "relay_batch must be between 1 and %d, not %d", maxRelayBatch, c.RelayBatch)
	check(c.RelayBlock >= time.Millisecond, "relay_block must be at least 1ms, not %s", c.RelayBlock)
	check(c.DiscoverEvery > 0, "discover_every must be above 0, not %s", c.DiscoverEvery)
	check(c.LedgerBatch >= c.RelayBatch, "ledger_batch %d must not be below relay_batch %d", c.LedgerBatch, c.RelayBatch)
	check(c.MaxBody > 0, "max_body must be above 0, not %d", c.MaxBody)
	check(c.FewLeft >= 0, "few_left must not be negative, is %d", c.FewLeft)
	check(c.Kafka.Topic != "", "kafka.topic is empty")
	check(c.Kafka.Partitions > 0, "kafka.partitions must be above 0, not %d", c.Kafka.Partitions)
	check(c.Kafka.Replication > 0, "kafka.replication must be above 0, not %d", c.Kafka.Replication)
	check(len(c.Limits) <= maxLimits, "at most %d limits, not %d", maxLimits, len(c.Limits))
	ids := make(map[string]bool, len(c.Limits))
	for _, r := range c.Limits {
		errs = append(errs, r.validate())
		check(!ids[r.ID], "limit %q is there twice", r.ID)
		ids[r.ID] = true
	}
	return errors.Join(errs...)
}

// needBrokers is the part of Validate that only concerns who talks to Kafka.
func (c Config) needBrokers() error {
	if len(c.Kafka.Brokers) == 0 {
		return errors.New("stock: kafka.brokers is empty")
	}
	return nil
}
