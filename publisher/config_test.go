package publisher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide/publisher"
)

func TestConfig_Validate(t *testing.T) {
	valid := publisher.Config{Brokers: []string{"k:9092"}}.WithDefaults()
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
