package publisher

import (
	"errors"
	"fmt"
	"regexp"
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
	// ControlTopic tells nodes the settings of modules; it is compacted.
	//
	// Defaults to the prefix and ".control".
	ControlTopic string `mapstructure:"control_topic"`
	// ChangesTopic carries row changes from a reader to appliers.
	//
	// Defaults to the prefix and ".changes".
	ChangesTopic string `mapstructure:"changes_topic"`
	// Group is the appliers' consumer group.
	//
	// Defaults to the prefix and ".appliers".
	Group string `mapstructure:"group"`
	// DLQTopic keeps the changes that were set aside; it is compacted.
	//
	// Defaults to the prefix and ".dlq".
	DLQTopic string `mapstructure:"dlq_topic"`
	// TLS is off, on or skip-verify.
	//
	// Defaults to off.
	TLS string `mapstructure:"tls"`
	// TLSCA is a PEM file with the authorities to trust instead of the system's.
	TLSCA string `mapstructure:"tls_ca"`
	// SASL is how the daemon logs in.
	SASL SASL `mapstructure:"sasl"`
}

// SASL is a login at the brokers.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty is no login.
	Mechanism string `mapstructure:"mechanism"`
	User      string `mapstructure:"user"`
	Password  string `mapstructure:"password"`
	// PasswordFile is read at start when Password is empty.
	PasswordFile string `mapstructure:"password_file"`
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
	if c.ControlTopic == "" {
		c.ControlTopic = c.Prefix + ".control"
	}
	if c.ChangesTopic == "" {
		c.ChangesTopic = c.Prefix + ".changes"
	}
	if c.Group == "" {
		c.Group = c.Prefix + ".appliers"
	}
	if c.DLQTopic == "" {
		c.DLQTopic = c.Prefix + ".dlq"
	}
	if c.TLS == "" {
		c.TLS = "off"
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
	topics := map[string]string{}
	for _, t := range []struct{ key, name string }{{"kafka.topic", c.Topic}, {"kafka.control_topic", c.ControlTopic}, {"kafka.dlq_topic", c.DLQTopic}, {"kafka.changes_topic", c.ChangesTopic}} {
		if !topicName.MatchString(t.name) {
			errs = append(errs, fmt.Errorf("%s %q: want up to 249 letters, digits, dots, dashes and underscores", t.key, t.name))
		}
		if other, ok := topics[t.name]; ok {
			errs = append(errs, fmt.Errorf("%s %q is %s already: want topics of their own", t.key, t.name, other))
		}
		topics[t.name] = t.key
	}
	return errors.Join(append(errs, c.validateLogin())...)
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

func (c Config) validateLogin() error {
	var errs []error
	if c.TLS != "off" && c.TLS != "on" && c.TLS != "skip-verify" {
		errs = append(errs, fmt.Errorf("kafka.tls %q: want off, on or skip-verify", c.TLS))
	}
	if c.TLSCA != "" && c.TLS != "on" {
		errs = append(errs, fmt.Errorf("kafka.tls_ca is set but kafka.tls is %q: set it to on", c.TLS))
	}
	s := c.SASL
	if s.Mechanism == "" {
		if s != (SASL{}) {
			errs = append(errs, errors.New("kafka.sasl.mechanism is missing: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"))
		}
		return errors.Join(errs...)
	}
	if _, ok := mechanisms[s.Mechanism]; !ok {
		errs = append(errs, fmt.Errorf("kafka.sasl.mechanism %q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism))
	}
	if s.User == "" || s.Password == "" {
		errs = append(errs, errors.New("kafka.sasl.user and kafka.sasl.password (or password_file) are both needed to log in"))
	}
	return errors.Join(errs...)
}
