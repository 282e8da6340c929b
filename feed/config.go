package feed

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// The formats of records.
const (
	FormatCanal    = "canal-json"
	FormatDebezium = "debezium-json"
	FormatMaxwell  = "maxwell-json"
)

// Where a first start (no checkpoint) begins.
const (
	StartEarliest = "earliest"
	StartLatest   = "latest"
)

// Config says which topics to read and how.
type Config struct {
	// Format is canal-json (flat messages), debezium-json or maxwell-json. Required.
	Format string `mapstructure:"format"`
	// Brokers are Kafka's host:port addresses. Required.
	Brokers []string `mapstructure:"brokers"`
	// Topics hold the records of one database server. Required.
	Topics []string `mapstructure:"topics"`
	// Keyed promises that all records of a row are in one partition. Several
	// partitions of records without a source position need it.
	Keyed bool `mapstructure:"keyed"`
	// Epoch is the high part of every version. It is raised by one when the
	// positions of the source start anew, or the topics are made anew.
	//
	// Defaults to 1.
	Epoch uint32 `mapstructure:"epoch"`
	// TimeZone is the zone in which Canal or Maxwell wrote TIMESTAMP columns.
	//
	// Defaults to UTC.
	TimeZone string `mapstructure:"time_zone"`
	// Types declare columns whose type the records do not tell, as
	// "schema.table.column type", such as "shop.event.price decimal(10,2)". They
	// win over the types of Canal's records; Debezium's schema needs none.
	Types []string `mapstructure:"types"`
	// StartAt is where to begin without a checkpoint: earliest or latest;
	// source.start_at in the file.
	//
	// Defaults to earliest.
	StartAt string `mapstructure:"-"`
}

// WithDefaults returns a copy with every empty optional field filled in.
func (c Config) WithDefaults() Config {
	if c.Epoch == 0 {
		c.Epoch = 1
	}
	if c.TimeZone == "" {
		c.TimeZone = "UTC"
	}
	if c.StartAt == "" {
		c.StartAt = StartEarliest
	}
	return c
}

// Validate reports every fault of a config with defaults, joined.
func (c Config) Validate() error {
	var errs []error
	switch c.Format {
	case FormatCanal, FormatDebezium, FormatMaxwell:
	case "":
		errs = append(errs, errors.New("source.format is missing: name canal-json, debezium-json or maxwell-json"))
	default:
		errs = append(errs, fmt.Errorf("source.format %q: want canal-json, debezium-json or maxwell-json", c.Format))
	}
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("source.brokers is missing: list at least one host:port of the Kafka that holds the topics"))
	}
	if len(c.Topics) == 0 {
		errs = append(errs, errors.New("source.topics is missing: list the topics that the capture writes to"))
	}
	for i, t := range c.Topics {
		if t == "" || slices.Contains(c.Topics[:i], t) {
			errs = append(errs, fmt.Errorf("source.topics[%d] %q: want each topic's name once", i, t))
		}
	}
	if c.Epoch > rowtide.MaxEpoch {
		errs = append(errs, fmt.Errorf("source.epoch %d: want 1 to %d", c.Epoch, rowtide.MaxEpoch))
	}
	if _, err := time.LoadLocation(c.TimeZone); err != nil {
		errs = append(errs, fmt.Errorf("source.time_zone %q: want a zone such as UTC or Asia/Shanghai: %w", c.TimeZone, err))
	}
	if c.StartAt != StartEarliest && c.StartAt != StartLatest {
		errs = append(errs, fmt.Errorf("source.start_at %q: want earliest or latest for a source of kind kafka", c.StartAt))
	}
	_, err := c.declared()
	return errors.Join(append(errs, err)...)
}

// declared are the types of Config.Types by "schema.table.column".
func (c Config) declared() (map[string]columnType, error) {
	out := map[string]columnType{}
	var errs []error
	for i, s := range c.Types {
		name, typ, ok := strings.Cut(strings.TrimSpace(s), " ")
		t := parseType(typ)
		if !ok || strings.Count(name, ".") != 2 || !t.known() {
			errs = append(errs, fmt.Errorf("source.types[%d] %q: want SCHEMA.TABLE.COLUMN and its MySQL type", i, s))
			continue
		}
		out[name] = t
	}
	return out, errors.Join(errs...)
}
