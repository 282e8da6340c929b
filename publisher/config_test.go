package publisher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/publisher"
)

func TestConfig_Validate(t *testing.T) {
	valid := publisher.Config{Brokers: []string{"k:9092"}, Prefix: "rowtide"}.WithDefaults()
	for _, tt := range []struct {
		name   string
		change func(*publisher.Config)
		want   string
	}{
		{"valid", func(*publisher.Config) {}, ""},
		{"no brokers", func(c *publisher.Config) { c.Brokers = nil }, "kafka.brokers is missing: list at least one host:port"},
		{"no partitions", func(c *publisher.Config) { c.Partitions = -1 }, "kafka.partitions -1: want at least 1"},
		{"heartbeat too short", func(c *publisher.Config) { c.Heartbeat = time.Millisecond }, "kafka.heartbeat 1ms: want 10ms to 1s"},
		{"heartbeat too long", func(c *publisher.Config) { c.Heartbeat = 2 * time.Second }, "kafka.heartbeat 2s: want 10ms to 1s"},
		{"topic name", func(c *publisher.Config) { c.ControlTopic = "shop:cache.control" }, `kafka.control_topic "shop:cache.control": want up to 249 letters`},
		{"one topic twice", func(c *publisher.Config) { c.DLQTopic = c.Topic }, `kafka.dlq_topic "rowtide.invalidations" is kafka.topic already`},
		{"tls", func(c *publisher.Config) { c.TLS = "yes" }, `kafka.tls "yes": want off, on or skip-verify`},
		{"authorities without tls", func(c *publisher.Config) { c.TLSCA = "ca.pem" }, `kafka.tls_ca is set but kafka.tls is "off"`},
		{"mechanism", func(c *publisher.Config) { c.SASL = publisher.SASL{Mechanism: "plain", User: "u", Password: "p"} }, `kafka.sasl.mechanism "plain": want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512`},
		{"no mechanism", func(c *publisher.Config) { c.SASL = publisher.SASL{User: "u"} }, "kafka.sasl.mechanism is missing"},
		{"no password", func(c *publisher.Config) { c.SASL = publisher.SASL{Mechanism: "PLAIN", User: "u"} }, "kafka.sasl.user and kafka.sasl.password (or password_file) are both needed"},
		{"login", func(c *publisher.Config) {
			c.SASL = publisher.SASL{Mechanism: "SCRAM-SHA-256", User: "u", Password: "p"}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := valid
			tt.change(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err=%v, want %q", err, tt.want)
			}
		})
	}
}

// What nothing-lost and in-order rest on; a change here needs a reason.
func TestProducerConfig_KeepsRecordsInOrder(t *testing.T) {
	c := publisher.ProducerConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if !c.Producer.Idempotent || c.Producer.RequiredAcks != sarama.WaitForAll || c.Net.MaxOpenRequests != 1 || !c.Producer.Return.Successes || c.Metadata.AllowAutoTopicCreation {
		t.Errorf("producer config %+v", c.Producer)
	}
}
